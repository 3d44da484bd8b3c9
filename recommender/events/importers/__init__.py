"""Listening events from the formats that people have them in.

`IMPORTERS` is the table: one file and one line each. An importer turns files into blocks of rows with our column names
(or maps its columns to them) and counts what it leaves out; `recommender.events.table.read_blocks` does the rest, the
checks included, the same for all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.importers import (
    kuairand,
    lastfm,
    listenbrainz,
    spotify,
    spotify_account,
    station_plays,
    tabular,
    youtube_music,
)
from recommender.events.importers.contract import Asked, Importer, Rows
from recommender.events.importers.detect import Detected, aside, detect, shape_of
from recommender.events.importers.files import ZIP_LIMIT, SourceFile, source_files
from recommender.events.schema import MAPPABLE, REQUIRED
from recommender.events.table import LoadedEvents, Said, Volume, read_blocks
from recommender.events.worth import Worth

__all__ = ["IMPORTERS", "Importer", "load_events"]


def _table(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """Tables that have our columns, or have them mapped."""
    mapping = dict(asked.mapping or {})
    blocks = tabular.table_blocks(files, said, {*MAPPABLE, *mapping.values()})
    if asked.user is not None:
        if "user_id" in mapping:
            raise DataError("--user names the listener of a table without one; expected no --map for user_id")
        blocks = _of(asked.user, blocks)
    return Rows(blocks, {})


def _of(user: str, blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        if "user_id" in block.table.column_names:
            raise DataError("--user names the listener of a table without one; this one has a column user_id")
        table = block.table.append_column("user_id", pa.array([user] * len(block.table), pa.string()))
        yield Block(table, block.file, block.first_row, block.row)


TABLE = Importer("table", "a table", _table)
_KINDS = (
    spotify.KIND,
    spotify_account.KIND,
    lastfm.KIND,
    listenbrainz.KIND,
    kuairand.KIND,
    station_plays.KIND,
    youtube_music.KIND,
)
IMPORTERS: dict[str, Importer] = {kind.name: kind for kind in (TABLE, *_KINDS)}


def load_events(
    path: Path,
    kind: str | None = None,
    mapping: Mapping[str, str] | None = None,
    *,
    user: str | None = None,
    default_tz: str | None = None,
    volume: Volume | None = None,
    now_s: float | None = None,
    zip_limit: int = ZIP_LIMIT,
    worth: Worth | None = None,
    as_codes: bool = False,
) -> LoadedEvents:
    """The events of a file, a folder or a ZIP.

    kind: a name in `IMPORTERS`; told by the content where it is not given. mapping: {our column: the file's column},
    over the importer's own. user: the listener of an export of one. default_tz: IANA zone where the file says none.
    now_s: the time, unix seconds, by default the clock's; nothing can have begun later. zip_limit: bytes that a ZIP may
    unpack to. worth: what likes and ratings count. as_codes: see `read_blocks`. Raises DataError for an unknown kind,
    a missing or unreadable file, missing columns.
    """
    if kind is not None and kind not in IMPORTERS:
        raise DataError(f"kind is {kind!r}; expected one of {', '.join(IMPORTERS)}")
    asked = Asked(user, mapping)
    given = source_files(Path(path), zip_limit)
    detected = _detected(given.files, kind, asked)
    said = Said(notes=[*given.notes, *detected.notes])
    said.read_as = _said(detected)
    rows = detected.kind.read(detected.files, said, asked)
    return read_blocks(
        rows.blocks,
        {**rows.mapping, **(mapping or {})},
        default_tz=default_tz,
        volume=volume,
        said=said,
        worth=worth,
        same=rows.same,
        as_codes=as_codes,
        now_us=None if now_s == math.inf else int((time.time() if now_s is None else now_s) * 1e6),
    )


def _detected(files: Sequence[SourceFile], kind: str | None, asked: Asked) -> Detected:
    """The format: as given, a table where columns that are required are mapped, else as the content says."""
    if kind == TABLE.name or (kind is None and asked.mapping and set(asked.mapping) & set(REQUIRED)):
        return detect(files, {TABLE.name: TABLE}, asked)
    if kind is None:
        return detect(files, IMPORTERS, asked)
    return _as_given(files, IMPORTERS[kind])


def _as_given(files: Sequence[SourceFile], kind: Importer) -> Detected:
    """The files that are read as a kind that was given: those that fit it, else all that are not clearly another."""
    shapes = [(file, shape_of(file)) for file in files]
    fitting = tuple(file for file, shape in shapes if kind.is_it(shape))
    if kind.name == "listenbrainz" and fitting:
        fitting = tuple(file for file, shape in shapes if shape.form == "json")
    if fitting:
        return Detected(kind, fitting, aside(files, fitting))
    for file, shape in shapes:
        other = next((one for one in _KINDS if one is not kind and one.is_it(shape)), None)
        if other is not None:
            raise DataError(f"{file.name} is {other.said}, not {kind.said}; expected --kind {other.name}, or none")
        lacking = kind.nearly(shape)
        if lacking:
            raise DataError(f"{file.name}: this looks like {kind.said}, which lacks {', '.join(lacking)}")
    usable = tuple(file for file, shape in shapes if shape.form and (kind.form in ("", shape.form)))
    if not usable:
        raise DataError(f"{files[0].name} is not {kind.said}; expected another file or another --kind")
    return Detected(kind, usable)


def _said(detected: Detected) -> str:
    files = f", {len(detected.files):,} files" if len(detected.files) > 1 else ""
    return f"{detected.kind.said} ({detected.kind.name}{files})"
