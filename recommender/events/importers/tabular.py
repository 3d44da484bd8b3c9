"""Parquet, CSV, TSV or JSON lines, one file or a folder of them, as one table.

Text files are read as text throughout: an id such as 007 keeps its zeros, and what is a number or a time is decided
by the column it is mapped to.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from bart.errors import DataError

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".jsonl", ".ndjson")


def read(path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
    """The file's own table; no columns are mapped."""
    return read_table(path), {}, ()


def read_table(path: Path) -> pa.Table:
    """One table of a file, or of all files below a folder in order of their names.

    Raises DataError for an unknown suffix, an empty folder, or a file that cannot be read.
    """
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and _suffix(f) in SUFFIXES)
        if not files:
            raise DataError(f"{path} holds no file ending in {', '.join(SUFFIXES)}")
        try:
            return pa.concat_tables([_read_file(f) for f in files], promote_options="default")
        except pa.ArrowException as error:
            raise DataError(f"the files in {path} differ in their columns: {_first_line(error)}") from error
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a table")
    return _read_file(path)


def _read_file(path: Path) -> pa.Table:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(f"{path} ends in {path.suffix!r}; expected {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            return pq.read_table(path, partitioning=None)
        if suffix in (".jsonl", ".ndjson"):
            return pa_json.read_json(path)
        return _read_text(path, tab=suffix.startswith(".tsv"))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from error


def _read_text(path: Path, tab: bool) -> pa.Table:
    with open_text(path) as file:
        header = file.readline()
    if not header.strip():
        raise DataError(f"{path} is empty; expected a header line")
    delimiter = "\t" if tab else max(",;\t|", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter))
    if len(set(names)) != len(names):
        raise DataError(f"{path} repeats a column name; columns: {', '.join(names)}")
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]
        ),
    )


def open_text(path: Path) -> TextIO:
    """The file as text, unpacked where it is packed."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
