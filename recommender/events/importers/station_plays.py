"""Radio stations' plays: a station is a listener, its sequence of songs the order of equal times.

Columns: callsign, seq, time (unix seconds, the hour's poll, so many rows share one), song, artist, combined. Published
by FiveThirtyEight with "Why Classic Rock Isn't What It Used To Be" (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from recommender.events.importers.tabular import read_table

MAPPING = {
    "user_id": "callsign",
    "item_id": "combined",
    "started_at": "time",
    "order": "seq",
    "title": "song",
    "artist": "artist",
}


def read(path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
    """The plays; every station is one listener."""
    return read_table(path), MAPPING, ()
