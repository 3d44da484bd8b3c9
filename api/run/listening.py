"""Listening events as every command takes them: where they are, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.run.settings import Settings
    from recommender.events.table import LoadedEvents


@dataclass(frozen=True, slots=True)
class Listening:
    """A file, a folder or a ZIP of listening events. kind: how it is read, told by its content where it is None.
    mapping: {our column: the file's column}. user: the listener of an export of one. simulated: of another time than
    ours, so that no play lies in the future."""

    path: Path
    kind: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    simulated: bool = False

    def load(self, settings: Settings, as_codes: bool = False) -> LoadedEvents:
        """The events; as_codes: text as dictionaries. Raises DataError where the files cannot be read."""
        from recommender.events.importers import load_events
        from recommender.events.worth import Worth

        asked = settings.events
        return load_events(
            self.path,
            self.kind,
            self.mapping,
            user=self.user,
            default_tz=settings.listener.timezone,
            now_s=math.inf if self.simulated else None,
            zip_limit=asked.zip_limit_mb * 1024**2,
            worth=Worth(asked.weights, asked.rating_lowest, asked.rating_highest),
            as_codes=as_codes,
        )
