"""One column of a user's file as numbers, times or truth values, with a mask of the values that cannot be read.

Nothing is guessed away: a value that is there but cannot be read is marked bad, a value that is not there is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints, Strings
from recommender.sessions.codes import coded

_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_NUMBER = r"^\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$"
_COMMA = r"^\s*[+-]?\d+,\d+\s*$"
_ZONED = r"^\s*\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)\s*$"
_NAIVE = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?\s*$"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = (
    r"^\s*(?P<day>\d{1,2}) (?P<month>(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))[a-z]* (?P<year>\d{4}),? "
    r"(?P<clock>\d{2}:\d{2}(?::\d{2})?)\s*$"
)
_SLASHED = r"^\s*(\d{4})/(\d{2})/(\d{2})"
_DOTTED = r"^\s*(\d{2})\.(\d{2})\.(\d{4}),?( \d{2}:\d{2}(?::\d{2})?)?\s*$"
# A unix time is told by its size: seconds until the year 5138, then milliseconds, microseconds, nanoseconds.
_UNITS = ((1e11, 1_000_000.0), (1e14, 1_000.0), (1e17, 1.0), (np.inf, 0.001))


def text(column: pa.ChunkedArray) -> pa.Array:
    """[n] strings without blanks around them; blank ones and the numbers that are not numbers are null."""
    if pa.types.is_floating(column.type):
        return _text_of_floats(one_chunk(column.cast(pa.float64())))
    array = one_chunk(column if pa.types.is_string(column.type) else column.cast(pa.string()))
    array = pc.utf8_trim_whitespace(array)
    blank = pc.equal(array, "")
    if not pc.any(blank).as_py():
        return array
    return pc.if_else(blank, pa.scalar(None, pa.string()), array)


def numbers(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """[n] float64 (NaN where null) and where a value is not a finite number; of a column of durations the seconds."""
    if pa.types.is_duration(column.type):
        value, bad = numbers(column.cast(pa.duration("us"), safe=False).cast(pa.int64()))
        return value / 1e6, bad
    if _is_number(column.type) or pa.types.is_boolean(column.type):
        array = one_chunk(column.cast(pa.float64()))
        value = array.to_numpy(zero_copy_only=False)
        bad = np.isinf(value)
        return np.where(bad, np.nan, value), bad
    words = text(column)
    try:  # nearly every column is numbers throughout
        value = one_chunk(words.cast(pa.float64())).to_numpy(zero_copy_only=False)
        if not np.isinf(value).any():
            return value, np.zeros(len(value), dtype=bool)
    except pa.ArrowInvalid:
        pass
    words = _with_points(words)
    good = filled(pc.match_substring_regex(words, _NUMBER))
    value = np.full(len(words), np.nan)
    value[good] = pc.utf8_trim_whitespace(words.filter(pa.array(good))).cast(pa.float64()).to_numpy()
    return value, present(words) & ~good & ~_blank(words)


def _with_points(words: pa.Array) -> pa.Array:
    """Numbers with a decimal comma as such with a point. `1,234` may be either, so some value of the column must have
    other than three digits behind its comma."""
    comma = pc.match_substring_regex(words, _COMMA)
    decimal = pc.and_(comma, pc.invert(pc.match_substring_regex(words, r",\d{3}\s*$")))
    if not pc.any(decimal).as_py():
        return words
    return pc.if_else(comma, pc.replace_substring(words, ",", "."), words)


def truths(column: pa.ChunkedArray) -> tuple[pa.Array, Bools]:
    """[n] bool (null where not known) and where a value is neither true nor false."""
    if pa.types.is_boolean(column.type):
        return one_chunk(column), np.zeros(len(column), dtype=bool)
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text(column)))
    yes = filled(pc.is_in(words, pa.array(_TRUE)))
    no = filled(pc.is_in(words, pa.array(_FALSE)))
    value = pa.array(yes, mask=~(yes | no))
    return value, present(words) & ~yes & ~no & ~_blank(words)


def times(column: pa.ChunkedArray) -> tuple[Ints, Bools, Bools, Floats, Bools]:
    """Microseconds since 1970 [n], where they can be read, where they are naive, the offset written (min, or NaN), and
    where text says no seconds.

    Reads timestamps, dates, ISO 8601 text, `05 Apr 2010, 11:59`, `05.04.2010 11:59`, and unix seconds, milliseconds,
    microseconds or nanoseconds. A naive value is the wall clock, not yet UTC. `Z` says UTC and nothing about the
    listener's own offset.
    """
    n = len(column)
    no, unknown = np.zeros(n, dtype=bool), np.full(n, np.nan)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        array = one_chunk(column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()))
        ok = present(array)
        return pc.fill_null(array, 0).to_numpy(), ok, np.full(n, zone is None), unknown, no
    if _is_number(column.type):
        value, _ = numbers(column)
        return *_unix(value), no, unknown, no
    words = text(column)
    if pc.all(pc.ends_with(words, "Z")).as_py() and not words.null_count:
        at_once = _at_once(words, pa.timestamp("us", "UTC"))
        if at_once is not None and n:
            return at_once, ~no, no, unknown, _lacks_seconds(words)
    number, _ = numbers(pa.chunked_array([words]))
    at_us, ok = _unix(number)
    if ok.all():
        return at_us, ok, no, unknown, no
    words = _iso(words)
    offset = unknown.copy()
    zoned = filled(pc.match_substring_regex(words, _ZONED))
    naive = filled(pc.match_substring_regex(words, _NAIVE))
    for mask, read in ((zoned, _zoned), (naive, _naive)):
        where = np.flatnonzero(mask)
        if len(where):
            at_us[where], ok[where], offset[where] = read(pc.utf8_trim_whitespace(words.take(pa.array(where))))
    return at_us, ok, naive, offset, (zoned | naive) & _lacks_seconds(words)


def as_utc(words: pa.ChunkedArray) -> pa.Array:
    """[n] text of times, those without a zone as UTC: for formats that say so of theirs."""
    iso = _iso(text(words))
    naive = pc.fill_null(pc.match_substring_regex(iso, _NAIVE), False)
    return pc.if_else(naive, pc.binary_join_element_wise(pc.utf8_trim_whitespace(iso), "UTC", " "), iso)


def rows_of(item_id: pa.ChunkedArray, rows: Sequence[str] | Strings | Mapping[str, int]) -> Ints:
    """[n], the row of each item, -1 where it has none. rows: the ids in order of their rows, or {item_id: row}."""
    known, (words, code) = pa.array(list(rows), pa.string()), coded(item_id)
    found = np.append(pc.fill_null(pc.index_in(words, known), -1).to_numpy(), -1).astype(np.int64)
    if isinstance(rows, Mapping):
        found = np.append(np.fromiter(rows.values(), dtype=np.int64, count=len(rows)), -1)[found]
    return np.asarray(found[code], dtype=np.int64)


def one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    whole = column.combine_chunks()
    if isinstance(whole, pa.Array):
        return whole
    return whole.chunk(0) if whole.num_chunks else pa.array([], column.type)


def present(array: pa.Array) -> Bools:
    """[n], where a value is not null."""
    return np.asarray(pc.is_valid(array).to_numpy(zero_copy_only=False), dtype=bool)


def filled(mask: pa.Array) -> Bools:
    """A mask with nulls as False."""
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), dtype=bool)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _blank(words: pa.Array) -> Bools:
    """Words that files write for a missing value."""
    return filled(pc.is_in(pc.utf8_lower(words), pa.array(["null", "none", "nan", "na", "\\n"])))


def _text_of_floats(array: pa.Array) -> pa.Array:
    """Floats as text, whole ones without a point: ids that passed through a column of floats."""
    value = array.to_numpy(zero_copy_only=False)
    whole = np.isfinite(value) & (value == np.round(value)) & (np.abs(value) < 2.0**63)
    as_float = array.cast(pa.string())
    as_int = pa.array(np.where(whole, value, 0).astype(np.int64)).cast(pa.string())
    words = pc.if_else(pa.array(whole), as_int, as_float)
    return pc.if_else(pa.array(np.isnan(value)), pa.scalar(None, pa.string()), words)


def _unix(value: Floats) -> tuple[Ints, Bools]:
    at_us = np.full(len(value), np.nan)
    lowest = 0.0
    for highest, to_us in _UNITS:
        here = (np.abs(value) >= lowest) & (np.abs(value) < highest)
        at_us[here] = value[here] * to_us
        lowest = highest
    ok = np.abs(np.nan_to_num(at_us, nan=np.inf)) < 9.2e18  # what 64 bits hold
    return np.where(ok, np.round(np.where(ok, at_us, 0)), 0).astype(np.int64), ok


def _lacks_seconds(words: pa.Array) -> Bools:
    return filled(pc.match_substring_regex(words, r"^[^:]*\d{1,2}:\d{2}\s*(?:$|Z|z|UTC|[+-])"))


def _iso(words: pa.Array) -> pa.Array:
    """`05 Apr 2010, 11:59`, which Last.fm's web interface gives, and `05.04.2010 11:59`, the day first, and
    `2010/04/05 11:59` as ISO text; other text as it is. `04/05/2010` has the day first or not, nobody knows."""
    slashed = pc.match_substring_regex(words, _SLASHED)
    if pc.any(slashed).as_py():
        words = pc.if_else(slashed, pc.replace_substring_regex(words, _SLASHED, r"\1-\2-\3"), words)
    dotted = pc.match_substring_regex(words, _DOTTED)
    if pc.any(dotted).as_py():
        words = pc.if_else(dotted, pc.replace_substring_regex(words, _DOTTED, r"\3-\2-\1\4"), words)
    named = pc.match_substring_regex(words, _NAMED)
    if not pc.any(named).as_py():
        return words
    part = pc.extract_regex(words, _NAMED)
    month = pc.index_in(pc.utf8_lower(pc.struct_field(part, "month")), pa.array(_MONTHS))
    month = pc.utf8_lpad(pc.add(month, 1).cast(pa.string()), 2, "0")
    day = pc.utf8_lpad(pc.struct_field(part, "day"), 2, "0")
    date = pc.binary_join_element_wise(pc.struct_field(part, "year"), month, day, "-")
    return pc.if_else(named, pc.binary_join_element_wise(date, pc.struct_field(part, "clock"), " "), words)


def _at_once(words: pa.Array, kind: pa.DataType) -> Ints | None:
    """Microseconds of ISO text, None where some is none."""
    try:
        return np.asarray(one_chunk(words.cast(kind).cast(pa.int64())).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid:
        return None


def _naive(words: pa.Array) -> tuple[Ints, Bools, Floats]:
    at_us, ok = _cast(words, pa.timestamp("us"))
    return at_us, ok, np.full(len(words), np.nan)


def _zoned(words: pa.Array) -> tuple[Ints, Bools, Floats]:
    words = pc.replace_substring_regex(words, r"\s*(UTC|z)$", "Z")
    words = pc.replace_substring_regex(words, r"\s*([+-]\d{2}):?(\d{2})?$", r"\1:\2")
    words = pc.replace_substring_regex(words, r"([+-]\d{2}):$", r"\1:00")
    at_us, ok = _cast(words, pa.timestamp("us", "UTC"))
    part = pc.extract_regex(words, r"(?P<sign>[+-])(?P<hour>\d{2}):(?P<minute>\d{2})$")
    offset = np.full(len(words), np.nan)
    known = present(part)
    if known.any():
        part = part.filter(pa.array(known))
        hour = pc.struct_field(part, "hour").cast(pa.int64()).to_numpy()
        minute = pc.struct_field(part, "minute").cast(pa.int64()).to_numpy()
        sign = np.where(filled(pc.equal(pc.struct_field(part, "sign"), "-")), -1, 1)
        offset[known] = sign * (60 * hour + minute)
    return at_us, ok, offset


def _cast(words: pa.Array, kind: pa.DataType) -> tuple[Ints, Bools]:
    """Microseconds of ISO text; an impossible date in the column is found by halving."""
    words = pc.replace_substring_regex(words, r"(\.\d{6})\d+", r"\1")
    try:
        return words.cast(kind).cast(pa.int64()).to_numpy().copy(), np.ones(len(words), dtype=bool)
    except pa.ArrowInvalid:
        if len(words) == 1:
            return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)
    half = len(words) // 2
    left, right = _cast(words[:half], kind), _cast(words[half:], kind)
    return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])
