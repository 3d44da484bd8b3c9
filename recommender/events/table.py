"""The event table: who played what, when, from any file's columns, with a count of what was refused and why.

One row is one play. Only user_id, item_id and started_at are required; a missing listened_s or skipped is null, never
0. Rows are sorted by listener, time and the file's own order, so that equal times keep their sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Floats, Ints
from recommender.events import columns as read
from recommender.events.blocks import Block, Kept, Rules, first_of_items
from recommender.events.check import EventCheck, Held, Refusals, Rejected, Volume, gaps, refused_whole
from recommender.events.collected import Collected
from recommender.events.local_time import hour_and_weekday, zone
from recommender.events.schema import EVENT_SCHEMA, MAPPABLE, REQUIRED
from recommender.events.worth import Worth
from recommender.sessions.lengths import GAP_S, begins_session, ends_us
from recommender.sessions.plays import only_plays

__all__ = [
    "EVENT_SCHEMA", "MAPPABLE", "REQUIRED", "SESSION_GAP_S", "EventCheck", "LoadedEvents", "Rejected", "Volume",
    "count_sessions", "item_lengths", "local_clock", "read_blocks", "read_events",
]  # fmt: skip

SESSION_GAP_S = GAP_S
AGAIN = "the same play again"


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
    worth: Worth | None = None,
) -> LoadedEvents:
    """The events of any table.

    mapping: {our column: the table's column}; columns that already have our name need none. default_tz: IANA zone of
    naive times and of the listeners' clocks, where no `tz` or `utc_offset_min` column says it (naive times without any
    are UTC). now_us: microseconds UTC after which nothing can have begun. worth: what likes and ratings count.
    Raises DataError where a required column is missing or no row can be kept.
    """
    said = Said(notes=list(notes))
    return read_blocks(
        [Block(table)], mapping, default_tz=default_tz, volume=volume, said=said, now_us=now_us, worth=worth
    )


def read_blocks(
    blocks: Iterable[Block],
    mapping: Mapping[str, str] | None = None,
    *,
    default_tz: str | None = None,
    volume: Volume | None = None,
    said: Said | None = None,
    now_us: int | None = None,
    worth: Worth | None = None,
    same: Mapping[str, str] | None = None,
    as_codes: bool = False,
) -> LoadedEvents:
    """The same from blocks of one file or several; `said` and `same` may be filled while they are taken.

    same: {item_id: the id that the item is known by}. as_codes: ids, devices and sources of the events as dictionaries,
    which take a quarter of the memory.
    """
    if default_tz is not None:
        zone(default_tz)
    said = said or Said()
    kept, rules = Kept(), Rules(mapping or {}, default_tz, now_us, worth or Worth())
    for block in blocks:
        kept.add(block, rules, said.refusals)
    kept.rename(same or {})
    rows = kept.rows + said.refusals.rows - kept.refused
    if kept.unsure:
        said.notes.append(
            f"{kept.unsure:,} times without a zone are in an hour that their clock has twice, or not at all: "
            "read with the offset before the change"
        )
    described = kept.described()
    found = Collected(kept)
    again, shown = found.put_in_order()
    said.refusals.add(AGAIN, shown, again)
    rejected = said.refusals.by_reason()
    if not len(found):
        raise DataError(refused_whole(rows, rejected, said.notes))
    by_value = found.weigh(rules.worth)
    bounded, converted = found.bound(now_us)
    volume = volume or Volume()
    sessions, paired, pairs = found.sessions()
    text = _item_text(found.item_lengths(), described)
    held = Held(
        found.listeners(),
        found.items(),
        sessions,
        paired,
        None if found.coarse() or not found.plays() else pairs,
        found.newcomers(volume.plays_per_listener),
        text["title"].null_count,
        pc.sum(pc.and_(pc.is_null(text["artist"]), pc.is_null(text["genre"]))).as_py() or 0,
        found.plays(),
    )
    events = found.table(as_codes)
    ends = pc.min_max(events["started_at"]).as_py()
    check = EventCheck(
        rows=rows,
        kept=len(events),
        plays=held.plays,
        by_value=tuple(by_value),
        rejected=rejected,
        listeners=held.listeners,
        items=held.items,
        sessions=sessions,
        paired_sessions=paired,
        first_at=ends["min"].isoformat(timespec="seconds"),
        last_at=ends["max"].isoformat(timespec="seconds"),
        columns=kept.names(),
        gaps=gaps(events, kept.names(), held, volume),
        notes=(*said.notes, *converted),
        bounded=bounded,
        read_as=said.read_as,
        unread=tuple(said.passed | kept.unread),
    )
    return LoadedEvents(events, text, check)


def local_clock(events: pa.Table, default_offset_min: int = 0) -> tuple[Ints, Ints]:
    """Listener-local hour 0 to 23 and weekday 0 (Monday) to 6 of each event, [n] each."""
    at_s = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy() // 1_000_000
    offset = pc.fill_null(read.one_chunk(events.column("utc_offset_min")), default_offset_min)
    return hour_and_weekday(at_s, offset.to_numpy().astype(np.int64))


def count_sessions(events: pa.Table, gap_s: int = SESSION_GAP_S) -> int:
    """Sessions as `cut_sessions` cuts them; `events` sorted by listener and time."""
    events = only_plays(events)
    if not len(events):
        return 0
    user = read.one_chunk(events.column("user_id").dictionary_encode()).indices.to_numpy()
    at_us = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy()
    ended_us = ends_us(user, at_us, _floats(events, "listened_s"), _floats(events, "duration_s"))
    return int(np.count_nonzero(begins_session(user, at_us, ended_us, gap_s)))


def _floats(events: pa.Table, name: str) -> Floats:
    return np.asarray(read.one_chunk(events.column(name)).to_numpy(zero_copy_only=False), dtype=np.float64)


def item_lengths(events: pa.Table) -> pa.Table:
    """What an event table by itself says of its items, as `LoadedEvents.item_text`: their lengths."""
    lengths = first_of_items(events.select(["item_id", "duration_s"])).sort_by("item_id")
    return _item_text(lengths, None)


def _item_text(lengths: pa.Table, described: pa.Table | None) -> pa.Table:
    """One row an item of `lengths`: its first title, artist and genre that is not null, and its length."""
    ids = read.one_chunk(lengths["item_id"])
    place = None if described is None else pc.index_in(ids, read.one_chunk(described["item_id"]))
    columns = {"item_id": ids}
    for name in ("title", "artist", "genre"):
        there = described is not None and name in described.column_names
        columns[name] = (
            read.one_chunk(described[name]).take(place)  # type: ignore[index]
            if there
            else pa.nulls(len(ids), pa.string())
        )
    return pa.table({**columns, "duration_s": read.one_chunk(lengths["duration_s"])})
