"""The files of an export: where they lie, which version they are of, and how an older row becomes a present one.

RUN/log/date=YYYY-MM-DD/part-00000.parquet, by the UTC day of the decision. Version 1 lacks arm, forced, model_id, rows
and columns, version 2 what boosts and diversity did to the scores; both are read as they stand, and
`bart.log.care.migrate` rewrites them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.errors import LogError
from bart.log.record.columns import SCHEMA, VERSION, VERSION_KEY

READABLE = (1, 2, 3, 4)
ADDED_IN = {
    2: ("arm", "forced", "model_id", "rows", "columns"),
    3: ("boost_factor", "boost_add", "relevance"),
    4: ("features",),
}
SINCE = {name: version for version, names in ADDED_IN.items() for name in names}  # of the columns that 1 lacks


def day_directory(directory: Path, day: date) -> Path:
    """Where the pages of a day lie."""
    return directory / f"date={day.isoformat()}"


def export_days(directory: Path) -> list[date]:
    """Days with a directory, ascending."""
    days = []
    for path in directory.glob("date=*"):
        try:
            days.append(date.fromisoformat(path.name.removeprefix("date=")))
        except ValueError:
            raise LogError(f"{path} is not a day of an export; expected date=YYYY-MM-DD") from None
    return sorted(days)


def export_files(directory: Path, since: date | None = None, until: date | None = None) -> list[Path]:
    """The files of an export by day, from `since`, before `until`."""
    return [
        file
        for day in export_days(directory)
        if (since is None or day >= since) and (until is None or day < until)
        for file in sorted(day_directory(directory, day).glob("part-*.parquet"))
    ]


def exported_pages(directory: Path, day: date) -> int:
    """How many pages an export holds of a day."""
    pages = 0
    for file in export_files(directory, day, day + timedelta(days=1)):
        parquet, _ = open_export(file)
        with parquet:
            pages += parquet.metadata.num_rows
    return pages


def open_export(file: Path, **options: Any) -> tuple[Any, int]:
    """An open `pyarrow.parquet.ParquetFile` and its version. Raises LogError for what this code cannot read."""
    try:
        parquet = pq.ParquetFile(file, **options)
    except (OSError, pa.ArrowException) as error:
        raise LogError(f"{file} cannot be read: {error}") from None
    found = (parquet.schema_arrow.metadata or {}).get(VERSION_KEY)
    if found is None or not found.isdigit():
        parquet.close()
        raise LogError(f"{file} is not an exported decision log: its metadata names no version")
    version = int(found)
    if version not in READABLE:
        parquet.close()
        raise LogError(
            f"{file} is of version {version}; this code reads {READABLE[0]} to {READABLE[-1]}: update the software "
            "that reads it"
        )
    types = {field.name: field.type for field in parquet.schema_arrow}
    for field in SCHEMA:
        if SINCE.get(field.name, 1) <= version:
            if field.name not in types:
                parquet.close()
                raise LogError(f"{file} lacks the column {field.name}: it was altered")
            if types[field.name] != field.type:
                parquet.close()
                raise LogError(
                    f"{file}: column {field.name} has type {types[field.name]}; expected {field.type}: it was altered"
                )
    return parquet, version


def upgraded(batch: Any, version: int) -> Any:
    """A record batch of an older version with the columns of the present one."""
    if version == VERSION:
        return batch
    n = batch.num_rows
    added = {
        "arm": pa.array([""] * n, pa.string()),
        "forced": pa.array(np.zeros(n, dtype=np.bool_)),
        "model_id": pa.array([""] * n, pa.string()),
        "rows": _size(batch.column("shelf_epsilon")),
        "columns": _size(batch.column("card_epsilon")),
        **{name: pa.nulls(n, SCHEMA.field(name).type) for name in (*ADDED_IN[3], *ADDED_IN[4])},
    }
    there = set(batch.schema.names)
    arrays = [batch.column(name) if name in there else added[name] for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(arrays, names=SCHEMA.names)


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Writes beside and renames, so that a reader never sees half a file; synced before it takes the name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with beside.open("rb") as handle:
            os.fsync(handle.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(directory: Path) -> None:
    """Removes what a killed writer left beside the files of an export: it may hold rows that are to be forgotten.

    So two processes must not write to one export at the same time; the one that loses its file says so.
    """
    for pattern in ("date=*/.part-*.tmp", "date=*/._leaves.*.tmp", "._*.tmp"):
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)


def write_batches(file: Path, batches: Iterable[Any], metadata: dict[bytes, bytes]) -> int:
    """One file of the present version from record batches; how many pages it has. Removed again where it has none."""
    schema = SCHEMA.with_metadata({**metadata, VERSION_KEY: str(VERSION).encode()})
    pages = 0

    def write(beside: Path) -> None:
        nonlocal pages
        options = {"compression": "zstd", "use_dictionary": _DICTIONARY, "write_statistics": _FLAT}
        with pq.ParquetWriter(beside, schema, **options) as writer:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)
                    pages += batch.num_rows

    write_atomically(file, write)
    if pages == 0:
        file.unlink()
    return pages


def _size(lists: Any) -> Any:
    return pa.array(np.diff(np.asarray(lists.offsets)), pa.int32())


_FLAT = [field.name for field in SCHEMA if field.type.num_fields == 0]  # nobody asks for the extremes of lists
# Dictionaries pay for what repeats; scores do not
_DICTIONARY = [
    "user_id", "device", "surface", "country", "batch_id", "model_id", "policy", "rules_version", "arm",
    "item_id.list.element", "shelves.list.element.rule", "shelves.list.element.title",
    "shelves.list.element.explanation", "shelves.list.element.key", "shelf_epsilon.list.element",
    "card_epsilon.list.element", "shelf.list.element", "shelf_propensity.list.element",
    "card_propensity.list.element.list.element",
]  # fmt: skip
