"""Listening events from the formats that people have them in.

`IMPORTERS` is the table: one file and one line each. An importer turns a path into an Arrow table with our column names
(or maps its columns to them); `recommender.events.table.read_events` does the rest, the checks included, the same for
all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from bart.errors import DataError
from recommender.events.importers import kuairand, lastfm, listenbrainz, spotify, station_plays, tabular
from recommender.events.table import LoadedEvents, Volume, read_events


class Importer(Protocol):
    def __call__(self, path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
        """The table, {our column: its column}, and notes on what was left out."""
        ...


IMPORTERS: dict[str, Importer] = {
    "table": tabular.read,
    "spotify": spotify.read,
    "lastfm": lastfm.read,
    "listenbrainz": listenbrainz.read,
    "kuairand": kuairand.read,
    "station-plays": station_plays.read,
}


def load_events(
    path: Path,
    kind: str = "table",
    mapping: Mapping[str, str] | None = None,
    *,
    default_tz: str | None = None,
    volume: Volume | None = None,
) -> LoadedEvents:
    """The events of a file or folder.

    kind: a name in `IMPORTERS`. mapping: {our column: the file's column}, over the importer's own. default_tz: IANA
    zone where the file says none. Raises DataError for an unknown kind, a missing or unreadable file, missing columns.
    """
    if kind not in IMPORTERS:
        raise DataError(f"kind is {kind!r}; expected one of {', '.join(IMPORTERS)}")
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a file or folder of events")
    table, own, notes = IMPORTERS[kind](path)
    return read_events(table, {**own, **(mapping or {})}, default_tz=default_tz, volume=volume, notes=notes)
