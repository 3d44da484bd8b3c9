"""The user encoder of a batch, trained when it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from api.background.memory import lean_torch
from bart.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.types import ItemTable
    from recommender.features.tables import FeatureTables
    from recommender.features.usage import Usage
    from recommender.users.encoder import UserEncoder

WEEK_S = 7 * 86_400
SNAPSHOTS = 8  # weeks that the encoder learns from, at most


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
