"""Sums over logs of any size: the same kernel on this machine's processes or on Spark.

A kernel turns an Arrow record batch of a log into a small record batch of sufficient statistics, which add up over
batches, files and machines. Both engines cut a file into the same batches and add in the same order (batches in a file,
then files by name; with the error of each addition carried along), so their results are equal to the last bit. A log
that is cut into other files gives other batches; results then differ by some 1e-15.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.types import Floats, Ints

RecordBatch: TypeAlias = Any  # pyarrow has no type stubs
OnProgress: TypeAlias = Callable[[int, int, str], None]

HOWS = ("sum", "min", "max", "few")
CELL_BITS = 6  # mantissa bits that cells tell apart: rows within 1 to 2 % of one another are counted together
FLOOR = 2.0**-20  # numbers this small share the cell of 0
FEW = 64  # of the least keys are kept under "few", which counts up to as many distinct ones exactly
SCHEMA = pa.schema([("name", pa.string()), ("how", pa.string()), ("key", pa.int64()), ("value", pa.float64())])
FILE, FIRST = b"bart.file", b"bart.first_row"  # metadata of batches


class Kernel(Protocol):
    """What an engine runs; it can be pickled.

    read: a part of the log piece by piece. Called: with a piece; a record batch with `SCHEMA` (see
    `Statistics.to_arrow`).
    """

    def read(self, part: Part) -> Iterable[Any]: ...

    def __call__(self, piece: Any, /) -> RecordBatch: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work: files of a log, of each its row groups from a first to before a last (all where there are no
    bounds). size: of it, in whatever all parts are measured. number: of it in the log, from 0."""

    files: tuple[Path, ...]
    size: int
    bounds: tuple[tuple[int, int], ...] = ()
    number: int = 0

    @staticmethod
    def of(file: Path) -> Part:
        """A whole file."""
        return Part((file,), file.stat().st_size)


@dataclass(slots=True, eq=False)
class _Column:
    """key: [m] distinct, ascending. value: [m]. lost: [m], what rounding took from sums so far."""

    how: str
    key: Ints
    value: Floats
    lost: Floats


@dataclass(slots=True, eq=False)
class Statistics:
    """Numbers by name and key that are added up, of which the least or the largest is kept, or few of which are."""

    _columns: dict[str, _Column] = field(default_factory=dict)

    def put(self, name: str, value: Any, how: str = "sum", key: Any = None) -> None:
        """Adds numbers under a name: one, or [m] with distinct keys [m] (0 to m - 1 where None)."""
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
        keys = np.arange(len(array), dtype=np.int64) if key is None else np.asarray(key, dtype=np.int64)
        if how not in HOWS:
            raise ValueError(f"how is {how!r}; expected one of {', '.join(HOWS)}")
        if keys.shape != array.shape:
            raise ValueError(f"{name} has {len(keys)} keys and {len(array)} values; expected as many")
        if key is not None and len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
            order = np.argsort(keys, kind="stable")
            keys, array = keys[order], array[order]
        if how == "few":
            keys, array = keys[:FEW], array[:FEW]
        self._merge(name, _Column(how, keys, array, np.zeros(len(array))))

    def add(self, other: Statistics) -> None:
        """Takes in what `other` holds."""
        for name, column in other._columns.items():
            self._merge(name, column)

    def fill(self, other: Statistics) -> None:
        """Takes in what `other` holds under names of which there is nothing yet."""
        for name, column in other._columns.items():
            self._columns.setdefault(name, column)

    def total(self, name: str) -> float:
        """The number under a name that has one; 0 for a sum of nothing."""
        values = self.values(name)
        return float(values[0]) if len(values) else 0.0

    def values(self, name: str) -> Floats:
        """[m] by ascending key."""
        column = self._columns.get(name)
        return np.empty(0) if column is None else column.value + column.lost

    def keys(self, name: str) -> Ints:
        """[m], ascending."""
        column = self._columns.get(name)
        return np.empty(0, dtype=np.int64) if column is None else column.key

    def names(self) -> list[str]:
        return list(self._columns)

    def to_arrow(self) -> RecordBatch:
        """The statistics as a record batch with `SCHEMA`."""
        columns = list(self._columns.items())
        size = [len(column.key) for _, column in columns]
        number = np.repeat(np.arange(len(columns), dtype=np.int32), size)
        key = np.concatenate([c.key for _, c in columns]) if columns else np.empty(0, dtype=np.int64)
        value = np.concatenate([c.value + c.lost for _, c in columns]) if columns else np.empty(0)
        names = pa.DictionaryArray.from_arrays(pa.array(number), pa.array([n for n, _ in columns], pa.string()))
        hows = pa.DictionaryArray.from_arrays(pa.array(number), pa.array([c.how for _, c in columns], pa.string()))
        return pa.RecordBatch.from_arrays(
            [names.cast(pa.string()), hows.cast(pa.string()), pa.array(key), pa.array(value)], schema=SCHEMA
        )

    @staticmethod
    def from_arrow(batch: RecordBatch) -> Statistics:
        """The statistics in a record batch (or table) with `SCHEMA`, rows of one name together."""
        out = Statistics()
        if not batch.num_rows:
            return out
        encoded = batch.column("name")
        encoded = (encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
        number = np.asarray(encoded.indices)
        key, value = (batch.column(name).to_numpy() for name in ("key", "value"))
        hows = batch.column("how")
        edges = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(number)]])
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            name = encoded.dictionary[int(number[start])].as_py()
            out.put(name, value[start:stop], hows[start].as_py(), key[start:stop])
        return out

    def _merge(self, name: str, new: _Column) -> None:
        old = self._columns.get(name)
        if old is None:
            self._columns[name] = _Column(new.how, new.key, new.value.copy(), new.lost.copy())
            return
        if old.how != new.how:
            raise ValueError(f"{name} is a {old.how} and a {new.how}; expected one of them")
        if not np.array_equal(old.key, new.key):
            key = _united(old.key, new.key)
            old, new = _widened(old, key), _widened(new, key)
        if old.how == "sum":
            value, lost = _two_sum(old.value, new.value)
            column = _Column("sum", old.key, value, old.lost + new.lost + lost)
        else:
            pick = np.minimum if old.how == "min" else np.maximum
            column = _Column(old.how, old.key, pick(old.value, new.value), old.lost)
            if old.how == "few":
                column = _Column("few", column.key[:FEW], column.value[:FEW], column.lost[:FEW])
        self._columns[name] = column


def part_statistics(kernel: Kernel, part: Part) -> Statistics:
    """What the kernel makes of one part of a log, added up piece by piece."""
    total = Statistics()
    for piece in kernel.read(part):
        total.add(Statistics.from_arrow(kernel(piece)))
    # As it would come back from another machine, so that what rounding took is settled at the same places everywhere.
    return Statistics.from_arrow(total.to_arrow())


def placed(batch: RecordBatch, file: Path, first: int) -> RecordBatch:
    """The batch with the file that it is from, and the number of its first row there, in its metadata."""
    return batch.replace_schema_metadata({FILE: str(file).encode(), FIRST: str(first).encode()})


def place_of(batch: RecordBatch) -> tuple[Path, int]:
    """The file that a `placed` batch is from, and the number of its first row there, from 0."""
    metadata: Mapping[bytes, bytes] = batch.schema.metadata or {}
    return Path(metadata.get(FILE, b"log").decode()), int(metadata.get(FIRST, b"0"))


def cell_key(column: Floats, bits: int = CELL_BITS) -> Ints:
    """[n] the cell of each number: its sign, exponent and leading bits, whatever else is in the log."""
    small = np.where(np.abs(column) < FLOOR, 0.0, column).astype(np.float32)
    small += np.float32(0)  # -0 is 0
    return np.asarray(small.view(np.uint32) >> np.uint32(23 - bits), dtype=np.int64)


def _united(one: Ints, two: Ints) -> Ints:
    """The keys of either, ascending; each of the two ascends, and a stable sort only merges such runs."""
    both = np.sort(np.concatenate([one, two]), kind="stable")
    first = np.ones(len(both), dtype=bool)
    np.not_equal(both[1:], both[:-1], out=first[1:])
    return both[first]


def _widened(column: _Column, key: Ints) -> _Column:
    """The column with all of `key`; what it lacked changes nothing."""
    at = np.searchsorted(key, column.key)
    empty = {"sum": 0.0, "min": np.inf, "max": -np.inf, "few": -np.inf}[column.how]
    value: NDArray[np.float64] = np.full(len(key), empty)
    lost = np.zeros(len(key))
    value[at], lost[at] = column.value, column.lost
    return _Column(column.how, key, value, lost)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The rounded sum and what rounding took, exactly. Source: Knuth (1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
