"""One column of a user's file as numbers, times or truth values, with a mask of the values that cannot be read.

Nothing is guessed away: a value that is there but cannot be read is marked bad, a value that is not there is null.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints

_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_NUMBER = r"^\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$"
_ZONED = r"^\s*\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)\s*$"
_NAIVE = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?\s*$"
# A unix time is told by its size: seconds until the year 5138, then milliseconds, microseconds, nanoseconds.
_UNITS = ((1e11, 1_000_000.0), (1e14, 1_000.0), (1e17, 1.0), (np.inf, 0.001))


def text(column: pa.ChunkedArray) -> pa.Array:
    """[n] strings; blank ones and the numbers that are not numbers are null."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.all(pc.equal(column, pc.round(column))).as_py()
        column = column.cast(pa.int64()) if whole else column  # ids that passed through a column of floats
    array = one_chunk(column.cast(pa.string()))
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(array), ""), pa.scalar(None, pa.string()), array)


def numbers(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """[n] float64 (NaN where null) and where a value is not a finite number."""
    if _is_number(column.type) or pa.types.is_boolean(column.type):
        array = one_chunk(column.cast(pa.float64()))
        value = array.to_numpy(zero_copy_only=False)
        bad = np.isinf(value)
        return np.where(bad, np.nan, value), bad
    words = text(column)
    good = filled(pc.match_substring_regex(words, _NUMBER))
    value = np.full(len(words), np.nan)
    value[good] = pc.utf8_trim_whitespace(words.filter(pa.array(good))).cast(pa.float64()).to_numpy()
    return value, present(words) & ~good & ~_blank(words)


def truths(column: pa.ChunkedArray) -> tuple[pa.Array, Bools]:
    """[n] bool (null where not known) and where a value is neither true nor false."""
    if pa.types.is_boolean(column.type):
        return one_chunk(column), np.zeros(len(column), dtype=bool)
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text(column)))
    yes = filled(pc.is_in(words, pa.array(_TRUE)))
    no = filled(pc.is_in(words, pa.array(_FALSE)))
    value = pa.array(yes, mask=~(yes | no))
    return value, present(words) & ~yes & ~no & ~_blank(words)


def times(column: pa.ChunkedArray) -> tuple[Ints, Bools, Bools, Floats]:
    """Microseconds since 1970 [n], where they can be read, where they are naive, and the offset written (min, or NaN).

    Reads timestamps, dates, ISO 8601 text, and unix seconds, milliseconds, microseconds or nanoseconds. A naive value
    is the wall clock, not yet UTC. `Z` says UTC and nothing about the listener's own offset.
    """
    n = len(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        array = one_chunk(column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()))
        ok = present(array)
        return pc.fill_null(array, 0).to_numpy(), ok, np.full(n, zone is None), np.full(n, np.nan)
    if _is_number(column.type):
        value, _ = numbers(column)
        at_us, ok = _unix(value)
        return at_us, ok, np.zeros(n, dtype=bool), np.full(n, np.nan)
    words = text(column)
    number, _ = numbers(pa.chunked_array([words]))
    at_us, ok = _unix(number)
    offset = np.full(n, np.nan)
    zoned = filled(pc.match_substring_regex(words, _ZONED))
    naive = filled(pc.match_substring_regex(words, _NAIVE))
    for mask, read in ((zoned, _zoned), (naive, _naive)):
        where = np.flatnonzero(mask)
        if len(where):
            at_us[where], ok[where], offset[where] = read(pc.utf8_trim_whitespace(words.take(pa.array(where))))
    return at_us, ok, naive, offset


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


def _unix(value: Floats) -> tuple[Ints, Bools]:
    at_us = np.full(len(value), np.nan)
    lowest = 0.0
    for highest, to_us in _UNITS:
        here = (np.abs(value) >= lowest) & (np.abs(value) < highest)
        at_us[here] = value[here] * to_us
        lowest = highest
    ok = np.isfinite(at_us)
    return np.where(ok, np.round(at_us), 0).astype(np.int64), ok


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
