"""JSON records one by one: an array, lines, or objects after each other. One that cannot be read ends nothing.

`Odd` is what a format raises for a record that it refuses; it is counted by its reason, and the next is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from bart.types import Bools, Ints
from recommender.events import columns as read_columns
from recommender.events.blocks import Block
from recommender.events.check import EXAMPLES
from recommender.events.importers.files import SourceFile
from recommender.events.table import Said

BLOCK = 100_000  # records turned into a table at once
NOT_JSON = "a record that is not JSON"
_KINDS = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
_DECODER = json.JSONDecoder()
_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)  # numbers as they are written
# Strings, brackets, quotes that never end, and bare words; whatever stands between is blank or a separator.
_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]|[^\s,:\[\]{}"]+', re.DOTALL)


class Odd(ValueError):
    """A record that is refused, and why."""


def is_json(head: bytes) -> bool:
    """Whether a file that begins so is JSON: in UTF-8 or UTF-16, with a byte order mark or without."""
    return head.lstrip(b" \t\r\n\xef\xbb\xbf\xff\xfe\x00")[:1] in (b"{", b"[")


def records(file: SourceFile, said: Said, *, as_written: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file and their numbers from 1; others are refused and counted.

    as_written: numbers stay text.
    """
    decoder = _WRITTEN if as_written else _DECODER
    with file.open() as stream:
        for number, value in enumerate(_values(stream, decoder), 1):
            if isinstance(value, dict):
                yield number, value
            elif isinstance(value, Odd):
                said.refusals.add(str(value), [f"{file.name} record {number}"])
            else:
                said.refusals.add("a record that is no object", [f"{file.name} record {number}"])


def head_records(head: bytes, limit: int = 20) -> list[dict[str, Any]]:
    """The first objects of a file's first bytes."""
    out: list[dict[str, Any]] = []
    for value in _spans(_decoded(head), _DECODER, cut=True):
        if isinstance(value, dict):
            out.append(value)
        if len(out) == limit:
            break
    return out


def blocks(
    files: Sequence[SourceFile],
    said: Said,
    schema: pa.Schema,
    row: Callable[[dict[str, Any]], Sequence[object]],
    *,
    as_written: bool = False,
    named: bool | None = None,
) -> Iterator[Block]:
    """Tables of `schema`. row: a record's values in that order; it raises `Odd` for one that is refused. named: places
    are told with the file's name, by default where there are several."""
    for file in files:
        shown = file.name if (len(files) > 1 if named is None else named) else ""
        rows: list[Sequence[object]] = []
        numbers: list[int] = []
        for number, record in records(file, said, as_written=as_written):
            try:
                rows.append(row(record))
                numbers.append(number)
            except Odd as odd:
                said.refusals.add(str(odd), [f"{file.name} record {number}"])
            if len(rows) == BLOCK:
                yield table_block(rows, numbers, schema, shown)
                rows, numbers = [], []
        if rows:
            yield table_block(rows, numbers, schema, shown)


def table_block(rows: list[Sequence[object]], numbers: list[int], schema: pa.Schema, shown: str) -> Block:
    """Rows of values as a block; numbers: of the records in their file."""
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return Block(pa.table(arrays, schema=schema), shown, row=np.array(numbers, dtype=np.int64))


def timed(block: Block, column: str, name: str, said: Said) -> tuple[Block, Ints]:
    """The rows whose time can be read, and these times, [n] microseconds, where no zone is written UTC; the others are
    refused. column: of the block. name: of the field that it was."""
    at_us, ok, *_ = read_columns.times(block.table[column])
    there = read_columns.present(read_columns.text(block.table[column]))
    for reason, bad in ((f"{name} is missing", ~there), (f"{name} cannot be read as a time", there & ~ok)):
        rows = np.flatnonzero(bad)
        said.refusals.add(reason, [block.place(row) for row in rows[:EXAMPLES].tolist()], len(rows))
    if ok.all():
        return block, at_us
    return rows_of(block, ok), at_us[ok]


def rows_of(block: Block, where: Bools) -> Block:
    """Some rows of a block of records. where: [n]."""
    at = np.flatnonzero(where)
    return Block(block.table.take(pa.array(at)), block.file, row=None if block.row is None else block.row[at])


def text(record: Mapping[str, Any], name: str) -> str | None:
    """A field of text, None where there is none. Raises Odd for anything else."""
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Odd(f"{name} is {_KINDS.get(type(value), 'something else')}, not text")
    return valid(value.strip(), name) or None


def valid(value: str, name: str) -> str:
    """The text, where it can be written down. Raises Odd for half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Odd(f"{name} is not text that can be written down") from None
    return value


def number(record: Mapping[str, Any], name: str) -> float | None:
    """A field that is a number or the text of one. Raises Odd for anything else and for what is not finite."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Odd(f"{name} is {_KINDS.get(type(value), 'something else')}, not a number")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Odd(f"{name} is not a number")
    return found


def part(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field that is an object, {} where there is none. Raises Odd for anything else."""
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Odd(f"{name} is {_KINDS.get(type(value), 'something else')}, not an object")
    return value


def time_text(record: Mapping[str, Any], name: str) -> str | None:
    """A time as text for `columns.times`, None where there is none. Raises Odd for what can be no time."""
    value = record.get(name)
    if isinstance(value, str) or value is None:
        return None if value is None else valid(value, name)
    found = number(record, name)
    return None if found is None else repr(found)


def flag(record: Mapping[str, Any], name: str) -> bool | None:
    """A field that is true or false, also as text or a number. Raises Odd for anything else."""
    value = record.get(name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        known = {"true": True, "1": True, "false": False, "0": False, "": None}
        word = str(value).strip().lower().removesuffix(".0")
        if word in known:
            return known[word]
    raise Odd(f"{name} is neither true nor false")


def _values(stream: IO[bytes], decoder: json.JSONDecoder) -> Iterator[Any]:
    """The values of a file; an `Odd` for what cannot be read."""
    first = _first_byte(stream)
    if first == b"{":
        yield from _lines(stream, decoder)
        return
    whole = _decoded(first + stream.read())
    try:
        values = decoder.decode(whole)
    except (ValueError, RecursionError):
        yield from _spans(whole, decoder)
        return
    yield from values if isinstance(values, list) else [values]


def _first_byte(stream: IO[bytes]) -> bytes:
    """The first byte that is neither blank nor of a byte order mark."""
    byte = stream.read(1)
    while byte and (byte.isspace() or byte in (b"\xef", b"\xbb", b"\xbf")):
        byte = stream.read(1)
    return byte


def _lines(stream: IO[bytes], decoder: json.JSONDecoder) -> Iterator[Any]:
    """Values of lines whose first byte was read already; of a file that is not in lines, value by value."""
    line = b"{" + stream.readline()
    try:
        yield decoder.decode(line.decode())
    except (ValueError, RecursionError):
        second = stream.readline()
        if not _in_lines(line, second):
            yield from _spans(_decoded(line + second + stream.read()), decoder)
            return
        yield Odd(NOT_JSON)
        yield from _line(second, decoder)
    for line in stream:
        yield from _line(line, decoder)


def _in_lines(first: bytes, second: bytes) -> bool:
    """Whether a file whose first line is no value is one of lines nevertheless: no value goes on in the second."""
    if not second.strip():
        return first.rstrip().endswith(b"}") or len(first) > 1000
    return second.lstrip().startswith((b"{", b"[")) and not first.rstrip().endswith((b"{", b","))


def _line(line: bytes, decoder: json.JSONDecoder) -> Iterator[Any]:
    if not line.strip():
        return
    try:
        yield decoder.decode(line.decode())
    except (ValueError, RecursionError):
        yield Odd(NOT_JSON)


def _decoded(data: bytes) -> str:
    """Text of JSON bytes; bytes that are no text become marks, and their record is refused for it."""
    try:
        encoding = json.detect_encoding(data)
        return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
    except LookupError as error:
        raise DataError(f"the text has an unknown encoding: {error}") from error


def _spans(whole: str, decoder: json.JSONDecoder, cut: bool = False) -> Iterator[Any]:
    """The values of an array, or of a sequence of values, each read by itself; of one that is cut off, `Odd`.

    cut: the text may end anywhere; then the last value is left out.
    """
    for begin, end in _bounds(whole):
        if end is None:
            if not cut:
                yield Odd("a record that the file breaks off in")
            return
        try:
            yield decoder.decode(whole[begin:end])
        except (ValueError, RecursionError):
            yield Odd(NOT_JSON)


def _bounds(whole: str) -> Iterator[tuple[int, int | None]]:
    """Begin and end of each value at the top, or in the array that is the top; None where the text ends before it."""
    depth, begin = 0, -1
    base = 1 if whole.lstrip()[:1] == "[" else 0
    for found in _MARKS.finditer(whole):
        mark = found.group()
        if mark == '"':  # text that never ends
            break
        if mark[0] == '"' or mark[0] not in "[]{}":
            if depth == base:
                yield found.start(), found.end()
        elif mark in "[{":
            depth += 1
            if depth == base + 1:
                begin = found.start()
        elif mark in "]}":
            depth -= 1
            if depth == base and begin >= 0:
                yield begin, found.end()
                begin = -1
            if depth < base:
                return
    if begin >= 0:
        yield begin, None
