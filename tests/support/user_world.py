"""Listeners, items and features of the smallest listening data, for the tests of user vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
from synthetic_listening import synthetic_listening

from bart.types import ItemTable, Labels
from recommender.features.tables import FeatureTables, Histories, Plays, build_tables
from recommender.shelves.items import complete, item_table, read_items
from recommender.users.features import UserFeatures
from recommender.users.snapshots import Accounts, Timeline

DAY_S = 86_400


@dataclass(frozen=True)
class UserWorld:
    """events: the table; the last play begins before end_s."""

    events: pa.Table
    items: ItemTable
    tables: FeatureTables
    accounts: Accounts
    end_s: int

    @property
    def features(self) -> UserFeatures:
        return UserFeatures.of(self.items, self.tables, self.accounts.countries)

    def timeline(self, events: pa.Table | None = None) -> Timeline:
        histories = Histories(self.items, self.tables)
        return Timeline(self.events if events is None else events, self.items, histories, self.accounts)


def user_world(seed: int = 0, users: int = 24, days: int = 30, items: int = 200, drift: float = 0.3) -> UserWorld:
    """Accounts are made a day before the first play; every third one has no picks, every fourth no country."""
    rng = np.random.default_rng(seed)
    made = synthetic_listening(rng, users=users, days=days, items=items, dimension=8, drift=drift)
    names = pa.table({"item_id": list(made.item_id), "artist": [f"a{k % 20}" for k in range(items)],
                      "genres": [[f"g{k % 5}"] for k in range(items)]})  # fmt: skip
    rows = complete(read_items(names).items, made.events)
    place = {item: k for k, item in enumerate(made.item_id)}
    vector = made.vector[[place[item] for item in rows["item_id"].to_pylist()]]
    table = replace(item_table(rows, vector), countries=Labels.of([()] * items))
    at_s = made.events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    start = datetime.fromtimestamp(int(at_s.min()) - DAY_S, tz=timezone.utc)
    ids = sorted(set(made.events["user_id"].to_pylist()))
    first = {user: made.events.filter(pa.array(np.array(made.events["user_id"].to_pylist()) == user)) for user in ids}
    accounts = pa.table(
        {
            "user_id": ids,
            "joined_at": pa.array([start] * len(ids), pa.timestamp("us", "UTC")),
            "country": ["SE" if k % 4 == 1 else "BR" if k % 4 else None for k in range(len(ids))],
            "onboarding": [first[user]["item_id"].to_pylist()[:3] if k % 3 else [] for k, user in enumerate(ids)],
        }
    )
    tables = build_tables(Plays.of(made.events, table), len(table), rng)
    return UserWorld(made.events, table, tables, Accounts.of(accounts), int(at_s.max()) + 1)
