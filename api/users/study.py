"""The evaluation of user vectors on an event file and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.listening import Listening
    from api.run.progress import Stages
    from api.run.settings import Settings
    from recommender.transfer.protocol import ProtocolConfig
    from recommender.transfer.whole import StudyConfig


def evaluate_user_vectors(
    listening: Listening,
    out: Path,
    beside: Mapping[str, Path | None],
    protocol: ProtocolConfig,
    study: StudyConfig,
    settings: Settings,
    stages: Stages,
) -> str:
    """Writes users.json and tables.md into `out`; the tables.

    beside: files of items, playlists and listeners; those beside the events where they are None.
    """
    from recommender.shelves.items import items_of_events, read_items
    from recommender.transfer.protocol import prepare
    from recommender.transfer.whole import run_study, write_study

    stages.stage("Reading events")
    loaded = listening.load(settings)
    found = {name: _table(listening.path, beside.get(name), file) for name, file in _FILES.items()}
    rows = items_of_events(loaded.item_text) if found["items"] is None else read_items(found["items"]).items
    rng = np.random.default_rng(settings.seed)
    ready = prepare(loaded.events, rows, found["playlists"], found["listeners"], protocol, rng, stages.stage)
    return write_study(out, run_study(ready, study, settings.seed, protocol.seeds, stages.stage))


_FILES = {name: f"{name}.parquet" for name in ("items", "playlists", "listeners")}


def _table(events: Path, given: Path | None, name: str) -> pa.Table | None:
    from recommender.events.importers import tabular

    path = events.parent / name if given is None and (events.parent / name).is_file() else given
    return None if path is None or path == events else tabular.read_table(path)
