"""Last.fm listening histories, as people have them: Last.fm itself exports none.

- the 1K-users set: tab-separated lines without a header: user, ISO time (UTC), artist id, artist, track id, track;
- lastfm.ghan.nl: CSV, newest first: uts, utc_time, artist, artist_mbid, album, album_mbid, track, track_mbid;
- lastfmstats.com: CSV with semicolons: Artist, Album, AlbumId, Track and `Date#NAME` in milliseconds;
- benjaminbenben.com/lastfm-to-csv: CSV without a header, newest first, times to the minute: artist, album, track, date.

Ids of tracks are often blank: an item is artist and title, and so are all rows of that title, so that one song is not
two items. Times are UTC, whatever zone is asked for. A track that is being played has no time yet and is refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.columns import as_utc
from recommender.events.importers.contract import Asked, Importer, Rows, Shape, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.tabular import (
    TextForm,
    delimiter_of,
    first_line,
    text_blocks,
    text_encoding,
    text_form,
)
from recommender.events.table import Said

_LINES = ("user_id", "started_at", "artist_mbid", "artist", "track_mbid", "title")
_UNNAMED = ("artist", "album", "title", "started_at")
_GHAN = ("uts", "artist", "track")
_STATS = ("Artist", "Album", "AlbumId", "Track")
_OF_USER = re.compile(r"recenttracks-(.+)-\d+\.csv")  # as lastfm.ghan.nl names its files
_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}")
_NAMED_TIME = re.compile(r"\d{1,2} [A-Z][a-z]{2} \d{4},? \d{2}:\d{2}$")


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The scrobbles of the 1K set's listeners, or of the one of an export."""
    users = sorted({found.group(1) for file in files if (found := _OF_USER.search(file.name))})
    if len(users) > 1 and asked.user is None:
        raise DataError(
            f"these files are of {', '.join(users)}; expected one listener's (--user NAME reads them as one)"
        )

    def plays() -> Iterator[Block]:
        for file in files:
            shown = file.name if len(files) > 1 else ""
            yield from _file(file, shown, said, asked)

    return Rows(plays(), {})


def _file(file: SourceFile, shown: str, said: Said, asked: Asked) -> Iterator[Block]:
    head = file.head()
    encoding = text_encoding(head)
    _, line = first_line(head.decode(encoding, errors="replace"))
    delimiter = delimiter_of(line, file.name)
    cells = tuple(cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), []))
    if _is_unnamed(cells):
        for block in text_blocks(file, shown, said, TextForm(encoding, delimiter, _UNNAMED), header=False):
            yield _of_one(block, "started_at", "artist", "title", name_of_one(asked))
    elif _stats_date(cells):
        form, date = text_form(file, head), _stats_date(cells)
        for block in text_blocks(file, shown, said, form):
            yield _of_one(block, date, "Artist", "Track", name_of_one(asked, date.partition("#")[2]))
    elif set(_GHAN) <= set(cells):
        for block in text_blocks(file, shown, said, text_form(file, head)):
            yield _of_one(block, "uts", "artist", "track", name_of_one(asked))
    elif not line:
        raise DataError(f"{file.name} is empty; expected scrobbles")
    else:
        form = TextForm(encoding, "\t", _LINES)
        for block in text_blocks(file, shown, said, form, header=False, quotes=False):
            item = pc.binary_join_element_wise(block.table["artist"], block.table["title"], " - ")
            table = block.table.drop_columns(["artist_mbid", "track_mbid"]).append_column("item_id", item)
            table = table.set_column(1, "started_at", as_utc(table["started_at"]))
            yield Block(table, block.file, block.first_row, block.row)


def _of_one(block: Block, at: str, artist: str, title: str, user: str) -> Block:
    """A block of one listener's scrobbles with the columns of events."""
    raw = block.table
    when = raw[at]
    if at == "uts" and "utc_time" in raw.column_names:
        when = pc.coalesce(when, raw["utc_time"])
    columns = {
        "user_id": pa.array([user] * len(raw), pa.string()),
        "item_id": pc.binary_join_element_wise(raw[artist], raw[title], " - "),  # null where either is
        "started_at": as_utc(when),
        "title": raw[title],
        "artist": raw[artist],
    }
    return Block(pa.table(columns), block.file, block.first_row, block.row)


def _is_lines(cells: Sequence[str]) -> bool:
    return len(cells) == len(_LINES) and bool(_ISO_TIME.match(cells[1]))


def _is_unnamed(cells: Sequence[str]) -> bool:
    return len(cells) == len(_UNNAMED) and bool(_NAMED_TIME.match(cells[3]))


def _stats_date(cells: Sequence[str]) -> str:
    """The column of times of lastfmstats.com, "" where this is another file."""
    date = next((cell for cell in cells if cell == "Date" or cell.startswith("Date#")), "")
    return date if set(_STATS) <= set(cells) else ""


def _fits(shape: Shape) -> bool:
    names = shape.names
    return shape.form == "text" and (_is_lines(names) or _is_unnamed(names) or bool(_stats_date(names)))


KIND = Importer("lastfm", "Last.fm scrobbles", read, "text", _GHAN, fits=_fits)
