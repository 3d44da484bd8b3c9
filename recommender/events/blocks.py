"""Rows of a user's file, a block at a time, as compact columns of what is kept and a count of what is refused.

A file is never held as text: a block of some hundred thousand rows becomes codes and numbers, and the text goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from recommender.events import columns as read
from recommender.events.check import EXAMPLES, Refusals
from recommender.events.local_time import offset_of_instant, offset_of_wall_clock, zone
from recommender.events.schema import MAPPABLE, OTHER_NAMES, REQUIRED
from recommender.events.worth import Worth, kinds

_EARLIEST_US = 631_152_000_000_000  # 1990-01-01: earlier times are zeros and mistakes, not plays
_LATEST_US = 4_102_444_800_000_000  # 2100-01-01
_NO_OFFSET = np.iinfo(np.int16).min
TEXTS = ("user_id", "item_id", "device", "source", "session_id", "type", "container_id")
NUMBERS = ("order", "listened_s", "duration_s", "rating", "weight")
_BY_VALUE = ("type", "rating", "liked", "weight")
CLOCK_US = 300_000_000  # clocks may differ by five minutes before a start lies in the future


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some rows of one file, in its order.

    file: its name, shown where rows come from several files. row: [n], the place of each in the file where that is not
    counted from `first_row`.
    """

    table: pa.Table
    file: str = ""
    first_row: int = 0
    row: Ints | None = None

    def place(self, at: int) -> str:
        """Where a row stands, for people."""
        number = self.first_row + at + 1 if self.row is None else int(self.row[at])
        return f"{self.file} row {number}" if self.file else f"row {number}"


@dataclass(slots=True)
class Rules:
    """How rows are read. now_us: starts after it are refused, where given. worth: what signals beside plays count."""

    mapping: Mapping[str, str]
    default_tz: str | None = None
    now_us: int | None = None
    worth: Worth = field(default_factory=Worth)


@dataclass(slots=True)
class Kept:
    """What was kept of the blocks so far; one entry a block in each list."""

    text: dict[str, list[pa.Array]] = field(default_factory=dict)  # dictionaries, int32 codes
    number: dict[str, list[Floats]] = field(default_factory=dict)
    at_us: list[Ints] = field(default_factory=list)
    offset_min: list[Any] = field(default_factory=list)
    skipped: list[Any] = field(default_factory=list)  # -1 unknown, 0, 1
    to_minute: list[Bools] = field(default_factory=list)
    file: list[Any] = field(default_factory=list)
    item_text: list[pa.Table] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    unread: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    unsure: int = 0
    _files: dict[str, int] = field(default_factory=dict)

    def add(self, block: Block, rules: Rules, refusals: Refusals) -> None:
        """Reads a block. Raises DataError where it lacks a column that is required."""
        n = len(block.table)
        columns = resolve(block.table, rules.mapping, block.file)
        self.rows += n
        if "type" not in columns:
            columns.pop("value", None)  # nothing says what it is the value of
        self.columns |= columns.keys()
        used = {rules.mapping.get(name, name) for name in columns}
        self.unread.update((name, None) for name in block.table.column_names if name not in used)
        refused = _Refused(np.full(n, -1, dtype=np.int64))
        values = _Values(columns, rules, refused)
        good = np.flatnonzero(refused.reason < 0)
        refused.tell(refusals, block, columns)
        self.unsure += values.unsure
        take = pa.array(good)
        before = [len(part) for part in self.at_us]
        for name in TEXTS:
            if name in values.text or name in self.text:
                words = values.text[name].take(take) if name in values.text else pa.nulls(len(good), pa.string())
                self.text.setdefault(name, [_no_text(m) for m in before]).append(words.dictionary_encode())
        for name in NUMBERS:
            if name in values.number or name in self.number:
                parts = self.number.setdefault(name, [np.full(m, np.nan) for m in before])
                parts.append(values.number[name][good] if name in values.number else np.full(len(good), np.nan))
        self.at_us.append(values.at_us[good])
        self.offset_min.append(values.offset_min[good])
        self.skipped.append(values.skipped[good])
        self.to_minute.append(values.to_minute[good])
        number = self._files.setdefault(block.file, len(self._files))
        self.file.append(np.full(len(good), number, dtype=np.int32))
        self.item_text.append(_first_of_items(values, take))

    def rename(self, same: Mapping[str, str]) -> None:
        """Gives items the id that they are known by. same: {item_id: that id}."""
        if not same:
            return
        ids = self.text.get("item_id", [])
        for at, codes in enumerate(ids):
            words = codes.dictionary.to_pylist()
            if not same.keys().isdisjoint(words):
                known = pa.array([same.get(word, word) for word in words], pa.string())
                ids[at] = known.take(codes.indices).dictionary_encode()
        for at, part in enumerate(self.item_text):
            known = pa.array([same.get(word, word) for word in part["item_id"].to_pylist()], pa.string())
            self.item_text[at] = part.set_column(part.column_names.index("item_id"), "item_id", known)

    @property
    def refused(self) -> int:
        """Rows of the blocks that were not kept."""
        return self.rows - sum(len(part) for part in self.at_us)

    def described(self) -> pa.Table | None:
        """One row an item: its first title, artist and genre; None where no file has one. Given up here."""
        parts = [part for part in self.item_text if part.num_columns > 1]
        self.item_text.clear()
        return first_of_items(pa.concat_tables(parts, promote_options="default")) if parts else None

    def names(self) -> tuple[str, ...]:
        """Our columns that some file has."""
        return tuple(name for name in MAPPABLE if name in self.columns)


def _no_text(n: int) -> pa.Array:
    return pa.nulls(n, pa.string()).dictionary_encode()


def resolve(table: pa.Table, mapping: Mapping[str, str], file: str = "") -> dict[str, pa.ChunkedArray]:
    """The table's columns under our names, plain types. Raises DataError for one that is required and missing."""
    where = f"{file}: " if file else ""
    for ours, theirs in mapping.items():
        if ours not in MAPPABLE:
            raise DataError(f"column mapping names {ours!r}; expected one of {', '.join(MAPPABLE)}")
        if theirs not in table.column_names:
            raise DataError(f"{where}{ours} is mapped to {theirs!r}, which is not a column; columns: {_list(table)}")
    source = {name: name for name in MAPPABLE if name in table.column_names} | dict(mapping)
    for name in REQUIRED:
        if name not in source:
            proposed = propose(table.column_names, source)
            raise DataError(
                f"{where}no column for {name}; columns: {_list(table)}; name one by --map {name}=COLUMN"
                + (f": {proposed}" if proposed else "")
            )
    return {ours: _plain(table.column(theirs), ours, where) for ours, theirs in source.items()}


def propose(columns: list[str], have: Mapping[str, str], meant: Mapping[str, str] | None = None) -> str:
    """The --map options that the names of columns suggest, for those that are required and not had; "" for none.

    meant: {our column: the file's column} instead of what names suggest.
    """
    meant = known_names(columns, have) if meant is None else meant
    return " ".join(f"--map {ours}={_quoted(meant.get(ours, 'COLUMN'))}" for ours in REQUIRED if ours not in have)


def known_names(columns: list[str], have: Mapping[str, str]) -> dict[str, str]:
    """{our column: the file's column} by what other files call them, of those that are required and not had."""
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(columns)}
    found: dict[str, str] = {}
    for ours in REQUIRED:
        taken = {*have.values(), *found.values()}
        known = [plain[name] for name in (ours, *OTHER_NAMES[ours]) if name in plain and plain[name] not in taken]
        if ours not in have and known:
            found[ours] = known[0]
    return found


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else "'" + name.replace("'", "'\\''") + "'"


def _list(table: pa.Table) -> str:
    return ", ".join(table.column_names[:20]) + (", ..." if table.num_columns > 20 else "")


def _plain(column: pa.ChunkedArray, ours: str, where: str) -> pa.ChunkedArray:
    """A column without dictionaries and views, text as `string`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_nested(kind):
        raise DataError(f"{where}{ours} is of type {kind}; expected text, a number or a time")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    return column


class _Refused:
    """First reason for which each row of a block is refused."""

    def __init__(self, reason: Ints) -> None:
        self.reason = reason
        self.names: list[str] = []

    def add(self, name: str, bad: Bools) -> None:
        self.reason[(self.reason < 0) & bad] = len(self.names)
        self.names.append(name)

    def tell(self, refusals: Refusals, block: Block, columns: Mapping[str, pa.ChunkedArray]) -> None:
        count = np.bincount(self.reason[self.reason >= 0], minlength=len(self.names))
        for number in np.flatnonzero(count).tolist():
            name = self.names[number]
            shown = [c for c in columns if c in REQUIRED or name.startswith(c + " ")]
            examples = [
                f"{block.place(row)} ({', '.join(f'{c}={_short(columns[c][row].as_py())}' for c in shown)})"
                for row in np.flatnonzero(self.reason == number)[:EXAMPLES].tolist()
            ]
            refusals.add(name, examples, int(count[number]))


def _short(value: object) -> str:
    said = value.isoformat() if isinstance(value, datetime) else repr(value)
    return said if len(said) <= 80 else said[:77] + "..."


class _Values:
    """The values of a block, [n] each, and the reasons against its rows."""

    def __init__(self, columns: Mapping[str, pa.ChunkedArray], rules: Rules, refused: _Refused) -> None:
        n = len(refused.reason)
        self.unsure = 0  # times in an hour that their clock has twice, or not at all
        self.text: dict[str, pa.Array] = {}
        self.number: dict[str, Floats] = {}
        for name in ("user_id", "item_id"):
            self.text[name] = read.text(columns[name])
            refused.add(f"{name} is missing", ~read.present(self.text[name]))
        self._time(columns, rules, refused)
        order = _number(columns, "order", refused)
        if "order" in columns:
            self.number["order"] = order
        for name in ("listened_s", "duration_s"):
            value = _number(columns, name, refused, lowest=0.0)
            in_ms = _number(columns, name.replace("_s", "_ms"), refused, lowest=0.0) / 1000
            value = np.where(np.isnan(value), in_ms, value)
            if name in columns or name.replace("_s", "_ms") in columns:
                self.number[name] = value
        self.skipped = np.full(n, -1, dtype=np.int8)
        if "skipped" in columns:
            truth, bad = read.truths(columns["skipped"])
            self.skipped = pc.fill_null(truth.cast(pa.int8()), -1).to_numpy(zero_copy_only=False)
            refused.add("skipped is neither true nor false", bad)
        for name in ("device", "source", "session_id", "container_id", "title", "artist", "genre"):
            if name in columns:
                self.text[name] = read.text(columns[name])
        if "device" in columns:
            self.text["device"] = pc.utf8_lower(self.text["device"])
        if any(name in columns for name in _BY_VALUE):
            self._kinds(columns, rules.worth, refused)

    def _kinds(self, columns: Mapping[str, pa.ChunkedArray], rule: Worth, refused: _Refused) -> None:
        """What the rows are beside plays; such a row has no length and is not skipped."""
        listened = self.skipped >= 0
        if "listened_s" in self.number:
            listened |= ~np.isnan(self.number["listened_s"])
        found = kinds(columns, rule, listened, self.skipped == 1)
        for reason, where in found.bad.items():
            refused.add(reason, where)
        self.text["type"], self.number["rating"], self.number["weight"] = found.type, found.rating, found.weight
        self.skipped = np.where(found.play, np.where(found.skip, 1, self.skipped), -1).astype(np.int8)
        if "listened_s" in self.number:
            self.number["listened_s"] = np.where(found.play, self.number["listened_s"], np.nan)

    def _time(self, columns: Mapping[str, pa.ChunkedArray], rules: Rules, refused: _Refused) -> None:
        """Microseconds UTC, the listener's offset in minutes, and where a time was written to the minute."""
        at_us, ok, naive, offset, self.to_minute = read.times(columns["started_at"])
        at_us, offset = at_us.copy(), offset.copy()  # a timestamp column comes as a read-only view
        refused.add("started_at is missing", ~read.present(read.one_chunk(columns["started_at"])))
        refused.add("started_at cannot be read as a time", ~ok)
        given = _number(columns, "utc_offset_min", refused)
        refused.add("utc_offset_min is not minutes within a day", np.abs(np.nan_to_num(given)) >= 24 * 60)
        for name, here, unknown in _zones(columns, rules.default_tz, len(at_us)):
            if unknown:
                refused.add("tz is not a known time zone", here)
                continue
            rows = np.flatnonzero(here & ok)
            wall = rows[naive[rows]]
            try:
                first, second = (offset_of_wall_clock(at_us[wall] // 1_000_000, name, fold) for fold in (0, 1))
                self.unsure += int(np.count_nonzero(first != second))
                at_us[wall] -= 60_000_000 * first
                offset[rows] = offset_of_instant(at_us[rows] // 1_000_000, name)
            except OverflowError:  # refused below, as a time far outside
                continue
        offset = np.where(np.isnan(given), offset, given)
        outside = (at_us < _EARLIEST_US) | (at_us >= _LATEST_US)
        refused.add("started_at lies outside 1990 to 2100", outside)
        if rules.now_us is not None:
            refused.add(
                "started_at lies after now (a time without a zone is UTC; --tz says another)",
                at_us > rules.now_us + CLOCK_US,
            )
        self.at_us = at_us
        known = ~np.isnan(offset) & (np.abs(np.nan_to_num(offset)) < 24 * 60)
        self.offset_min = np.where(known, np.nan_to_num(offset), _NO_OFFSET).astype(np.int16)


def _zones(columns: Mapping[str, pa.ChunkedArray], default_tz: str | None, n: int) -> list[tuple[str, Bools, bool]]:
    """The zones that occur: name, [n] where, and whether there is none of that name."""
    if "tz" not in columns:
        return [] if default_tz is None else [(default_tz, np.ones(n, dtype=bool), False)]
    zones = read.text(columns["tz"])
    encoded = (pc.fill_null(zones, default_tz) if default_tz is not None else zones).dictionary_encode()
    code = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    out = []
    for number, name in enumerate(encoded.dictionary.to_pylist()):
        try:
            zone(name)
            unknown = False
        except ValueError:
            unknown = True
        out.append((name, code == number, unknown))
    return out


def offsets(minutes: Ints) -> pa.Array:
    """Minutes ahead of UTC as the event table has them."""
    return pa.array(minutes.astype(np.int32), mask=minutes == _NO_OFFSET)


def offsets_known(minutes: Ints) -> Bools:
    """[n], where the offset is known."""
    return np.asarray(minutes != _NO_OFFSET)


def _number(
    columns: Mapping[str, pa.ChunkedArray], name: str, refused: _Refused, lowest: float | None = None
) -> Floats:
    """A column of numbers, NaN where null or not mapped."""
    if name not in columns:
        return np.full(len(refused.reason), np.nan)
    value, bad = read.numbers(columns[name])
    refused.add(f"{name} is not a number", bad)
    if lowest is not None:
        refused.add(f"{name} is below {lowest:g}", np.nan_to_num(value, nan=lowest) < lowest)
    return value


def _first_of_items(values: _Values, take: pa.Array) -> pa.Table:
    """One row an item of the kept rows: its first title, artist and genre that is not null."""
    names = [name for name in ("item_id", "title", "artist", "genre") if name in values.text]
    return first_of_items(pa.table({name: values.text[name].take(take) for name in names}))


def first_of_items(table: pa.Table) -> pa.Table:
    """One row an item: the first value of each other column that is not null."""
    others = [name for name in table.column_names if name != "item_id"]
    skip_nulls = pc.ScalarAggregateOptions(skip_nulls=True)
    out = table.group_by("item_id", use_threads=False).aggregate([(name, "first", skip_nulls) for name in others])
    return out.rename_columns([name.removesuffix("_first") for name in out.column_names])
