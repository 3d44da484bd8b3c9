"""A quote that never ends costs its own line at most, not every line up to the next quote.

A text table is passed on as it is, except for lines with an odd number of quotes: where a value really goes on over a
few lines they are left alone; otherwise the quote is a letter (`7" mix`, `"Heroes`), and the line is written anew so
that it is read as one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO

CHUNK = 4 * 1024**2
_LOOK = 20  # lines that a value may go on over
_QUOTE = b'"'


class Mended(io.RawIOBase):
    """The bytes of a text table of `fields` columns with every quote closed. `stream` is in a superset of ASCII."""

    def __init__(self, stream: IO[bytes], delimiter: str, fields: int) -> None:
        self._parts = _mended(stream, delimiter.encode(), fields)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, held = [self._rest], len(self._rest)
        while size < 0 or held < size:
            part = next(self._parts, b"")
            if not part:
                break
            parts.append(part)
            held += len(part)
        whole = b"".join(parts)
        cut = len(whole) if size < 0 else size
        self._rest = whole[cut:]
        return whole[:cut]


def _mended(stream: IO[bytes], delimiter: bytes, fields: int) -> Iterator[bytes]:
    rest = b""
    while True:
        chunk = stream.read(CHUNK)
        data = rest + chunk
        if not chunk:
            if data:
                yield _lines(data.split(b"\n"), delimiter, fields, last=True)[0]
            return
        cut = data.rfind(b"\n") + 1
        data, rest = data[:cut], data[cut:]
        if _QUOTE not in data:
            if data:
                yield data
            continue
        out, left = _lines(data.split(b"\n")[:-1], delimiter, fields, last=False)
        rest = left + rest
        if out:
            yield out


def _lines(lines: list[bytes], delimiter: bytes, fields: int, *, last: bool) -> tuple[bytes, bytes]:
    """The lines, mended, and those that have to wait for what follows; both with their line ends."""
    out: list[bytes] = []
    at, n = 0, len(lines)
    while at < n:
        line = lines[at]
        if not line.count(_QUOTE) & 1:
            out.append(line)
            at += 1
            continue
        if not last and at + _LOOK >= n and at > 0:
            return b"\n".join(out) + b"\n", b"\n".join(lines[at:]) + b"\n"
        end = _closing(lines, at)
        if end and _is_one_row(lines[at:end], delimiter, fields):
            out.extend(lines[at:end])
            at = end
        else:
            out.append(_as_letters(line, delimiter, fields))
            at += 1
    return b"\n".join(out) + (b"" if last else b"\n"), b""


def _closing(lines: list[bytes], at: int) -> int:
    """The place after the line that closes the quote which `lines[at]` leaves open; 0 where none does."""
    for end in range(at + 1, min(at + 1 + _LOOK, len(lines))):
        if lines[end].count(_QUOTE) & 1:
            return end + 1
    return 0


def _is_one_row(lines: list[bytes], delimiter: bytes, fields: int) -> bool:
    """Whether lines are one row with a value that goes on, rather than rows that each have a quote too many."""
    if all(line.count(delimiter) + 1 == fields for line in lines):
        return False
    text = b"\n".join(lines).decode("latin-1")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter.decode()))
    return len(rows) == 1 and len(rows[0]) == fields


def _as_letters(line: bytes, delimiter: bytes, fields: int) -> bytes:
    """The line with the quotes that are letters doubled; one of another number of fields without any, to be refused."""
    end = b"\r" if line.endswith(b"\r") else b""
    parts = line.removesuffix(b"\r").split(delimiter)
    if len(parts) != fields:
        return line.replace(_QUOTE, b"")
    return delimiter.join(part if _is_quoted(part) else b'"%s"' % part.replace(_QUOTE, b'""') for part in parts) + end


def _is_quoted(part: bytes) -> bool:
    inside = part[1:-1].replace(b'""', b"")
    return _QUOTE not in part or (part[:1] == part[-1:] == _QUOTE and len(part) > 1 and _QUOTE not in inside)
