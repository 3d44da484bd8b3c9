"""Truths of the re-consumption model: it finds what governs replays, and keeps to a power law without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bart.types import ItemTable
from recommender.events.table import read_events
from recommender.shelves.items import item_table, read_items
from recommender.shelves.reconsumption import fit_replay_weights, power_law, split_last_sessions

N = 200
HOUR = 3_600


def items() -> ItemTable:
    return item_table(read_items(pa.table({"item_id": [f"t{k:03}" for k in range(N)]})).items)


def listening(rng: np.random.Generator, last: str, users: int = 150) -> pa.Table:
    """Each listener plays 30 different items in 30 sessions, ten of them four times at first; then one last session.

    last: "recent" replays five of the last ten items, "frequent" five of the most played, "new" five never played.
    """
    rows: list[tuple[str, str, int]] = []
    for u in range(users):
        known = rng.permutation(N)[:35]
        order = [*np.repeat(known[:10], 4).tolist(), *known[10:30].tolist()]
        rows += [(f"u{u}", f"t{k:03}", 10**9 + s * HOUR) for s, k in enumerate(order)]
        replayed = {"recent": known[20:30], "frequent": known[:10], "new": known[30:35]}[last]
        at = 10**9 + 1_000 * HOUR
        rows += [(f"u{u}", f"t{k:03}", at + 60 * s) for s, k in enumerate(rng.permutation(replayed)[:5].tolist())]
    user, item, at_s = zip(*rows, strict=True)
    return read_events(pa.table({"user_id": user, "item_id": item, "started_at": at_s})).events


def test_where_recent_items_come_again_recency_weighs() -> None:
    weights = fit_replay_weights(listening(np.random.default_rng(0), "recent"), items())
    assert weights.replays == 750
    row, score = weights.score(np.arange(30)[::-1], np.arange(30))  # item 29 is the most recent, 0 the favourite
    # what everybody plays of late differs by chance alone, and may part two neighbouring places
    assert len(set(row[np.argsort(-score)[:10]].tolist()) & set(range(20, 30))) >= 9


def test_where_the_most_played_come_again_frequency_weighs() -> None:
    weights = fit_replay_weights(listening(np.random.default_rng(0), "frequent"), items())
    row, score = weights.score(np.arange(30)[::-1], np.arange(30))
    assert set(row[np.argsort(-score)[:10]].tolist()) == set(range(10))


def test_one_listener_of_many_sessions_is_learnt_from_by_all_of_them_and_by_what_is_played_of_late() -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, int]] = []
    for s in range(120):  # a band: each concert twenty of thirty songs, of which every month brings others
        known = 10 * (s // 30) + np.arange(30)
        songs = rng.permutation(known)[:20].tolist()
        rows += [("band", f"t{k:03}", 10**9 + s * 24 * HOUR + 60 * n) for n, k in enumerate(songs)]
    user, item, at_s = zip(*rows, strict=True)
    events = read_events(pa.table({"user_id": user, "item_id": item, "started_at": at_s})).events
    weights = fit_replay_weights(events, items())
    assert weights.replays >= 200
    row, score = weights.score(np.arange(60)[::-1], np.arange(50))
    assert set(row[np.argsort(-score)[:30]].tolist()) == set(range(30, 60))
    assert weights.item[30:60].min() > weights.item[:30].max()


def test_items_that_came_after_the_tables_add_nothing() -> None:
    weights = replace(power_law(), item=np.array([5.0, 0.0]))
    row, score = weights.score(np.array([9]), np.array([0]))
    assert row.tolist() == [0, 9]
    assert score.tolist() == pytest.approx([weights.favourite[0] + 5, weights.recent[0]])


def test_without_replays_the_power_law_stays() -> None:
    for events in (listening(np.random.default_rng(0), "new"), listening(np.random.default_rng(0), "recent", users=3)):
        weights = fit_replay_weights(events, items())
        assert weights.replays == 0
        np.testing.assert_array_equal(weights.recent, power_law().recent)


def test_the_lists_before_the_last_session_know_nothing_of_it() -> None:
    events = listening(np.random.default_rng(0), "new", users=4)
    before, last = split_last_sessions(events)
    assert len(before) + len(last) == len(events)
    assert last["user_id"].to_pylist() == [f"u{u}" for u in range(4) for _ in range(5)]
    assert max(t.timestamp() for t in before["started_at"].to_pylist()) < 10**9 + 1_000 * HOUR


def test_an_item_in_both_lists_is_counted_in_both_and_once() -> None:
    weights = power_law()
    row, score = weights.score(np.array([7, 3]), np.array([3, 9]))
    assert row.tolist() == [3, 7, 9]
    expected = [weights.recent[1] + weights.favourite[0], weights.recent[0], weights.favourite[1]]
    assert score.tolist() == pytest.approx(expected)


def test_an_empty_history_has_no_rows() -> None:
    empty = np.empty(0, dtype=np.int64)
    assert len(power_law().score(empty, empty)[0]) == 0
