"""What each listener plays: recent and favourite items, artists, genres, hours, diversity.

Everything is counted from the event table in a few sorts, without a loop over events or listeners. Rows refer to the
item table of the same bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from bart.types import Bools, Floats, Floats32, Ints, ItemTable, Labels, Strings
from recommender.events.columns import rows_of
from recommender.events.local_time import hour_and_weekday
from recommender.sessions.codes import coded
from recommender.sessions.lengths import parts_by_listener
from recommender.sessions.plays import is_play, worth

FILE = "profiles.parquet"
_TOLD = ("started_at", "utc_offset_min", "skipped", "weight", "type")  # of an event, beside its listener and item


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """One list of rows or codes a listener: listener i has `value[offset[i]:offset[i + 1]]`."""

    value: Ints
    offset: Ints

    def __getitem__(self, listener: int) -> Ints:
        return self.value[self.offset[listener] : self.offset[listener + 1]]

    def __len__(self) -> int:
        return len(self.offset) - 1


@dataclass(frozen=True, eq=False)
class Profiles:
    """Taste profiles of u listeners, by user id in ascending order.

    recent_rows: distinct, newest first. favourite_rows: what counts most first (plays, likes and ratings by their
    weights, skipped plays not at all); ties newest first. artist_codes, genre_codes: codes into the item table's
    labels, strongest first, the same counts weighted by recency.
    plays: [u] events of known items. first_at_s, last_at_s: [u] seconds UTC. hours: [u, 24] and weekdays: [u, 7], plays
    by local clock. spread: [u] in [0, 1], 1 minus the length of the mean item vector; NaN where vectors are not known.
    """

    user_id: Strings
    recent_rows: Ragged
    favourite_rows: Ragged
    artist_codes: Ragged
    genre_codes: Ragged
    plays: Ints
    first_at_s: Ints
    last_at_s: Ints
    hours: Ints
    weekdays: Ints
    spread: Floats

    def __len__(self) -> int:
        return len(self.user_id)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Number of each listener."""
        return {user: i for i, user in enumerate(self.user_id.tolist())}

    def __contains__(self, user_id: str) -> bool:
        return user_id in self.index

    def recent(self, user_id: str) -> Ints:
        """Rows last played, newest first, distinct; empty for an unknown listener."""
        return self._of(self.recent_rows, user_id)

    def favourite(self, user_id: str) -> Ints:
        """Rows most played, best first; empty for an unknown listener."""
        return self._of(self.favourite_rows, user_id)

    def artists(self, user_id: str) -> Ints:
        """Codes of the artists most played lately, best first."""
        return self._of(self.artist_codes, user_id)

    def genres(self, user_id: str) -> Ints:
        """Codes of the genres most played lately, best first."""
        return self._of(self.genre_codes, user_id)

    def diversity(self, user_id: str) -> float | None:
        """Spread of the listener's taste in [0, 1]; None where it is not known."""
        i = self.index.get(user_id)
        return None if i is None or np.isnan(self.spread[i]) else float(self.spread[i])

    def first_at(self, user_id: str) -> int | None:
        """Seconds UTC of the first event; None for an unknown listener."""
        i = self.index.get(user_id)
        return None if i is None else int(self.first_at_s[i])

    def _of(self, lists: Ragged, user_id: str) -> Ints:
        i = self.index.get(user_id)
        return np.empty(0, dtype=np.int64) if i is None else lists[i]

    def save(self, folder: Path) -> None:
        """Writes `profiles.parquet` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)

        def lists(ragged: Ragged) -> pa.Array:
            return pa.ListArray.from_arrays(pa.array(ragged.offset, pa.int32()), pa.array(ragged.value, pa.int32()))

        def fixed(counts: Ints) -> pa.Array:
            return pa.FixedSizeListArray.from_arrays(pa.array(counts.reshape(-1), pa.int32()), counts.shape[1])

        table = pa.table(
            {
                "user_id": pa.array(self.user_id.tolist(), pa.string()),
                "recent": lists(self.recent_rows),
                "favourite": lists(self.favourite_rows),
                "artists": lists(self.artist_codes),
                "genres": lists(self.genre_codes),
                "plays": self.plays,
                "first_at_s": self.first_at_s,
                "last_at_s": self.last_at_s,
                "hours": fixed(self.hours),
                "weekdays": fixed(self.weekdays),
                "diversity": self.spread,
            }
        )
        pq.write_table(table, folder / FILE, compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> Profiles:
        """Reads what `save` wrote."""
        table = pq.read_table(folder / FILE).combine_chunks()

        def column(name: str) -> pa.Array:
            chunks = table.column(name)
            return chunks.chunk(0) if chunks.num_chunks else pa.array([], chunks.type)

        def lists(name: str) -> Ragged:
            array = column(name)
            size = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
            return Ragged(array.flatten().to_numpy().astype(np.int64), _offset(size))

        def fixed(name: str, width: int) -> Ints:
            counts: Ints = column(name).flatten().to_numpy().astype(np.int64)
            return counts.reshape(-1, width)

        return cls(
            user_id=_objects(column("user_id").to_pylist()),
            recent_rows=lists("recent"),
            favourite_rows=lists("favourite"),
            artist_codes=lists("artists"),
            genre_codes=lists("genres"),
            plays=column("plays").to_numpy().copy(),
            first_at_s=column("first_at_s").to_numpy().copy(),
            last_at_s=column("last_at_s").to_numpy().copy(),
            hours=fixed("hours", 24),
            weekdays=fixed("weekdays", 7),
            spread=column("diversity").to_numpy().copy(),
        )


def build_profiles(
    events: pa.Table,
    items: ItemTable | Mapping[str, int] | Sequence[str],
    *,
    limit: int = 50,
    half_life_d: float = 30.0,
) -> Profiles:
    """Profiles of every listener with at least one event of a known item.

    events: the event table (`recommender.events.table`). items: the item table, or rows by item id, or ids in row order
    (the latter two give no artists, genres or diversity). limit: length of each list. half_life_d: days after which a
    play counts half for artists and genres.
    """
    if limit < 1 or not half_life_d > 0:
        raise ValueError(f"limit is {limit} and half_life_d is {half_life_d}; expected limit >= 1 and half_life_d > 0")
    user_id, user, row = _known(events, items)
    table = items if isinstance(items, ItemTable) else None
    known = np.flatnonzero(row >= 0)
    known = known if (np.diff(user[known]) >= 0).all() else known[np.argsort(user[known], kind="stable")]
    told = events.select([name for name in _TOLD if name in events.column_names])
    parts = [
        _profiled(user_id, told.take(pa.array(some)), user[some], row[some], table, limit, half_life_d)
        for some in (known[part] for part in (list(parts_by_listener(user[known])) or [slice(0)]))
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _profiled(
    user_id: Strings, events: pa.Table, user: Ints, row: Ints, table: ItemTable | None, limit: int, half_life_d: float
) -> Profiles:
    """Profiles of the listeners from the first to the last of `user` [m], all of whom have events; items are known."""
    at_s, worth_of, offset_min, play = _columns(events)
    first = int(user.min(initial=len(user_id)))
    user_id, user = user_id[first : int(user.max(initial=-1)) + 1], user - first
    n_users, width = len(user_id), max(int(row.max(initial=0)) + 1, 1)
    last_at_s = np.full(n_users, np.iinfo(np.int64).min)
    np.maximum.at(last_at_s, user, at_s)
    first_at_s = np.full(n_users, np.iinfo(np.int64).max)
    np.minimum.at(first_at_s, user, at_s)

    pair, where = np.unique(user * width + row, return_inverse=True)  # one a listener and item
    pair_user, pair_row = pair // width, pair % width
    count: Floats = np.bincount(where, weights=worth_of, minlength=len(pair)).astype(np.float64)
    heard = np.bincount(where, weights=play, minlength=len(pair)) > 0
    newest = np.zeros(len(pair), dtype=np.int64)
    np.maximum.at(newest, where, np.argsort(np.lexsort((at_s, user))))  # place in time, later events of a tie last
    fresh = worth_of * 0.5 ** ((last_at_s[user] - at_s) / (half_life_d * 86400))
    decayed: Floats = np.bincount(where, weights=fresh, minlength=len(pair)).astype(np.float64)

    by_time = np.lexsort((-newest, pair_user))
    by_time = by_time[heard[by_time]]
    by_count = np.lexsort((-newest, -count, pair_user))
    by_count = by_count[count[by_count] > 0]
    hour, weekday = hour_and_weekday(at_s[play], offset_min[play])
    player = user[play]
    return Profiles(
        user_id=user_id,
        recent_rows=_top(pair_user[by_time], pair_row[by_time], n_users, limit),
        favourite_rows=_top(pair_user[by_count], pair_row[by_count], n_users, limit),
        artist_codes=_labels(pair_user, pair_row, decayed, None if table is None else table.artists, n_users, limit),
        genre_codes=_labels(pair_user, pair_row, decayed, None if table is None else table.genres, n_users, limit),
        plays=np.bincount(player, minlength=n_users),
        first_at_s=first_at_s,
        last_at_s=last_at_s,
        hours=np.bincount(player * 24 + hour, minlength=n_users * 24).reshape(n_users, 24),
        weekdays=np.bincount(player * 7 + weekday, minlength=n_users * 7).reshape(n_users, 7),
        spread=_spread(pair_user, pair_row, count, None if table is None else table.vector, n_users),
    )


def _known(events: pa.Table, items: ItemTable | Mapping[str, int] | Sequence[str]) -> tuple[Strings, Ints, Ints]:
    """Ids, ascending, of the listeners of known items; of each event the listener, and the row, -1 where not known."""
    ids = items.item_id if isinstance(items, ItemTable) else items
    row = rows_of(events["item_id"], ids if isinstance(ids, Mapping) else np.asarray(ids, dtype=object))
    words, code = coded(events["user_id"])
    there = np.flatnonzero(np.bincount(code[row >= 0], minlength=len(words)))
    names = _objects(words.take(there).to_pylist())
    order = np.argsort(names)
    place = np.full(len(words), -1, dtype=np.int64)
    place[there[order]] = np.arange(len(order))
    return names[order], place[code], row


def _columns(events: pa.Table) -> tuple[Ints, Floats, Ints, Bools]:
    """Of each event seconds UTC, what it counts in plays, offset in minutes, and whether it is a play."""
    at_us = events.column("started_at").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    offset_min = np.zeros(len(events), dtype=np.int64)
    if "utc_offset_min" in events.column_names:
        offset_min = pc.fill_null(events.column("utc_offset_min"), 0).to_numpy().astype(np.int64)
    return at_us // 1_000_000, worth(events), offset_min, is_play(events)


def _joined(parts: Sequence[Profiles]) -> Profiles:
    """Profiles of listeners, part after part."""

    def together(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if name.endswith(("_rows", "_codes")):
            size = np.concatenate([np.diff(ragged.offset) for ragged in values])
            return Ragged(np.concatenate([ragged.value for ragged in values]), _offset(size))
        return np.concatenate(values)

    return Profiles(**{entry.name: together(entry.name) for entry in fields(Profiles)})


def _top(user: Ints, value: Ints, n_users: int, limit: int) -> Ragged:
    """The first `limit` values of each listener; `user` ascending."""
    start = np.searchsorted(user, np.arange(n_users + 1))
    keep = np.arange(len(user)) - start[user] < limit
    return Ragged(value[keep], _offset(np.bincount(user[keep], minlength=n_users)))


def _labels(user: Ints, row: Ints, weight: Floats, labels: Labels | None, n_users: int, limit: int) -> Ragged:
    """Each listener's labels by falling weight; labels without weight are left out."""
    if labels is None or not labels.vocabulary:
        return Ragged(np.empty(0, dtype=np.int64), np.zeros(n_users + 1, dtype=np.int64))
    size = np.diff(labels.offset)[row]
    pair = np.repeat(np.arange(len(row)), size)
    first = np.repeat(_offset(size)[:-1], size)
    code = labels.code[labels.offset[row][pair] + np.arange(len(pair)) - first]
    key, where = np.unique(user[pair] * len(labels.vocabulary) + code, return_inverse=True)
    total = np.bincount(where, weights=weight[pair], minlength=len(key))
    key, total = key[total > 0], total[total > 0]
    order = np.lexsort((-total, key // len(labels.vocabulary)))
    return _top((key // len(labels.vocabulary))[order], (key % len(labels.vocabulary))[order], n_users, limit)


def _spread(user: Ints, row: Ints, count: Floats, vector: Floats32 | None, n_users: int) -> Floats:
    """1 - |mean of the unit vectors played|, over items that have one."""
    if vector is None or not vector.shape[1]:
        return np.full(n_users, np.nan)
    weight = np.where(vector[row].any(axis=1), np.maximum(count, 0.0), 0.0)
    matrix = sp.csr_matrix((weight, (user, row)), shape=(n_users, len(vector)))
    total = np.asarray(matrix.sum(axis=1)).reshape(-1)
    length = np.linalg.norm(np.asarray(matrix @ vector.astype(np.float64)), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, np.clip(1 - length / total, 0, 1), np.nan)


def _offset(size: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(size)]).astype(np.int64)


def _objects(values: Sequence[str]) -> Strings:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out
