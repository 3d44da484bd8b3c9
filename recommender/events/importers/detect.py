"""The format of files, told by what is in them.

An exact fit comes first; then a table whose columns are ours; then the error says what the file is close to.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bart.errors import DataError
from recommender.events.importers.contract import Asked, Importer, Shape
from recommender.events.importers.files import SourceFile
from recommender.events.importers.guesses import proposed
from recommender.events.importers.records import head_records, is_json
from recommender.events.importers.tabular import delimiter_of, first_line, parquet_names, text_encoding
from recommender.events.schema import REQUIRED

_VALUE = re.compile(r"\s*([+-]?\d+(\.\d+)?|\d{4}-\d{2}-\d{2}([T ].*)?|)\s*$")


@dataclass(frozen=True, slots=True)
class Detected:
    """The format, the files that are of it, and what was left aside."""

    kind: Importer
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()


def shape_of(file: SourceFile) -> Shape:
    """What a file looks like. Raises DataError for a Parquet file that cannot be opened."""
    head = file.head()
    if head[:4] == b"PAR1":
        return Shape("parquet", tuple(parquet_names(file)))
    if is_json(head):
        first = tuple(head_records(head))
        return Shape("json", tuple(dict.fromkeys(name for record in first for name in record)), first)
    try:
        words = head.decode(text_encoding(head), errors="replace")
    except LookupError:
        return Shape("")
    _, line = first_line(words)
    binary = 100 * words.count("\x00") > len(words)
    if not line or "\x00" in line or binary or line.lstrip().startswith(("<", "%PDF")):
        return Shape("")
    cells = next(csv.reader([line], delimiter=delimiter_of(line, file.name)), [])
    return Shape("text", tuple(cell.strip() for cell in cells))


def detect(files: Sequence[SourceFile], kinds: Mapping[str, Importer], asked: Asked) -> Detected:
    """The format of an export and its files. Raises DataError where there is none, or where there are two."""
    shapes = [(file, shape_of(file)) for file in files]
    found = {file: next((kind for kind in kinds.values() if kind.is_it(shape)), None) for file, shape in shapes}
    count = Counter(kind.name for kind in found.values() if kind is not None)
    if "spotify" in count:  # which reads the account data of the same listener beside it
        count.pop("spotify-account", None)
    if len(count) > 1:
        names = " and ".join(f"{kinds[name].said} ({kinds[name].name})" for name in sorted(count))
        raise DataError(f"these files are {names}; expected one format, or --kind for the one to read")
    if count:
        kind = kinds[next(iter(count))]
        own = tuple(file for file in files if found[file] is kind)
        if kind.name == "spotify":
            own = tuple(file for file, found_as in found.items() if found_as in (kind, kinds.get("spotify-account")))
        if kind.name == "listenbrainz":  # the rest of a user's export says whose it is
            own = tuple(file for file, shape in shapes if shape.form == "json")
        return Detected(kind, own, aside(files, own))
    return _table(shapes, kinds, asked)


def _table(shapes: Sequence[tuple[SourceFile, Shape]], kinds: Mapping[str, Importer], asked: Asked) -> Detected:
    """The files that are a table with the columns that are required."""
    needed = [name for name in REQUIRED if name != "user_id" or asked.user is None]
    own, close = [], []
    for file, shape in shapes:
        names = {*shape.names, *(ours for ours, theirs in (asked.mapping or {}).items() if theirs in shape.names)}
        if not shape.form:
            continue
        if all(name in names for name in needed):
            own.append(file)
        else:
            close.append((file, shape))
    if own:
        every = tuple(file for file, _ in shapes)
        return Detected(kinds["table"], tuple(own), aside(every, own))
    if not close:
        every_name = _names([file for file, _ in shapes])
        raise DataError(f"{every_name}: no table and no export that is known{_instead(shapes)}; {_known(kinds)}")
    file, shape = close[0]
    raise DataError(why_not(file, shape, kinds, asked))


def _instead(shapes: Sequence[tuple[SourceFile, Shape]]) -> str:
    """What the files are, where that is plain."""
    heads = [file.head(64).lstrip(b"\xef\xbb\xbf \t\r\n") for file, _ in shapes]
    if not any(heads):
        return " (empty)"
    if any(head.startswith(b"<") for head in heads):
        return " (a web page: ask for the same export as JSON, Google Takeout offers both)"
    return ""


def why_not(file: SourceFile, shape: Shape, kinds: Mapping[str, Importer], asked: Asked) -> str:
    """What a file is close to, and what it lacks."""
    nearly = [(kind.nearly(shape), kind) for kind in kinds.values()]
    lacking = sorted(((lacks, kind) for lacks, kind in nearly if lacks), key=lambda pair: len(pair[0]))
    if lacking:
        lacks, kind = lacking[0]
        return f"{file.name}: this looks like {kind.said} ({kind.name}), which lacks {', '.join(lacks)}"
    if not shape.names:
        return f"{file.name} holds no record that can be read; {_known(kinds)}"
    if headless(shape):
        return (
            f"{file.name} has no header: its first line is data ({', '.join(shape.names[:6])}); expected a line of "
            f"column names first, such as {','.join(REQUIRED)}"
        )
    mapping = dict(asked.mapping or {})
    have = mapping | {name: name for name in REQUIRED if name in shape.names}
    missing = [name for name in REQUIRED if name not in have]
    maps = proposed(file, shape, have)
    alone = missing == ["user_id"] or "--map user_id=COLUMN" in maps
    one = "; --user NAME where all plays are of one listener" if alone else ""
    wrong = [f"{ours} is mapped to {theirs!r}" for ours, theirs in mapping.items() if theirs not in shape.names]
    told = f"{wrong[0]}, which is not a column" if wrong else f"no column for {', '.join(missing)}"
    return (
        f"{file.name}: {told}; columns: {', '.join(shape.names[:20])}{', ...' if len(shape.names) > 20 else ''}; "
        f"expected {maps or 'columns that are there'}{one}"
    )


def headless(shape: Shape) -> bool:
    """Whether the first line of a text table holds values rather than names."""
    if shape.form != "text":
        return False
    return any(cell and _VALUE.match(cell) for cell in shape.names)


def aside(files: Sequence[SourceFile], own: Sequence[SourceFile]) -> tuple[str, ...]:
    """What is to be told of the files that are not of the format."""
    rest = [file.name for file in files if file not in own]
    if not rest:
        return ()
    shown = ", ".join(rest[:3]) + (", ..." if len(rest) > 3 else "")
    return (f"{len(rest):,} other files are not read: {shown}",)


def _names(files: Sequence[SourceFile]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def _known(kinds: Mapping[str, Importer]) -> str:
    return f"expected Parquet, CSV, TSV or JSON lines with {', '.join(REQUIRED)}, or " + ", ".join(
        kind.said for kind in kinds.values() if kind.name != "table"
    )
