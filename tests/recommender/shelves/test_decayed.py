"""Known items are ordered by what governs their replays: how often, how lately, and what everybody plays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bart.types import ItemTable
from recommender.events.table import read_events
from recommender.features.history import History
from recommender.shelves.decayed import DecayedWeights, fit_decayed_weights
from recommender.shelves.items import item_table, read_items
from recommender.shelves.tables import ShelfTables
from recommender.shelves.tables import build_tables as build_shelf_tables
from recommender.vectors.index import build_index

DAY = 86_400
N = 120
ALL = np.ones(N, dtype=np.bool_)


def items() -> ItemTable:
    return item_table(read_items(pa.table({"item_id": [f"t{k:03}" for k in range(N)]})).items)


def events_of(rows: list[tuple[str, int, int]]) -> pa.Table:
    user, item, at_s = zip(*rows, strict=True)
    names = [f"t{k:03}" for k in item]
    return read_events(pa.table({"user_id": user, "item_id": names, "started_at": at_s})).events


def concerts(rng: np.random.Generator, window: int) -> list[tuple[str, int, int]]:
    """A band that plays, each day, ten of the songs that it has in use; every ten days the oldest of them goes."""
    return [
        ("band", int(song), 10**9 + day * DAY + 60 * n)
        for day in range(400)
        for n, song in enumerate(rng.permutation(np.arange(window) + day // 10)[:10])
    ]


def history_of(rows: list[tuple[str, int, int]]) -> History:
    _, item, at_s = (np.array(column) for column in zip(*rows, strict=True))
    return History.empty(0, 0).counted(item, np.zeros(len(item), dtype=np.bool_), at_s)


def test_songs_in_use_come_before_songs_that_were_played_more_and_are_not() -> None:
    rows = concerts(np.random.default_rng(0), window=20)
    weights = fit_decayed_weights(events_of(rows), items())
    assert weights is not None
    at_s = 10**9 + 400 * DAY
    best = weights.best(history_of(rows).arrays, at_s, 20, ALL)
    assert len(set(best.tolist()) & set(range(39, 59))) >= 18
    asked = [
        row for row in rows if row[2] < 10**9 + 60 * DAY
    ]  # nothing of the last year: the old songs alone are known
    assert set(weights.best(history_of(asked).arrays, at_s, 20, ALL).tolist()) <= set(range(25))


def test_what_everybody_plays_of_late_comes_first_where_that_is_what_is_played_again() -> None:
    """Stations, each with songs of its own in equal numbers, that replay what all of them are playing this week."""
    rng, rows = np.random.default_rng(1), []
    for week in range(12):
        hits = rng.permutation(N)[:12]
        for station in range(12):
            for day in range(7):
                songs = np.concatenate([rng.permutation(hits)[:6], rng.permutation(N)[:6]])
                at_s = 10**9 + (7 * week + day) * DAY
                rows += [(f"s{station:02}", int(song), at_s + 60 * n) for n, song in enumerate(songs)]
    weights = fit_decayed_weights(events_of(rows), items())
    assert weights is not None
    mine = history_of([row for row in rows if row[0] == "s03"])
    best = weights.best(mine.arrays, 10**9 + 84 * DAY, 12, ALL)
    assert len(set(best.tolist()) & set(hits.tolist())) >= 11


def test_what_may_not_be_offered_and_what_came_after_the_batch_is_passed_over() -> None:
    weights = DecayedWeights(np.array([1, -1, 0, 0, 0], np.float32), np.zeros(4, np.float32), 200)
    history = history_of([("u", row, 10**9 + row) for row in (0, 1, 3, 3, 9)])
    alone = np.array([True, False, True, True])
    assert weights.best(history.arrays, 10**9 + DAY, 10, alone).tolist() == [3, 0]
    assert weights.best(history.arrays, 10**9 + DAY, 1, alone).tolist() == [3]
    nothing = History.empty(0, 0).arrays
    assert len(weights.best(nothing, 10**9, 10, alone)) == 0


def test_too_few_replays_fit_nothing() -> None:
    once = [("u", k, 10**9 + k * DAY) for k in range(N)]
    assert fit_decayed_weights(events_of(once), items()) is None
    assert fit_decayed_weights(events_of(once).slice(0, 0), items()) is None


@pytest.mark.parametrize("window", [20, None])
def test_weights_are_kept_with_the_tables(window: int | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [("u", k, 10**9 + k * DAY) for k in range(N)] if window is None else concerts(rng, window)
    vector = rng.standard_normal((N, 8)).astype(np.float32)
    table = replace(items(), vector=vector / np.linalg.norm(vector, axis=1, keepdims=True))
    index = build_index(table.vector, kind="exact", rng=rng)
    tables = build_shelf_tables(table, events_of(rows), index, rng)
    tables.save(tmp_path)
    again = ShelfTables.load(tmp_path).again
    if tables.again is None:
        assert again is None
        assert window is None
    else:
        assert again is not None
        assert (again.replays, again.own.tolist()) == (tables.again.replays, tables.again.own.tolist())
        assert np.array_equal(again.item, tables.again.item)
