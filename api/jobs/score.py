"""The files of a run, scored by its own later listening."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.hosts.shared import left_out
from api.jobs.build import shelf_rules
from api.run.runs import RunPaths
from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from recommender.study.score import ScoreConfig


def score_directory(root: Path, config: ScoreConfig, settings: Settings, stages: Stages) -> dict[str, Any]:
    """What `recommender.study.score.score_run` finds of a run. Raises BundleError for what is no run, DataError for one
    without its events."""
    import pyarrow.parquet as pq

    from bart.bundle import open_bundle
    from bart.item_store import load_items
    from recommender.events.parts import read_parts
    from recommender.study.score import score_run
    from recommender.vectors.sentences import sentences_of_playlists

    paths = RunPaths(root)
    items = load_items(open_bundle(paths.bundle.resolve()).folder("items"))
    if not paths.events.exists():
        raise DataError(f"{paths.events} is missing; expected the events that bart build leaves in a run")
    playlists = None
    if paths.playlists.is_file():
        playlists = sentences_of_playlists(pq.read_table(paths.playlists), items.row_of)
    tick = stages.stage("Scoring cut dates")
    return score_run(
        left_out(paths, settings).without(read_parts(paths.events)),
        items,
        playlists,
        shelf_rules(settings),
        config,
        np.random.default_rng(settings.seed),
        lambda done, total, note: tick(done, total, note),
    )
