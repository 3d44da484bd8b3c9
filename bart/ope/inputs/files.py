"""CSV and Parquet files as Arrow record batches of the columns asked for, and their columns as checked arrays.

An error names the file, the column and the row (from 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.inputs.kinds import first_bad
from bart.types import Floats

BATCH = 65_536  # rows of a Parquet batch
_BUFFER = 1 << 20  # bytes of a column read at a time; without it whole row groups are held as they are in the file
_BLOCK = 1 << 22  # bytes of a CSV batch
_NUMBER = re.compile(r"\d{9,}(\.\d+)?")
_LAST_S = 4_102_444_800.0  # 2100: larger numbers are no seconds
_VALUE = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?")  # no name of a column


def record_batches(path: Path, names: list[str]) -> Iterator[tuple[Any, int]]:
    """Record batches of the named columns, and about how many bytes of the file (or directory) are behind.

    Columns of a CSV file are text until `number` or `text` reads them. Raises DataError for a file that cannot be read
    or lacks a column.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no Parquet file; expected *.parquet")
    before = 0
    for file in files:
        parquet = ".parquet" in file.suffixes or is_parquet(file)
        reader = _parquet(file, names) if parquet else _csv(file, names)
        for batch, share in reader:
            yield batch, before + int(share * file.stat().st_size)
        before += file.stat().st_size


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, or of the first file of a directory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no Parquet file; expected *.parquet")
    try:
        if ".parquet" in files[0].suffixes or is_parquet(files[0]):
            return list(pq.read_schema(files[0]).names)
        import pyarrow.csv as csv

        with csv.open_csv(_unpacked(files[0]), **_csv_options(files[0])) as head:
            return list(head.schema.names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{files[0]} cannot be read: {error}") from None


def _csv_options(file: Path) -> dict[str, Any]:
    import pyarrow.csv as csv

    return {
        "parse_options": csv.ParseOptions(delimiter="\t" if ".tsv" in file.suffixes else ","),
        "read_options": csv.ReadOptions(block_size=_BLOCK),
    }


def _unpacked(file: Path) -> Any:
    """What a reader of CSV is to open: unpacked where the file is gzip or bzip2, whatever its name."""
    import pyarrow as pa

    with file.open("rb") as stream:
        head = stream.read(3)
    codec = "gzip" if head[:2] == b"\x1f\x8b" else "bz2" if head == b"BZh" else None
    plain = pa.OSFile(str(file))
    return plain if codec is None else pa.CompressedInputStream(plain, codec)


def is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _parquet(file: Path, names: list[str]) -> Iterator[tuple[Any, float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=_BUFFER) as parquet:
            _there(file, names, parquet.schema_arrow.names)
            total, done = max(parquet.metadata.num_rows, 1), 0
            for group in range(parquet.metadata.num_row_groups):
                # A reader holds on to what it has read of earlier row groups: each group gets one of its own.
                for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=names, use_threads=False):
                    done += batch.num_rows
                    yield batch, done / total
                pa.default_memory_pool().release_unused()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from None


def _csv(file: Path, names: list[str]) -> Iterator[tuple[Any, float]]:
    import pyarrow as pa
    import pyarrow.csv as csv

    # Numbers are read as text and cast here, so that an error can name its column and row.
    convert = csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=names,
        strings_can_be_null=True,
        null_values=[""],
    )
    options = _csv_options(file)
    try:
        with csv.open_csv(_unpacked(file), **options) as head:
            _there(file, names, head.schema.names)
        with csv.open_csv(_unpacked(file), **options, convert_options=convert) as reader:
            size, done = max(file.stat().st_size, 1), 0
            for batch in reader:
                done += _BLOCK
                yield batch, min(done / size, 1.0)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from None


def _there(file: Path, names: list[str], columns: list[str]) -> None:
    for name in names:
        if name not in columns:
            if any(_VALUE.fullmatch(cell.strip()) for cell in columns):
                raise DataError(
                    f"{file} has no header: its first line is data ({', '.join(columns[:6])}); expected a line of "
                    f"column names first, with {name!r} among them"
                )
            raise DataError(f"{file} has no column {name!r}; expected one of {', '.join(columns)}")


def number(path: Path, batch: Any, name: str, first: int) -> Floats:
    """A column as finite float64. first: rows of the file before this batch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = batch.column(name)
    _no_null(path, column, name, first)
    try:
        cast = (
            column.cast(pa.float64())
            if column.type != pa.string()
            else pc.cast(pc.utf8_trim_whitespace(column), "float64")
        )
    except pa.ArrowException:
        at = _first_unreadable(column)
        raise DataError(
            f"{path}: column {name!r}, row {first + at + 1} is {column[at].as_py()!r}; expected a number"
        ) from None
    out: Floats = cast.to_numpy(zero_copy_only=False)
    if not np.isfinite(out).all():
        at = first_bad(~np.isfinite(out))
        raise DataError(f"{path}: column {name!r}, row {first + at + 1} is {out[at]}; expected a finite number")
    return out


def _first_unreadable(column: Any) -> int:
    for i, value in enumerate(column.to_pylist()):
        try:
            float(value)
        except (TypeError, ValueError):
            return i
    return 0


def text(path: Path, batch: Any, name: str, first: int) -> Any:
    """A column as an Arrow array of strings."""
    import pyarrow as pa

    column = batch.column(name)
    _no_null(path, column, name, first)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        raise DataError(f"{path}: column {name!r} is of type {column.type}; expected names, numbers or times") from None


def _no_null(path: Path, column: Any, name: str, first: int) -> None:
    if column.null_count:
        at = first_bad(np.asarray(column.is_null()))
        raise DataError(f"{path}: column {name!r}, row {first + at + 1} is empty; expected a value in every row")


def instant(text: str) -> datetime | None:
    """A time in UTC: ISO 8601, or unix seconds, milliseconds, microseconds or nanoseconds, told by their size."""
    try:
        if _NUMBER.fullmatch(text):
            since_1970 = float(text)
            while since_1970 > _LAST_S:
                since_1970 /= 1000
            return datetime.fromtimestamp(since_1970, tz=timezone.utc)
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
