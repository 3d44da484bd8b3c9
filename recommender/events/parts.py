"""The events of a run on disk: one Parquet file or, of many, a directory of such parts, each of some days.

A part is named by its first day and sorted by listener and time, so that new plays are found, and put in, without
reading what is old. `pyarrow.parquet.read_table` reads either form; by listener and time it comes from `read_parts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bart.types import Ints
from recommender.events.columns import one_chunk
from recommender.sessions.codes import coded

PART_ROWS = 1 << 17  # of whole days; one day more than this makes a part of its own
DAY_US = 86_400_000_000
_BEFORE, _AFTER = -(1 << 62), 1 << 62


@dataclass(frozen=True, slots=True)
class Part:
    """A file and its span: plays that began from `from_us` on and before `until_us`, microseconds UTC."""

    path: Path
    from_us: int
    until_us: int

    @property
    def stamp(self) -> str:
        """Another one after each change of the file."""
        told = self.path.stat()
        return f"{told.st_size}-{told.st_mtime_ns}"


def parts_of(path: Path) -> list[Part]:
    """The parts of events in order of time; a single file is one, nothing is none."""
    if path.is_file():
        return [Part(path, _BEFORE, _AFTER)]
    files = sorted(path.glob("????-??-??.parquet")) if path.is_dir() else []
    first = [int(np.datetime64(file.stem, "us").astype(np.int64)) for file in files]
    ends = zip([_BEFORE, *first[1:]], [*first[1:], _AFTER], strict=True) if files else ()
    return [Part(file, since, until) for file, (since, until) in zip(files, ends, strict=True)]


def read_parts(parts: Path | Sequence[Part], columns: Sequence[str] | None = None) -> pa.Table:
    """The events of parts, or of a place, by listener and time; no row where there is no part.

    columns: those that are wanted; some may be missing.
    """
    found = parts_of(parts) if isinstance(parts, Path) else list(parts)
    tables = []
    for part in found:
        with pq.ParquetFile(part.path) as file:
            there = file.schema_arrow.names
            tables.append(file.read(there if columns is None else [name for name in columns if name in there]))
    if not tables:
        return pa.table({})
    return tables[0] if len(tables) == 1 else by_listener(pa.concat_tables(tables, promote_options="permissive"))


def parts_near(parts: Sequence[Part], events: pa.Table) -> list[Part]:
    """Those in a row that hold what began within a day of any of the events: what they may be, or bound, lies there."""
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    since, until = int(at_us.min()) - DAY_US, int(at_us.max()) + DAY_US
    return [part for part in parts if part.until_us > since and part.from_us <= until]


def by_listener(events: pa.Table) -> pa.Table:
    """Events sorted by listener; those of one stay in their order. events: in order of time for each."""
    words, code = coded(events["user_id"])
    rank = np.empty(len(words), dtype=np.int64)
    rank[pc.array_sort_indices(words).to_numpy()] = np.arange(len(rank))
    number = rank[code]
    if (np.diff(number) >= 0).all():
        return events
    return events.take(pa.array(np.argsort(number, kind="stable"))).combine_chunks()


def cut(events: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Events by name of their part, in order of time; in each they stay in their order. One part where they are few."""
    for name, rows in _rows_of_parts(events):
        yield name, _as_stored(events.take(pa.array(rows)))


def _rows_of_parts(events: pa.Table) -> list[tuple[str, Ints]]:
    """Names of the parts and the rows of each."""
    day = one_chunk(events["started_at"].cast(pa.int64())).to_numpy() // DAY_US
    if not len(day):
        return [("1970-01-01.parquet", np.empty(0, dtype=np.int64))]
    first = int(day.min())
    day -= first
    count = np.bincount(day)
    began = _begun(count)
    number = np.repeat(np.arange(len(began), dtype=np.uint16), np.diff([*began, len(count)]))[day]
    rows = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=len(began)))
    names = [f"{np.datetime64(first + int(start), 'D')}.parquet" for start in began]
    return list(zip(names, np.split(rows, ends[:-1]), strict=True))


def _as_stored(events: pa.Table) -> pa.Table:
    """With text as text, where it is codes of a dictionary."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in events.schema.types]
    return events.cast(pa.schema([entry.with_type(kind) for entry, kind in zip(events.schema, kinds, strict=True)]))


def _begun(count: Ints) -> list[int]:
    """First days of the parts. count: [days] events; a part ends with the day that fills it."""
    began, rows = [0], 0
    for day, n in enumerate(count.tolist()):
        if rows >= PART_ROWS:
            began.append(day)
            rows = 0
        rows += n
    return began


def write_parts(events: pa.Table, path: Path) -> None:
    """Writes events to a place that holds nothing yet: a file, or a directory of parts where they are many."""
    parts = _rows_of_parts(events)
    if len(parts) == 1:
        pq.write_table(_as_stored(events), path, compression="zstd")
        return
    path.mkdir()
    for name, rows in parts:  # one after another: all of them are the events once more
        pq.write_table(_as_stored(events.take(pa.array(rows))), path / name, compression="zstd")


def complete_parts(path: Path) -> None:
    """Gives each part of a directory the columns that any of them has: readers of Parquet go by those of the first.

    A part that lacks some becomes another file: the one that it was may have further names.
    """
    files = [part.path for part in parts_of(path)]
    schemas = [pq.read_schema(file) for file in files]
    whole = pa.unify_schemas(schemas)
    for file, schema in zip(files, schemas, strict=True):
        if set(schema.names) != set(whole.names):
            with pq.ParquetFile(file) as lacking:
                table = pa.concat_tables([whole.empty_table(), lacking.read()], promote_options="permissive")
            file.unlink()
            pq.write_table(table, file, compression="zstd")
