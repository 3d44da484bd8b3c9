"""The event table: who played what, when, from any file's columns, with a count of what was refused and why.

One row is one play. Only user_id, item_id and started_at are required; a missing listened_s or skipped is null, never
0. Rows are sorted by listener, time and the file's own order, so that equal times keep their sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from recommender.events import columns as read
from recommender.events.local_time import hour_and_weekday, offset_of_instant, offset_of_wall_clock, zone

EVENT_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
        ("utc_offset_min", pa.int32()),
        ("listened_s", pa.float64()),
        ("skipped", pa.bool_()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("duration_s", pa.float64()),
    ]
)
REQUIRED = ("user_id", "item_id", "started_at")
# What a column of the user's file may be mapped to: the event's own columns, and what describes the item or the order.
MAPPABLE = (*EVENT_SCHEMA.names, "listened_ms", "duration_ms", "tz", "order", "session_id", "title", "artist", "genre")
SESSION_GAP_S = 20 * 60
_EARLIEST_US = 631_152_000_000_000  # 1990-01-01: earlier times are zeros and mistakes, not plays
_LATEST_US = 4_102_444_800_000_000  # 2100-01-01


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows refused for one reason, with up to three of them as text."""

    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventCheck:
    """What a file held: rows kept and refused, and what its columns and volume cannot give."""

    rows: int
    kept: int
    rejected: tuple[Rejected, ...]
    listeners: int
    items: int
    sessions: int
    first_at: str
    last_at: str
    columns: tuple[str, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The check as plain text, a line each."""
        out = [
            f"rows: {self.rows:,} read, {self.kept:,} kept, {self.rows - self.kept:,} rejected",
            *(f"  {r.rows:,} rejected: {r.reason}; e.g. {'; '.join(r.examples)}" for r in self.rejected),
            f"listeners: {self.listeners:,}   items: {self.items:,}   sessions: {self.sessions:,}",
            f"from {self.first_at} to {self.last_at}",
            f"columns: {', '.join(self.columns)}",
        ]
        return [*out, *(f"note: {note}" for note in self.notes), *(f"cannot build: {gap}" for gap in self.gaps)]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEvents:
    """The event table, what the file said of its items (item_id, title, artist, genre, duration_s), and the check."""

    events: pa.Table
    item_text: pa.Table
    check: EventCheck


@dataclass(frozen=True, slots=True)
class Volume:
    """How much is needed for each part; below it, the check says what is built instead."""

    listeners: int = 100  # fewer do not show how context moves taste beyond their own habits
    sessions: int = 2_000  # fewer than this and a recurrent model does not beat a decayed average
    plays_per_item: float = 5.0  # fewer and a track's neighbours are mostly chance


@dataclass(slots=True)
class _Refusals:
    """First reason for which each row is refused."""

    reason: Ints
    names: list[str] = field(default_factory=list)

    def add(self, name: str, bad: Bools) -> None:
        self.reason[(self.reason < 0) & bad] = len(self.names)
        self.names.append(name)


def read_events(
    table: pa.Table,
    mapping: Mapping[str, str] | None = None,
    *,
    default_tz: str | None = None,
    volume: Volume | None = None,
    notes: tuple[str, ...] = (),
) -> LoadedEvents:
    """The events of any table.

    mapping: {our column: the table's column}; columns that already have our name need none. default_tz: IANA zone of
    naive times and of the listeners' clocks, where no `tz` or `utc_offset_min` column says it (naive times without any
    are UTC). Raises DataError where a required column is missing or no row can be kept.
    """
    if default_tz is not None:
        zone(default_tz)
    columns = _resolve(table, mapping or {})
    n = len(table)
    refused = _Refusals(np.full(n, -1, dtype=np.int64))
    user, item = read.text(columns["user_id"]), read.text(columns["item_id"])
    refused.add("user_id is missing", ~read.present(user))
    refused.add("item_id is missing", ~read.present(item))
    at_us, offset_min = _time(columns, default_tz, refused)
    order = _number(columns, "order", refused)
    values: dict[str, pa.Array] = {
        "user_id": user,
        "item_id": item,
        "started_at": pa.array(at_us).cast(pa.timestamp("us", "UTC")),
        "utc_offset_min": pa.array(np.nan_to_num(offset_min).astype(np.int32), mask=np.isnan(offset_min)),
    }
    for name in ("listened_s", "duration_s"):
        value = _number(columns, name, refused, lowest=0.0)
        in_ms = _number(columns, name.replace("_s", "_ms"), refused, lowest=0.0) / 1000
        value = np.where(np.isnan(value), in_ms, value)
        values[name] = pa.array(value, mask=np.isnan(value))
    values["skipped"] = pa.nulls(n, pa.bool_())
    if "skipped" in columns:
        values["skipped"], bad = read.truths(columns["skipped"])
        refused.add("skipped is neither true nor false", bad)
    for name in ("device", "source"):
        values[name] = read.text(columns[name]) if name in columns else pa.nulls(n, pa.string())
    if "device" in columns:
        values["device"] = pc.utf8_lower(values["device"])
    names = list(EVENT_SCHEMA.names)
    if "session_id" in columns:
        values["session_id"] = read.text(columns["session_id"])
        names.append("session_id")

    user_code, item_code = _codes(user), _codes(item)
    by_listener = np.lexsort((np.arange(n), np.nan_to_num(order), at_us, user_code))  # users by name, see _codes
    refused.add("the same play again", _repeats(by_listener, refused.reason, user_code, item_code, at_us, order))
    kept = by_listener[refused.reason[by_listener] < 0]
    rejected = _report(refused, columns, n)
    if not len(kept):
        why = "; ".join(f"{r.rows:,} rows: {r.reason}, e.g. {r.examples[0]}" for r in rejected)
        raise DataError(f"no event can be kept of {n:,} rows{': ' + why if why else ''}")
    schema = (
        EVENT_SCHEMA if len(names) == len(EVENT_SCHEMA) else EVENT_SCHEMA.append(pa.field("session_id", pa.string()))
    )
    events = pa.table([values[name].take(pa.array(kept)) for name in names], schema=schema)
    check = _check(events, columns, n, rejected, volume or Volume(), notes)
    return LoadedEvents(events, _item_text(columns, values, np.sort(kept)), check)


def local_clock(events: pa.Table, default_offset_min: int = 0) -> tuple[Ints, Ints]:
    """Listener-local hour 0 to 23 and weekday 0 (Monday) to 6 of each event, [n] each."""
    at_s = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy() // 1_000_000
    offset = pc.fill_null(read.one_chunk(events.column("utc_offset_min")), default_offset_min)
    return hour_and_weekday(at_s, offset.to_numpy().astype(np.int64))


def count_sessions(events: pa.Table, gap_s: int = SESSION_GAP_S) -> int:
    """Sessions when cut by `gap_s` seconds of inactivity; `events` sorted by listener and time."""
    if not len(events):
        return 0
    user = read.one_chunk(events.column("user_id")).dictionary_encode().indices.to_numpy()
    at_us = read.one_chunk(events.column("started_at").cast(pa.int64())).to_numpy()
    return 1 + int(np.count_nonzero((np.diff(user) != 0) | (np.diff(at_us) > gap_s * 1_000_000)))


def _resolve(table: pa.Table, mapping: Mapping[str, str]) -> dict[str, pa.ChunkedArray]:
    """The table's columns under our names."""
    for ours, theirs in mapping.items():
        if ours not in MAPPABLE:
            raise DataError(f"column mapping names {ours!r}; expected one of {', '.join(MAPPABLE)}")
        if theirs not in table.column_names:
            raise DataError(f"{ours} is mapped to {theirs!r}, which is not a column; columns: {_list(table)}")
    source = {name: name for name in MAPPABLE if name in table.column_names} | dict(mapping)
    for name in REQUIRED:
        if name not in source:
            raise DataError(f"no column for {name}; columns: {_list(table)}; name one by --map {name}=COLUMN")
    return {ours: table.column(theirs) for ours, theirs in source.items()}


def _list(table: pa.Table) -> str:
    return ", ".join(table.column_names[:20]) + (", ..." if table.num_columns > 20 else "")


def _time(columns: Mapping[str, pa.ChunkedArray], default_tz: str | None, refused: _Refusals) -> tuple[Ints, Floats]:
    """Microseconds UTC and the listener's offset in minutes (NaN where not known)."""
    at_us, ok, naive, written = read.times(columns["started_at"])
    at_us, written = at_us.copy(), written.copy()  # a timestamp column comes as a read-only view
    missing = ~read.present(read.one_chunk(columns["started_at"]))
    refused.add("started_at is missing", missing)
    refused.add("started_at cannot be read as a time", ~ok)
    zones = read.text(columns["tz"]) if "tz" in columns else pa.nulls(len(at_us), pa.string())
    zones = pc.fill_null(zones, default_tz) if default_tz is not None else zones
    offset_min = written
    given = _number(columns, "utc_offset_min", refused)
    refused.add("utc_offset_min is not minutes within a day", np.abs(np.nan_to_num(given)) >= 24 * 60)
    encoded = zones.dictionary_encode()
    code = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    for number, name in enumerate(encoded.dictionary.to_pylist()):
        here = np.flatnonzero((code == number) & ok)
        try:
            zone(name)
        except ValueError:
            refused.add("tz is not a known time zone", code == number)
            continue
        try:
            wall = here[naive[here]]
            at_us[wall] -= 60_000_000 * offset_of_wall_clock(at_us[wall] // 1_000_000, name)
            offset_min[here] = offset_of_instant(at_us[here] // 1_000_000, name)
        except OverflowError:  # refused below, as a time far outside
            continue
    offset_min = np.where(np.isnan(given), offset_min, given)
    refused.add("started_at lies outside 1990 to 2100", (at_us < _EARLIEST_US) | (at_us >= _LATEST_US))
    return at_us, offset_min


def _number(
    columns: Mapping[str, pa.ChunkedArray], name: str, refused: _Refusals, lowest: float | None = None
) -> Floats:
    """A column of numbers, NaN where null or not mapped."""
    if name not in columns:
        return np.full(len(refused.reason), np.nan)
    value, bad = read.numbers(columns[name])
    refused.add(f"{name} is not a number", bad)
    if lowest is not None:
        refused.add(f"{name} is below {lowest:g}", np.nan_to_num(value, nan=lowest) < lowest)
    return value


def _codes(ids: pa.Array) -> Ints:
    """Number of each id in ascending order of the ids, -1 where null."""
    encoded = ids.dictionary_encode()
    place = np.empty(len(encoded.dictionary) + 1, dtype=np.int64)
    place[pc.array_sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    place[-1] = -1
    codes: Ints = place[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)]
    return codes


def _repeats(by_listener: Ints, reason: Ints, user: Ints, item: Ints, at_us: Ints, order: Floats) -> Bools:
    """Rows equal to an earlier kept row in listener, item, time and order."""
    good = by_listener[reason[by_listener] < 0]
    rank = np.nan_to_num(order)
    good = good[np.lexsort((good, item[good], rank[good], at_us[good], user[good]))]
    same = np.ones(max(len(good) - 1, 0), dtype=bool)
    for key in (user, item, at_us, rank):
        same &= key[good[1:]] == key[good[:-1]]
    out = np.zeros(len(reason), dtype=bool)
    out[good[1:][same]] = True
    return out


def _report(refused: _Refusals, columns: Mapping[str, pa.ChunkedArray], n: int) -> tuple[Rejected, ...]:
    count = np.bincount(refused.reason[refused.reason >= 0], minlength=len(refused.names))
    out = []
    for number, name in enumerate(refused.names):
        if not count[number]:
            continue
        shown = [c for c in columns if c in REQUIRED or name.startswith(c + " ")]
        examples = tuple(
            f"row {row + 1} ({', '.join(f'{c}={columns[c][row].as_py()!r}' for c in shown)})"
            for row in np.flatnonzero(refused.reason == number)[:3].tolist()
        )
        out.append(Rejected(name, int(count[number]), examples))
    return tuple(sorted(out, key=lambda r: -r.rows)) if n else ()


def _check(
    events: pa.Table,
    columns: Mapping[str, pa.ChunkedArray],
    n: int,
    rejected: tuple[Rejected, ...],
    volume: Volume,
    notes: tuple[str, ...],
) -> EventCheck:
    listeners, items = pc.count_distinct(events["user_id"]).as_py(), pc.count_distinct(events["item_id"]).as_py()
    sessions = count_sessions(events)
    ends = pc.min_max(events["started_at"]).as_py()

    def empty(name: str) -> bool:
        return bool(events.column(name).null_count == len(events))

    told: list[tuple[bool, Callable[[], str]]] = [
        (
            listeners < volume.listeners or sessions < volume.sessions,
            lambda: (
                f"CoSeRNN: {listeners:,} listeners and {sessions:,} sessions, {volume.listeners:,} and "
                f"{volume.sessions:,} are needed; a decayed average of sessions is the listener's vector"
            ),
        ),
        (
            len(events) < volume.plays_per_item * items,
            lambda: (
                f"reliable track vectors: {len(events) / items:.1f} plays an item, {volume.plays_per_item:g} are "
                "needed; rarely played items have weak neighbours"
            ),
        ),
        (
            empty("skipped") and empty("listened_s"),
            lambda: "the skipped pathway: neither skipped nor listened_s; every play counts as played",
        ),
        (empty("device"), lambda: "device effects: no device; all plays count as one kind of device"),
        (empty("utc_offset_min"), lambda: "local hours: no tz, offset or default zone; hours and weekdays are UTC"),
        ("title" not in columns, lambda: "titles: none here; give an items file, or ids are shown"),
        (
            "artist" not in columns and "genre" not in columns,
            lambda: "artist and genre shelves: neither here; give an items file for them",
        ),
    ]
    return EventCheck(
        rows=n,
        kept=len(events),
        rejected=rejected,
        listeners=listeners,
        items=items,
        sessions=sessions,
        first_at=ends["min"].isoformat(timespec="seconds"),
        last_at=ends["max"].isoformat(timespec="seconds"),
        columns=tuple(name for name in MAPPABLE if name in columns),
        gaps=tuple(say() for missing, say in told if missing),
        notes=notes,
    )


def _item_text(columns: Mapping[str, pa.ChunkedArray], values: Mapping[str, pa.Array], kept: Ints) -> pa.Table:
    """One row an item: its first title, artist, genre and duration that is not null."""
    rows = pa.array(kept)
    table = {"item_id": values["item_id"].take(rows)}
    for name in ("title", "artist", "genre"):
        table[name] = (
            read.text(columns[name]) if name in columns else pa.nulls(len(columns["item_id"]), pa.string())
        ).take(rows)
    table["duration_s"] = values["duration_s"].take(rows)
    grouped = pa.table(table).group_by("item_id", use_threads=False)
    skip_nulls = pc.ScalarAggregateOptions(skip_nulls=True)
    wanted = [(name, "first", skip_nulls) for name in ("title", "artist", "genre", "duration_s")]
    out = grouped.aggregate(wanted)
    out = out.rename_columns([name.removesuffix("_first") for name in out.column_names])
    return out.select(["item_id", "title", "artist", "genre", "duration_s"]).sort_by("item_id")
