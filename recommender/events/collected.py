"""What was kept of all blocks, as whole columns in the order of the event table, without repeats, lengths bounded.

One column after another is changed and given up, so that the whole takes little more memory than the table that it
becomes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints
from recommender.events.blocks import Kept, offsets, offsets_known
from recommender.events.check import EXAMPLES, Bounded
from recommender.events.repeats import by_listener, repeats
from recommender.events.schema import schema_with
from recommender.events.worth import Worth, told
from recommender.sessions.lengths import begins_session, ends_us, parts_by_listener, play_lengths
from recommender.sessions.plays import PLAY
from recommender.sessions.table import DAY_S

_LONG_S = 10_000.0  # where so many lengths are longer, they are milliseconds: most, or of many a fifth
_MANY = 20


class Collected:
    """Columns of n kept rows, first in the order of the files, after `put_in_order` in that of the event table."""

    def __init__(self, kept: Kept) -> None:
        self._word: dict[str, pa.Array] = {}
        self._code: dict[str, Ints] = {}
        for name in list(kept.text):
            self._code[name], self._word[name] = _whole_text(kept.text.pop(name))
        self._number: dict[str, Floats] = {name: _whole(kept.number.pop(name)) for name in list(kept.number)}
        self._at_us: Ints = _whole(kept.at_us)
        self._skipped, self._offset_min = _whole(kept.skipped), _whole(kept.offset_min)
        self._to_minute, self._file = _whole(kept.to_minute), _whole(kept.file)
        self._no_play: Bools | None = None  # [n], rows that are no plays; None where all are

    def __len__(self) -> int:
        return len(self._at_us)

    def put_in_order(self) -> tuple[int, list[str]]:
        """Sorts the rows by listener, time and their own order, without repeats; how many these were, and the first."""
        if not len(self):
            return 0, []
        user, item, order = self._code["user_id"], self._code["item_id"], self._number.get("order")
        if "type" in self._code:  # a play and a like of it are two
            own = np.array([0 if name.startswith(PLAY) else n for n, name in enumerate(self._types(), 1)] + [0])
            item = item.astype(np.int64) * len(own) + own[self._code["type"]]
        rows = by_listener(user, self._at_us, order, self._file)
        again = repeats(
            rows, user, item, self._at_us, order, self._file, self._to_minute, self._number.get("listened_s"),
            self._known,
        )  # fmt: skip
        told = self._shown(np.flatnonzero(again))
        repeated = int(again.sum())
        if repeated:
            rows = rows[~again[rows]]
        self._file = self._to_minute = None
        self._number.pop("order", None)
        for name, code in self._code.items():
            self._code[name] = code[rows]
        for name, number in self._number.items():
            self._number[name] = number[rows]
        self._at_us, self._skipped = self._at_us[rows], self._skipped[rows]
        self._offset_min = self._offset_min[rows]
        return repeated, told

    def weigh(self, rule: Worth) -> list[str]:
        """Gives ratings their weight on the scale that they are of; what counts by value, a line each."""
        if "type" not in self._code:
            return []
        code, types = self._code["type"], self._types()
        rating = self._number.pop("rating")
        lines, adds = told(code, types, rating, rule)
        self._number["weight"] += adds
        no_play = np.array([not name.startswith(PLAY) for name in types] + [False], dtype=np.bool_)[code]
        self._no_play = no_play if no_play.any() else None
        if not lines:
            self._code.pop("type")
        return lines

    def _types(self) -> list[str]:
        return list(self._word["type"].to_pylist())

    def plays(self) -> int:
        """How many rows are plays."""
        return len(self) if self._no_play is None else int(np.count_nonzero(~self._no_play))

    def _of_plays(self, name: str) -> Any:
        """A column of the plays alone."""
        columns = {"user": self._code["user_id"], "item": self._code["item_id"], "at_us": self._at_us, **self._number}
        column = columns.get(name)
        return column if self._no_play is None or column is None else column[~self._no_play]

    def bound(self, now_us: int | None) -> tuple[tuple[Bounded, ...], list[str]]:
        """Brings lengths to what can be believed; how many were bounded, by reason, and what was converted."""
        notes = []
        for name in ("listened_s", "duration_s"):
            if name in self._number and _in_ms(self._number[name]):
                self._number[name] /= 1000
                notes.append(f"{name} holds milliseconds: too many values are over {_LONG_S:,.0f}; divided by 1,000")
        count: dict[str, int] = {}
        duration, listened = self._number.get("duration_s"), self._number.get("listened_s")
        if duration is not None:
            day = duration > DAY_S
            count["whose item is longer than a day: its length is not known"] = int(day.sum())
            duration[day] = np.nan
        if listened is not None:
            user, at_us, length = (self._of_plays(name) for name in ("user", "at_us", "listened_s"))
            item_s = self._of_plays("duration_s")
            for part in parts_by_listener(user):
                found = play_lengths(
                    user[part], at_us[part], length[part], None if item_s is None else item_s[part], now_us
                )
                length[part] = found.length_s
                for why, where in found.bounded.items():
                    count[why] = count.get(why, 0) + int(where.sum())
            if self._no_play is not None:
                listened[~self._no_play] = length
        return tuple(Bounded(why, rows) for why, rows in count.items() if rows), notes

    def listeners(self) -> int:
        """How many listeners there are."""
        return int(np.count_nonzero(np.diff(self._code["user_id"]))) + bool(len(self))

    def items(self) -> int:
        """How many items there are."""
        return int(np.count_nonzero(np.bincount(self._code["item_id"])))

    def newcomers(self, plays: int) -> int:
        """How many listeners have fewer plays."""
        count = np.bincount(self._code["user_id"])
        return int(np.count_nonzero((count > 0) & (count < plays)))

    def coarse(self) -> bool:
        """Whether half of a listener's neighbouring times are the same: such a clock tells no sessions."""
        user, at_us = self._of_plays("user"), self._of_plays("at_us")
        same = user[1:] == user[:-1]
        return bool(same.any()) and 2 * int(np.count_nonzero(same & (np.diff(at_us) == 0))) >= int(same.sum())

    def sessions(self) -> tuple[int, int, int]:
        """How many sessions there are, as `cut_sessions` cuts them; how many of them hold two or more items; and how
        many times another item follows in a session."""
        user, at_us, items = (self._of_plays(name) for name in ("user", "at_us", "item"))
        lengths = [self._of_plays(name) for name in ("listened_s", "duration_s")]
        total = paired = pairs = 0
        for part in parts_by_listener(user):
            unknown = np.full(part.stop - part.start, np.nan)
            listened, duration = (unknown if length is None else length[part] for length in lengths)
            ended_us = ends_us(user[part], at_us[part], listened, duration)
            begins = begins_session(user[part], at_us[part], ended_us)
            item = items[part]
            other = np.concatenate([[False], item[1:] != item[:-1]]) & ~begins
            total += int(np.count_nonzero(begins))
            pairs += int(np.count_nonzero(other))
            paired += len(np.unique(np.cumsum(begins)[other]))
        return total, paired, pairs

    def item_lengths(self) -> pa.Table:
        """item_id, ascending, and the first length that is said of each."""
        code = self._code["item_id"]
        there = np.flatnonzero(np.bincount(code))
        length = np.full(len(self._word["item_id"]), np.nan)
        if "duration_s" in self._number:
            known = np.flatnonzero(~np.isnan(self._number["duration_s"]))
            length[code[known[::-1]]] = self._number["duration_s"][known[::-1]]
        length = length[there]
        ids = self._word["item_id"].take(pa.array(there))
        return pa.table({"item_id": ids, "duration_s": pa.array(length, mask=np.isnan(length))})

    def table(self, as_codes: bool = False) -> pa.Table:
        """The event table; the columns here are given up. as_codes: text as dictionaries."""
        n = len(self)
        schema = schema_with({*self._code, *self._number})
        skipped = self._skipped
        columns: dict[str, pa.Array] = {
            "started_at": pa.array(self._at_us).cast(pa.timestamp("us", "UTC")),
            "utc_offset_min": offsets(self._offset_min),
            "skipped": pa.array(skipped == 1, mask=skipped < 0),
        }
        self._at_us = self._skipped = self._offset_min = np.empty(0, dtype=np.int64)
        for name in ("listened_s", "duration_s", "weight"):
            value = self._number.pop(name, None)
            columns[name] = pa.nulls(n, pa.float64()) if value is None else pa.array(value, mask=np.isnan(value))
        for name in ("user_id", "item_id", "device", "source", "session_id", "type", "container_id"):
            code = self._code.pop(name, None)
            if code is None:
                columns[name] = pa.nulls(n, pa.string())
                continue
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(code, mask=code < 0), self._word.pop(name))
            if not as_codes or name == "type":
                columns[name] = columns[name].cast(pa.string())
        given = [schema.field(name).with_type(columns[name].type) for name in schema.names]
        return pa.table([columns[name] for name in schema.names], schema=pa.schema(given))

    def _known(self, rows: Ints) -> Ints:
        """How many columns some rows fill."""
        known: Ints = (self._skipped[rows] >= 0).astype(np.int64)
        known += offsets_known(self._offset_min[rows])
        for name in ("device", "source", "session_id", "container_id"):
            if name in self._code:
                known += self._code[name][rows] >= 0
        for name in ("listened_s", "duration_s", "weight"):
            if name in self._number:
                known += ~np.isnan(self._number[name][rows])
        return known

    def _shown(self, rows: Ints) -> list[str]:
        """The first of some rows, for people."""
        out = []
        for row in rows[:EXAMPLES].tolist():
            user, item = (self._word[name][int(self._code[name][row])] for name in ("user_id", "item_id"))
            at = pa.scalar(int(self._at_us[row]), pa.timestamp("us", "UTC")).as_py().isoformat()
            out.append(f"{user} played {item} at {at}")
        return out


def _in_ms(length_s: Floats) -> bool:
    positive, long = int(np.count_nonzero(length_s > 0)), int(np.count_nonzero(length_s > _LONG_S))
    return 2 * long > positive or (long >= _MANY and 5 * long > positive)


def _whole(parts: list[Any]) -> Any:
    """The parts as one array; the list is emptied."""
    out = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    parts.clear()
    return out


def _whole_text(parts: list[pa.Array]) -> tuple[Ints, pa.Array]:
    """Codes [n], -1 where null, and the words that they stand for, ascending; the list is emptied."""
    chunked = pa.chunked_array(parts).unify_dictionaries()
    parts.clear()
    words = chunked.chunk(0).dictionary if chunked.num_chunks else pa.array([], pa.string())
    place = pc.array_sort_indices(words)
    rank = np.empty(len(words) + 1, dtype=np.int32)
    rank[place.to_numpy()] = np.arange(len(words), dtype=np.int32)
    rank[-1] = -1
    codes = [rank[pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False)] for chunk in chunked.chunks]
    return _whole(codes), words.take(place)
