"""Vectors of everybody in a batch, as a file of the run; worked out here, in processes or on Spark, by listener."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from api.background.spread import check_engine, spread

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.runs import OpenRun
    from api.run.settings import Settings
    from recommender.users.vectors import UserVectors

SHARD = 1_000  # listeners that are encoded together


@dataclass(frozen=True, slots=True)
class Everybody:
    """What every worker is told: a run, settings as JSON, the folder of the bundle, the moment (seconds UTC)."""

    root: str
    settings: str
    folder: str
    at_s: float


def encode_listeners(
    root: Path,
    settings: Settings,
    stages: Stages,
    *,
    folder: Path | None = None,
    engine: str = "local",
    workers: int | None = 1,
    master: str | None = None,
) -> tuple[UserVectors, Path]:
    """Vectors of everybody in a batch as of now, and the file of the run that holds them.

    folder: of a bundle, by default the one that serves. engine, workers, master: as `spread`; every engine gives the
    same vectors. Raises SchemaMismatch where the batch has no user encoder, DataError for options that do not go
    together.
    """
    from api.run.clock import utc_now
    from api.run.runs import RunPaths
    from api.run.versions import Versions
    from recommender.users.vectors import UserVectors

    check_engine(engine, workers, master)
    tick = stages.stage("Encoding listeners")
    paths = RunPaths(Path(root))
    bundle = (paths.bundle if folder is None else folder).resolve()
    told = json.dumps(settings.as_dict())
    job = Everybody(str(paths.root.absolute()), told, str(bundle), utc_now().timestamp())
    run = _opened(job.root, job.settings, job.folder)
    try:
        nobody = run.store.user_vectors(job.at_s, [])
        users = run.store.user_ids()
        parts = [nobody]
        shards = [users[first : first + SHARD] for first in range(0, len(users), SHARD)]
        for found in spread(partial(encode_shard, job), shards, engine, workers, master):
            parts.append(_unpacked(found))
            tick(sum(map(len, parts)), len(users), "listeners")
        made = UserVectors.together(parts)
        path = paths.user_vectors(made.batch_id)
        made.save(path)
        # An erasure takes a listener out of the store, then out of the files: of one that was over before this file was
        # in place the store tells, any other finds the file.
        known = set(run.store.user_ids())
        still = np.fromiter((user in known for user in made.user_id), np.bool_, len(made))
        if not still.all():
            made = made.only(still)
            made.save(path)
    finally:
        run.store.close()
        _opened.cache_clear()
    kept = {made.batch_id, *(version.batch_id for version in Versions(paths.root).list())}  # a draft is not in the list
    for other in paths.user_vector_files():
        if other.stem not in kept:  # of a batch that the run holds no more
            other.unlink()
    tick(1, 1, f"{len(made):,} listeners")
    return made, path


def encode_batch(root: Path, settings: Settings, stages: Stages, folder: Path) -> list[str]:
    """Encodes everybody in the bundle of a batch that does not serve yet, where it has a user encoder; what is told."""
    from recommender.users.encoder import FILE

    if not (folder / "listener" / FILE).is_file():
        return []
    made, _ = encode_listeners(root, settings, stages, folder=folder)
    return [f"{len(made):,} listeners have vectors in it"]


def encode_shard(job: Everybody, users: Sequence[str]) -> bytes:
    """Vectors of some listeners, as an Arrow stream."""
    import pyarrow as pa

    run = _opened(job.root, job.settings, job.folder)
    table = run.store.user_vectors(job.at_s, users).table()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpacked(data: bytes) -> UserVectors:
    import pyarrow as pa

    from recommender.users.vectors import UserVectors

    with pa.ipc.open_stream(data) as stream:
        return UserVectors.of_table(stream.read_all())


@lru_cache(maxsize=1)
def _opened(root: str, settings: str, folder: str) -> OpenRun:
    """The run with a bundle; opened once a process."""
    from api.run.runs import open_run
    from api.run.settings import Settings

    return open_run(root, Settings.of(json.loads(settings)), folder=Path(folder))
