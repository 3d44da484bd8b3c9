"""Last.fm listening histories as tab-separated lines without a header, as in the 1K-users set.

Columns: user id, ISO time (UTC), artist id, artist, track id, track. Track ids are often blank: an item is then artist
and title, and so are all rows of that title, so that one song is not two items.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from bart.errors import DataError

COLUMNS = ("user_id", "started_at", "artist_mbid", "artist", "track_mbid", "title")


def read(path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
    """The scrobbles; a line with another number of fields is left out and counted."""
    odd: list[int] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        odd.append(row.number or 0)
        return "skip"

    try:
        table = pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(column_names=list(COLUMNS), use_threads=False),
            # quotes are ordinary characters in titles
            parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=skip),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in COLUMNS}, strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Last.fm lines: {str(error).splitlines()[0]}") from error
    item = pc.binary_join_element_wise(table["artist"], table["title"], " - ")  # null where either is
    table = table.append_column("item_id", item)
    notes = (f"{len(odd):,} lines without {len(COLUMNS)} fields left out",) if odd else ()
    return table.drop_columns(["artist_mbid", "track_mbid"]), {}, notes
