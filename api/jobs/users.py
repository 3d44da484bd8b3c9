"""User vectors as jobs: the encoder of a batch, vectors of everybody, their evaluation on an event file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.listening import Listening
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.types import ItemTable
    from recommender.features.tables import FeatureTables
    from recommender.features.usage import Usage
    from recommender.transfer.protocol import ProtocolConfig
    from recommender.transfer.whole import StudyConfig
    from recommender.users.encoder import UserEncoder
    from recommender.users.vectors import UserVectors

WEEK_S = 7 * 86_400
SNAPSHOTS = 8  # weeks that the encoder learns from, at most
LISTENERS_FILE, PLAYLISTS_FILE, ITEMS_FILE = "listeners.parquet", "playlists.parquet", "items.parquet"


def user_encoder(
    events: pa.Table,
    items: ItemTable,
    tables: FeatureTables,
    listeners: pa.Table | None,
    settings: Settings,
    stages: Stages,
) -> tuple[UserEncoder | None, dict[str, Usage]]:
    """The encoder of a batch, where the settings ask for one, and what else the events say of each listener.

    It learns from a snapshot a week and the week after each. Raises DataError where there are not two weeks.
    """
    if not settings.listener.users:
        return None, {}
    from api.jobs.listener_model import lean_torch
    from recommender.features.tables import Histories
    from recommender.users.encoder import EncoderConfig
    from recommender.users.features import UserFeatures
    from recommender.users.snapshots import Accounts, Timeline, moments, played_after

    lean_torch()
    from recommender.users.training import Lessons, train_encoder

    tick = stages.stage("Training the user encoder")
    started = events["started_at"].cast("int64").to_numpy() // 1_000_000
    until_s, weeks = int(started.max()) + 1, min(int((started.max() - started.min()) // WEEK_S), SNAPSHOTS)
    if weeks < 1:
        raise DataError("the events span less than a week; listener.users expects at least one week after another")
    accounts = Accounts.of(listeners)
    features = UserFeatures.of(items, tables, accounts.countries)
    timeline = Timeline(events, items, Histories(items, tables), accounts)
    users = sorted(set(accounts.made_at_s) | set(events["user_id"].unique().to_pylist()))
    past = moments(timeline, features, [until_s - k * WEEK_S for k in range(weeks, 0, -1)], users)
    rng = np.random.default_rng(settings.seed)
    lessons = Lessons.of(features, past, played_after(events, items, past), tables.of_all[:, 0].astype(float), rng)

    def show(done: int, total: int, loss: float) -> None:
        tick(done, total, f"loss {loss:.3f}")

    encoder = train_encoder(lessons, features, EncoderConfig(), settings.seed, show)
    timeline.until(until_s + WEEK_S)  # all that the events hold
    return encoder, {user: timeline.usage(user) for user in users}


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


_FILES = {"items": ITEMS_FILE, "playlists": PLAYLISTS_FILE, "listeners": LISTENERS_FILE}


def _table(events: Path, given: Path | None, name: str) -> pa.Table | None:
    from recommender.events.importers import tabular

    path = events.parent / name if given is None and (events.parent / name).is_file() else given
    return None if path is None or path == events else tabular.read_table(path)
