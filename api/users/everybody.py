"""Vectors of everybody in the batch that serves, as a file of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from recommender.users.vectors import UserVectors


def encode_listeners(root: Path, settings: Settings, stages: Stages) -> tuple[UserVectors, Path]:
    """Vectors of everybody in the batch that serves, as of now, and the file of the run that holds them."""
    from contextlib import closing

    from api.run.clock import utc_now
    from api.run.runs import RunPaths, open_run
    from api.run.versions import Versions

    tick = stages.stage("Encoding listeners")
    run = open_run(root, settings)
    with closing(run.store) as store:
        made = store.user_vectors(utc_now().timestamp())
    paths = RunPaths(Path(root))
    path = paths.user_vectors(made.batch_id)
    made.save(path)
    kept = {version.batch_id for version in Versions(paths.root).list()}
    for other in paths.user_vector_files():
        if other.stem not in kept:  # of a batch that the run holds no more
            other.unlink()
    tick(1, 1, f"{len(made):,} listeners")
    return made, path
