"""Radio stations' plays: a station is a listener, its sequence of songs the order of equal times.

Columns: callsign, seq, time (unix seconds, the hour's poll, so many rows share one), song, artist, combined. Published
by FiveThirtyEight with "Why Classic Rock Isn't What It Used To Be" (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Sequence

from recommender.events.importers.contract import Asked, Importer, Rows
from recommender.events.importers.files import SourceFile
from recommender.events.importers.tabular import table_blocks
from recommender.events.table import Said

MAPPING = {
    "user_id": "callsign",
    "item_id": "combined",
    "started_at": "time",
    "order": "seq",
    "title": "song",
    "artist": "artist",
}


def read(files: Sequence[SourceFile], said: Said, _: Asked) -> Rows:
    """The plays; every station is one listener."""
    return Rows(table_blocks(files, said, tuple(MAPPING.values())), MAPPING)


KIND = Importer("station-plays", "radio stations' plays", read, "text", tuple(MAPPING.values()), close=4)
