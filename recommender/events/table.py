"""The event table: who played what, when, from any file's columns, with a count of what was refused and why.

One row is one play. Only user_id, item_id and started_at are required; a missing listened_s or skipped is null, never
0. Rows are sorted by listener, time and the file's own order, so that equal times keep their sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from recommender.events import columns as read
from recommender.events.blocks import Block, Kept, Rules, first_of_items, offsets, offsets_known
from recommender.events.check import EXAMPLES, Bounded, EventCheck, Refusals, Rejected, Volume, gaps, refused_whole
from recommender.events.local_time import hour_and_weekday, zone
from recommender.events.repeats import by_listener, repeats
from recommender.events.schema import EVENT_SCHEMA, MAPPABLE, REQUIRED, with_session
from recommender.sessions.lengths import GAP_S, begins_session, ends_us, play_lengths
from recommender.sessions.table import DAY_S

__all__ = [
    "EVENT_SCHEMA", "MAPPABLE", "REQUIRED", "SESSION_GAP_S", "EventCheck", "LoadedEvents", "Rejected", "Volume",
    "count_sessions", "item_lengths", "local_clock", "read_blocks", "read_events",
]  # fmt: skip

SESSION_GAP_S = GAP_S
AGAIN = "the same play again"
_LONG_S = 10_000.0  # where half of a column's lengths are longer, they are milliseconds


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEvents:
    """The event table, what the file said of its items (item_id, title, artist, genre, duration_s), and the check."""

    events: pa.Table
    item_text: pa.Table
    check: EventCheck


@dataclass(slots=True)
class Said:
    """What the reader of the files has to say: filled while it reads."""

    read_as: str = ""
    notes: list[str] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)
    passed: dict[str, None] = field(default_factory=dict)  # columns that were passed over


def read_events(
    table: pa.Table,
    mapping: Mapping[str, str] | None = None,
    *,
    default_tz: str | None = None,
    volume: Volume | None = None,
    notes: tuple[str, ...] = (),
    now_us: int | None = None,
) -> LoadedEvents:
    """The events of any table.

    mapping: {our column: the table's column}; columns that already have our name need none. default_tz: IANA zone of
    naive times and of the listeners' clocks, where no `tz` or `utc_offset_min` column says it (naive times without any
    are UTC). now_us: microseconds UTC after which nothing can have begun. Raises DataError where a required column is
    missing or no row can be kept.
    """
    said = Said(notes=list(notes))
    return read_blocks([Block(table)], mapping, default_tz=default_tz, volume=volume, said=said, now_us=now_us)


def read_blocks(
    blocks: Iterable[Block],
    mapping: Mapping[str, str] | None = None,
    *,
    default_tz: str | None = None,
    volume: Volume | None = None,
    said: Said | None = None,
    now_us: int | None = None,
) -> LoadedEvents:
    """The same from blocks of one file or several; `said` may be filled while they are taken."""
    if default_tz is not None:
        zone(default_tz)
    said = said or Said()
    kept, rules = Kept(), Rules(mapping or {}, default_tz, now_us)
    for block in blocks:
        kept.add(block, rules, said.refusals)
    rows = kept.rows + said.refusals.rows - kept.refused
    found = _Columns(kept)
    again = found.put_in_order()
    said.refusals.add(AGAIN, found.shown(again), int(again.sum()))
    rejected = said.refusals.by_reason()
    if not len(found.rows):
        raise DataError(refused_whole(rows, rejected, said.notes))
    bounded, converted = found.bound(now_us)
    events = found.table()
    sessions = count_sessions(events)
    ends = pc.min_max(events["started_at"]).as_py()
    check = EventCheck(
        rows=rows,
        kept=len(events),
        rejected=rejected,
        listeners=pc.count_distinct(events["user_id"]).as_py(),
        items=pc.count_distinct(events["item_id"]).as_py(),
        sessions=sessions,
        first_at=ends["min"].isoformat(timespec="seconds"),
        last_at=ends["max"].isoformat(timespec="seconds"),
        columns=kept.names(),
        gaps=gaps(events, dict.fromkeys(kept.names()), sessions, volume or Volume()),
        notes=(*said.notes, *converted),
        bounded=bounded,
        read_as=said.read_as,
        unread=tuple(said.passed | kept.unread),
    )
    return LoadedEvents(events, _item_text(kept, events), check)


def local_clock(events: pa.Table, default_offset_min: int = 0) -> tuple[Ints, Ints]:
    """Listener-local hour 0 to 23 and weekday 0 (Monday) to 6 of each event, [n] each."""
    at_s = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy() // 1_000_000
    offset = pc.fill_null(read.one_chunk(events.column("utc_offset_min")), default_offset_min)
    return hour_and_weekday(at_s, offset.to_numpy().astype(np.int64))


def count_sessions(events: pa.Table, gap_s: int = SESSION_GAP_S) -> int:
    """Sessions as `cut_sessions` cuts them; `events` sorted by listener and time."""
    if not len(events):
        return 0
    user = read.one_chunk(events.column("user_id").dictionary_encode()).indices.to_numpy()
    at_us = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy()
    ended_us = ends_us(user, at_us, _floats(events, "listened_s"), _floats(events, "duration_s"))
    return int(np.count_nonzero(begins_session(user, at_us, ended_us, gap_s)))


def _floats(events: pa.Table, name: str) -> Floats:
    return np.asarray(read.one_chunk(events.column(name)).to_numpy(zero_copy_only=False), dtype=np.float64)


class _Columns:
    """What was kept, as whole columns in the order of the files; `rows` are those of the event table, in its order."""

    def __init__(self, kept: Kept) -> None:
        self.text = {name: _whole_text(parts) for name, parts in kept.text.items()}
        self.number: dict[str, Floats] = {name: _whole(parts) for name, parts in kept.number.items()}
        self.at_us, self.skipped, self.offset_min = _whole(kept.at_us), _whole(kept.skipped), _whole(kept.offset_min)
        self.to_minute, self.file = _whole(kept.to_minute).astype(bool), _whole(kept.file)
        for parts in (kept.at_us, kept.skipped, kept.offset_min, kept.to_minute, kept.file):
            parts.clear()
        kept.text.clear()
        kept.number.clear()
        self.rows = np.empty(0, dtype=np.int64)

    def put_in_order(self) -> Bools:
        """Sets `rows`, repeats left out; [n], the repeats."""
        if not len(self.at_us):
            return np.zeros(0, dtype=bool)
        user, item, order = self.text["user_id"][0], self.text["item_id"][0], self.number.get("order")
        self.rows = by_listener(user, self.at_us, order, self.file)
        listened = self.number.get("listened_s", np.full(len(self.at_us), np.nan))
        again = repeats(self.rows, user, item, self.at_us, order, self.file, self.to_minute, listened, self._known())
        if again.any():
            self.rows = self.rows[~again[self.rows]]
        return again

    def _known(self) -> Ints:
        """How many columns a row fills."""
        known: Ints = (self.skipped >= 0).astype(np.int64)
        known += offsets_known(self.offset_min)
        for name in ("device", "source", "session_id"):
            if name in self.text:
                known += self.text[name][0] >= 0
        for name in ("listened_s", "duration_s"):
            if name in self.number:
                known += ~np.isnan(self.number[name])
        return known

    def shown(self, rows: Bools) -> list[str]:
        """The first of some rows, for people."""
        out = []
        for row in np.flatnonzero(rows)[:EXAMPLES].tolist():
            user, item = (self.text[name][1][int(self.text[name][0][row])] for name in ("user_id", "item_id"))
            at = pa.scalar(int(self.at_us[row]), pa.timestamp("us", "UTC")).as_py().isoformat()
            out.append(f"{user} played {item} at {at}")
        return out

    def bound(self, now_us: int | None) -> tuple[tuple[Bounded, ...], list[str]]:
        """Brings lengths to what can be believed; how many were bounded, by reason, and what was converted."""
        notes = []
        for name in ("listened_s", "duration_s"):
            if name in self.number and _in_ms(self.number[name]):
                self.number[name] = self.number[name] / 1000
                notes.append(f"{name} holds milliseconds: half of its values are over {_LONG_S:,.0f}; divided by 1,000")
        bounded = []
        duration = self.number.get("duration_s")
        if duration is not None:
            day = duration > DAY_S
            known = int(day[self.rows].sum())
            bounded.append(Bounded("whose item is longer than a day: its length is not known", known))
            duration[day] = np.nan
        if "listened_s" in self.number:
            rows = self.rows
            item_s = None if duration is None else duration[rows]
            found = play_lengths(
                self.text["user_id"][0][rows], self.at_us[rows], self.number["listened_s"][rows], item_s, now_us
            )
            self.number["listened_s"][rows] = found.length_s
            bounded += [Bounded(why, int(where.sum())) for why, where in found.bounded.items()]
        return tuple(b for b in bounded if b.rows), notes

    def table(self) -> pa.Table:
        """The event table; the columns here are given up one by one."""
        rows = self.rows
        order = pa.array(rows)

        def text(name: str) -> pa.Array:
            if name not in self.text:
                return pa.nulls(len(rows), pa.string())
            code, words = self.text.pop(name)
            taken = pa.array(code[rows], mask=code[rows] < 0)
            return words.take(taken)

        def number(name: str) -> pa.Array:
            if name not in self.number:
                return pa.nulls(len(rows), pa.float64())
            value = self.number.pop(name)[rows]
            return pa.array(value, mask=np.isnan(value))

        schema = with_session("session_id" in self.text)
        skipped = self.skipped[rows]
        columns = {
            "user_id": text("user_id"),
            "item_id": text("item_id"),
            "started_at": pa.array(self.at_us).take(order).cast(pa.timestamp("us", "UTC")),
            "utc_offset_min": offsets(self.offset_min[rows]),
            "listened_s": number("listened_s"),
            "skipped": pa.array(skipped == 1, mask=skipped < 0),
            "device": text("device"),
            "source": text("source"),
            "duration_s": number("duration_s"),
        }
        if "session_id" in self.text:
            columns["session_id"] = text("session_id")
        return pa.table([columns[name] for name in schema.names], schema=schema)


def _in_ms(length_s: Floats) -> bool:
    positive = int(np.count_nonzero(length_s > 0))
    return bool(positive) and 2 * int(np.count_nonzero(length_s > _LONG_S)) >= positive


def _whole(parts: list[Any]) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _whole_text(parts: list[pa.Array]) -> tuple[Ints, pa.Array]:
    """Codes [n], -1 where null, and the words that they stand for, ascending."""
    chunked = pa.chunked_array(parts).unify_dictionaries()
    words = chunked.chunk(0).dictionary if chunked.num_chunks else pa.array([], pa.string())
    place = pc.array_sort_indices(words)
    rank = np.empty(len(words) + 1, dtype=np.int32)
    rank[place.to_numpy()] = np.arange(len(words), dtype=np.int32)
    rank[-1] = -1
    parts.clear()
    codes = [rank[pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False)] for chunk in chunked.chunks]
    return (np.concatenate(codes) if codes else np.empty(0, dtype=np.int32)), words.take(place)


def item_lengths(events: pa.Table) -> pa.Table:
    """What an event table by itself says of its items, as `LoadedEvents.item_text`: their lengths."""
    return _described(first_of_items(events.select(["item_id", "duration_s"])))


def _item_text(kept: Kept, events: pa.Table) -> pa.Table:
    """One row an item of the events: its first title, artist, genre and duration that is not null."""
    lengths = first_of_items(events.select(["item_id", "duration_s"]))
    parts = [part for part in kept.item_text if len(part)]
    kept.item_text.clear()
    if not parts:
        return _described(lengths)
    said = first_of_items(pa.concat_tables(parts, promote_options="default"))
    return _described(lengths.join(said, "item_id", join_type="left outer"))


def _described(out: pa.Table) -> pa.Table:
    for name in ("title", "artist", "genre"):
        if name not in out.column_names:
            out = out.append_column(name, pa.nulls(len(out), pa.string()))
    return out.select(["item_id", "title", "artist", "genre", "duration_s"]).sort_by("item_id").combine_chunks()
