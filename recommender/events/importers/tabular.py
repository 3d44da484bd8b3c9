"""Parquet, CSV, TSV or JSON lines, one file or a folder of them, as blocks of rows.

Text files are read as text throughout: an id such as 007 keeps its zeros, a JSON number its digits and a time its zone;
what is a number or a time is decided by the column it is mapped to. Each block is read by itself, so that files of one
table may differ in their types.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.importers.files import SourceFile, source_files
from recommender.events.importers.quotes import Mended
from recommender.events.importers.records import BLOCK, Odd, is_json, records, valid
from recommender.events.schema import MAPPABLE
from recommender.events.table import Said

CSV_BYTES = 8 * 1024**2  # of a file that are turned into a table at once
_DELIMITERS = ",;\t|"
_SEP = re.compile(r"\ufeff?\"?sep=.?\"?[,;\t|]*\s*$")


@dataclass(frozen=True, slots=True)
class TextForm:
    """How a text table is written. names: of its header."""

    encoding: str
    delimiter: str
    names: tuple[str, ...]


def read_table(path: Path) -> pa.Table:
    """One table of a file, or of all files below a folder in order of their names; for items, playlists and vectors.

    Raises DataError for an empty folder, or a file that cannot be read.
    """
    said = Said()
    parts = [block.table for block in table_blocks(source_files(path).files, said, None)]
    if said.refusals.rows:
        first = said.refusals.by_reason()[0]
        raise DataError(f"{path} cannot be read: {first.rows:,} times {first.reason}, e.g. {first.examples[0]}")
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the files in {path} differ in their columns: {_first_line(error)}") from error


def table_blocks(files: Sequence[SourceFile], said: Said, wanted: Collection[str] | None = MAPPABLE) -> Iterator[Block]:
    """The rows of tables. wanted: columns to read, where a file can be read by columns; all by default None."""
    for file in files:
        shown = file.name if len(files) > 1 else ""
        head = file.head()
        try:
            if head[:4] == b"PAR1":
                yield from _parquet(file, shown, said, wanted)
            elif is_json(head):
                yield from _json(file, shown, said, wanted)
            else:
                yield from text_blocks(file, shown, said, text_form(file, head))
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"{file.name} cannot be read: {_first_line(error)}") from error


def text_form(file: SourceFile, head: bytes) -> TextForm:
    """Encoding, delimiter and header of a text table. Raises DataError for an empty one and for a name that repeats."""
    encoding = text_encoding(head)
    try:
        words = head.decode(encoding, errors="replace")
    except LookupError as error:
        raise DataError(f"{file.name} has an unknown encoding: {error}") from error
    _, line = first_line(words)
    if not line or "\x00" in line:
        raise DataError(f"{file.name} is {'no text' if line else 'empty'}; expected a table with a header line")
    delimiter = delimiter_of(line, file.name)
    names = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{file.name} repeats a column name, {twice[0]!r}; columns: {', '.join(names)}")
    return TextForm(encoding, delimiter, tuple(name or f"column {at + 1}" for at, name in enumerate(names)))


def first_line(words: str) -> tuple[int, str]:
    """The lines before the first that says something, and that line, "" where there is none. Excel's `sep=;` says
    nothing."""
    for number, line in enumerate(words.splitlines()):
        if line.strip() and not _SEP.match(line):
            return number, line
    return 0, ""


def text_encoding(head: bytes) -> str:
    """UTF-8, UTF-16 by its mark, else what Windows writes in the west."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        head[: len(head) - 4 if len(head) > 4 else len(head)].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return "utf-8-sig" if error.reason == "unexpected end of data" else "cp1252"
    return "utf-8-sig"


def delimiter_of(line: str, name: str = "") -> str:
    """The delimiter that cuts a header into most parts; a tie goes to what the file's name says."""
    named = "\t" if ".tsv" in name.lower() else ","
    return max(_DELIMITERS, key=lambda one: (len(next(csv.reader([line], delimiter=one), [])), one == named))


def text_blocks(
    file: SourceFile, shown: str, said: Said, form: TextForm, *, header: bool = True, quotes: bool = True
) -> Iterator[Block]:
    """The rows of a text table, every column as text; a line with another number of fields is refused.

    header: whether the first line is the header. quotes: whether quotes stand around fields, or are letters.
    """
    odd: list[str] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        odd.append(f"{row.actual_columns} fields: {(row.text or '')[:60]}")
        return "skip"

    encoding = "utf8" if form.encoding.startswith("utf-8") else form.encoding
    if form.encoding == "cp1252":
        said.notes.append(f"{file.name} is not UTF-8: read as Windows-1252")
    before = _lines_before(file, form, header)
    if before is None:
        yield Block(pa.table({name: pa.array([], pa.string()) for name in form.names}), shown)
        return
    with file.open() as stream:
        mended = quotes and form.encoding != "utf-16"
        reader = pa_csv.open_csv(
            pa.PythonFile(Mended(stream, form.delimiter, len(form.names)) if mended else stream, "r"),
            read_options=pa_csv.ReadOptions(
                column_names=list(form.names), skip_rows=before, block_size=CSV_BYTES,
                encoding=encoding, use_threads=False,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=form.delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes,
                invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(form.names, pa.string()), strings_can_be_null=True, null_values=[""],
                check_utf8=False,
            ),
        )  # fmt: skip
        done = 0
        for batch in reader:
            table, row = _only_text(pa.Table.from_batches([batch]), shown, said, done)
            yield Block(table, shown, done, row)
            done += len(batch)
    if odd:
        said.refusals.add(f"a line without {len(form.names)} fields", odd, len(odd))


def _lines_before(file: SourceFile, form: TextForm, header: bool) -> int | None:
    """Lines to pass over: blank ones at the top, and the header; None where nothing follows."""
    words = file.head().decode(form.encoding, errors="replace")
    before, _ = first_line(words)
    follows = not header or any(line.strip() for line in words.splitlines()[before + 1 :])
    return before + header if follows else None


def _only_text(table: pa.Table, shown: str, said: Said, done: int) -> tuple[pa.Table, np.ndarray | None]:
    """The rows whose bytes are UTF-8, and their numbers where some are not."""
    bad = np.zeros(len(table), dtype=bool)
    for column in table.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            bad |= np.array([_no_text(value) for value in column.cast(pa.binary()).to_pylist()])
    if not bad.any():
        return table, None
    place = Block(table, shown, done)
    said.refusals.add(
        "a line that is not UTF-8 text", [place.place(row) for row in np.flatnonzero(bad)[:3].tolist()], int(bad.sum())
    )
    return table.filter(pa.array(~bad)), done + np.flatnonzero(~bad) + 1


def _no_text(value: bytes | None) -> bool:
    try:
        return value is not None and value.decode() is None
    except UnicodeDecodeError:
        return True


def parquet_names(file: SourceFile) -> list[str]:
    """The columns of a Parquet file. Raises DataError for one that is not finished."""
    try:
        return list(_open_parquet(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.name} cannot be read: {_first_line(error)}") from error


def _open_parquet(file: SourceFile) -> pq.ParquetFile:
    source = file.path if file.archive is None else file.whole()
    return pq.ParquetFile(source, coerce_int96_timestamp_unit="us")


def _parquet(file: SourceFile, shown: str, said: Said, wanted: Collection[str] | None) -> Iterator[Block]:
    """INT96, which Spark writes by default, is an instant, though the file says no zone of it."""
    parquet = _open_parquet(file)
    names = parquet.schema_arrow.names
    schema = parquet.schema
    physical = {schema.column(at).path: schema.column(at).physical_type for at in range(len(schema))}
    instants = {name for name in names if physical.get(name) == "INT96"}
    columns = names if wanted is None else [name for name in names if name in wanted]
    said.passed.update((name, None) for name in names if name not in columns)
    done = 0
    for batch in parquet.iter_batches(batch_size=256 * 1024, columns=columns):
        table = pa.Table.from_batches([batch])
        for at, name in enumerate(table.column_names):
            if name in instants and table.column(name).type.tz is None:
                table = table.set_column(at, name, table.column(name).cast(pa.timestamp("us", "UTC")))
        yield Block(table, shown, done)
        done += len(table)
    if not done:
        yield Block(parquet.schema_arrow.empty_table().select(columns), shown)


def _json(file: SourceFile, shown: str, said: Said, wanted: Collection[str] | None) -> Iterator[Block]:
    """Every value as text, as it is written; a list or an object in a column that is read refuses its record."""
    names: dict[str, None] = {}
    rows: list[Mapping[str, str | None]] = []
    numbers: list[int] = []

    def block() -> Block:
        columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
        return Block(pa.table(columns), shown, row=np.array(numbers, dtype=np.int64))

    for number, record in records(file, said, as_written=True):
        try:
            rows.append({name: _as_text(name, value, wanted) for name, value in record.items()})
        except Odd as odd:
            said.refusals.add(str(odd), [f"{file.name} record {number}"])
            continue
        numbers.append(number)
        names.update(dict.fromkeys(record))
        if len(rows) == BLOCK:
            yield block()
            rows, numbers = [], []
    if rows or not names:
        yield block()


def _as_text(name: str, value: object, wanted: Collection[str] | None) -> str | None:
    if isinstance(value, str):
        return valid(value, name)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if wanted is None or name in wanted:
        raise Odd(f"{name} is {'a list' if isinstance(value, list) else 'an object'}")
    return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
