"""Plays that came in since the last time, put into the events that are known; what changed is counted.

Neither side is asked again for its own repeats: both were read, and what one file held twice in a minute may be two
plays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints
from recommender.events import columns as read
from recommender.events.other_ids import near_pairs
from recommender.events.schema import FURTHER, schema_with
from recommender.sessions.lengths import play_lengths
from recommender.sessions.plays import is_play

_FILLED = (
    "utc_offset_min", "listened_s", "skipped", "device", "source", "duration_s", "session_id", "weight", "container_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """events: the event table. added: plays that were not there. known: rows that were. fuller: of these, those of
    which the new row says more, and which it replaced. bounded: plays whose length the new ones contradict. signals:
    what was not there and is no play; known_signals: what was."""

    events: pa.Table
    added: int
    known: int
    fuller: int
    bounded: int
    signals: int = 0
    known_signals: int = 0

    @property
    def changed(self) -> bool:
        """Whether the table differs from the old one."""
        return bool(self.added or self.fuller or self.bounded or self.signals)

    def lines(self) -> list[str]:
        """What changed, a line each, without the plays added."""
        told = [
            (self.signals, "new likes, ratings and the like: counted with --vectors rebuild"),
            (self.known - self.known_signals, "plays were there before"),
            (self.known_signals, "likes, ratings and the like were there before"),
            (self.fuller, "of them say more now and were replaced"),
            (self.bounded, "plays whose length a new play contradicts: bounded"),
        ]
        return [f"{number:,} {what}" for number, what in told if number]


def merge(
    old: pa.Table | None,
    new: pa.Table,
    now_us: int | None = None,
    same: Mapping[str, str] | None = None,
    *,
    unfinished: bool = False,
) -> Merged:
    """Both event tables as one, each sorted by listener and time.

    old: None where there is none yet. same: {item of `new`: the id that `old` has for it}; the times of their plays may
    differ by a minute. unfinished: `old` lacks what was played a day later and more, so nobody's last play here is
    known to be the last.
    """
    if old is None or not len(old):
        plays = int(is_play(new).sum())
        return Merged(new, plays, 0, 0, 0, len(new) - plays)
    if same:
        words = pa.array([same.get(item, item) for item in new["item_id"].to_pylist()], pa.string())
        new = new.set_column(new.schema.get_field_index("item_id"), new.schema.field("item_id"), words)
    both = pa.concat_tables([old, new], promote_options="permissive")
    both = both.select([name for name in both.column_names if name in schema_with(FURTHER).names])
    user, item = (_codes(both.column(name)) for name in ("user_id", "item_id"))
    play = is_play(both)
    if "type" in both.column_names:  # a play and a like of it are two
        kind = _codes(pc.if_else(pa.array(play), "", both.column("type")))
        item = item * (int(kind.max()) + 1) + kind
    at_us = read.one_chunk(both.column("started_at").cast(pa.timestamp("us", "UTC")).cast(pa.int64())).to_numpy()
    is_new = np.arange(len(both)) >= len(old)
    pair = _pairs(user, item, at_us, is_new)
    if same:
        near = read.filled(pc.is_in(read.one_chunk(both.column("item_id")), pa.array(list(same.values()), pa.string())))
        near[pair] = False
        pair = np.concatenate([pair, near_pairs(user, item, at_us, _floats(both, "listened_s"), is_new, near & play)])
    known = pair[:, 1]
    filled = np.zeros(len(both), dtype=np.int64)
    for name in _FILLED:
        if name in both.column_names:
            filled += read.present(read.one_chunk(both.column(name)))
    more = filled[pair[:, 1]] - filled[pair[:, 0]]
    fuller = (more > 0) | ((more == 0) & _otherwise(both, pair))  # an opinion may change
    gone = np.zeros(len(both), dtype=bool)
    gone[np.where(fuller, pair[:, 0], known)] = True

    rows = np.lexsort((is_new, at_us, user))  # stable: each keeps its own order of equal times
    rows = rows[~gone[rows]]
    events = both.take(pa.array(rows)).combine_chunks()
    events, bounded = _bounded(events, user[rows], at_us[rows], now_us, unfinished)
    schema = schema_with(events.column_names)
    events = events.select(schema.names).cast(schema)
    fresh = is_new.copy()
    fresh[pair[:, 1]] = False
    plays = int((fresh & play).sum())
    signals = len(pair) - int(play[known].sum())
    return Merged(events, plays, len(pair), int(fuller.sum()), bounded, int(fresh.sum()) - plays, signals)


def _otherwise(both: pa.Table, pair: Ints) -> Bools:
    """[pairs], where the new row counts something else than the old one."""
    if "weight" not in both.column_names:
        return np.zeros(len(pair), dtype=bool)
    weight = _floats(both, "weight")
    return np.asarray(weight[pair[:, 1]] != weight[pair[:, 0]]) & ~np.isnan(weight[pair[:, 1]])


def _pairs(user: Ints, item: Ints, at_us: Ints, is_new: Bools) -> Ints:
    """[pairs, 2]: an old row and the new row that is the same play; the first with the first, the second with the
    second."""
    rows = np.lexsort((is_new, at_us, item, user))
    change = np.ones(len(rows), dtype=bool)
    for key in (user, item, at_us, is_new):
        change[1:] &= key[rows[1:]] == key[rows[:-1]]
    change = ~change
    change[:1] = True
    first = np.flatnonzero(change)
    number = np.arange(len(rows)) - np.repeat(first, np.diff(np.append(first, len(rows))))
    again = np.lexsort((is_new[rows], number, at_us[rows], item[rows], user[rows]))
    rows, number = rows[again], number[again]
    same = ~is_new[rows[:-1]] & is_new[rows[1:]] & (number[1:] == number[:-1])
    for key in (user, item, at_us):
        same &= key[rows[1:]] == key[rows[:-1]]
    at = np.flatnonzero(same)
    return np.stack([rows[at], rows[at + 1]], axis=1)


def _bounded(events: pa.Table, user: Ints, at_us: Ints, now_us: int | None, unfinished: bool) -> tuple[pa.Table, int]:
    length, item_s = _floats(events, "listened_s"), _floats(events, "duration_s")
    play = is_play(events)
    bounded = length.copy()
    bounded[play] = play_lengths(user[play], at_us[play], length[play], item_s[play], now_us).length_s
    if unfinished:  # a day's way bounds nothing, and that nothing came after is not known
        rows = np.flatnonzero(play)
        last = rows[np.append(user[rows][1:] != user[rows][:-1], True)] if len(rows) else rows
        bounded[last] = length[last]
    changed = ~((bounded == length) | (np.isnan(bounded) & np.isnan(length)))
    if not changed.any():
        return events, 0
    place = events.schema.get_field_index("listened_s")
    value = pa.array(bounded, mask=np.isnan(bounded))
    return events.set_column(place, events.schema.field("listened_s"), value), int(changed.sum())


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(read.one_chunk(table.column(name)).to_numpy(zero_copy_only=False), dtype=np.float64)


def _codes(column: pa.ChunkedArray) -> Ints:
    """Number of each id in ascending order of the ids."""
    encoded = read.one_chunk(column.cast(pa.string()).combine_chunks()).dictionary_encode()
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    codes: Ints = rank[encoded.indices.to_numpy()]
    return codes
