"""What a history counts, whatever order it is told in, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reward_world import item_table

from recommender.features.history import HALF_LIVES_D, History
from recommender.features.interests import interests_of
from recommender.features.tables import FeatureTables, Histories, Plays, build_tables

ITEMS = item_table(np.random.default_rng(0), n=60, d=8)


def plays(rng: np.random.Generator, n: int = 400, listeners: int = 5) -> Plays:
    return Plays(
        np.array([f"u{k}" for k in range(listeners)], dtype=object),
        rng.integers(0, listeners, n),
        rng.integers(0, len(ITEMS), n),
        rng.random(n) < 0.3,
        rng.integers(1_000, 9_000, n),
    )


@pytest.fixture(scope="module")
def keeps() -> Histories:
    rng = np.random.default_rng(1)
    return Histories(ITEMS, build_tables(plays(rng), len(ITEMS), rng))


def test_a_history_counts_plays_and_skips_and_the_last_play_of_each_item() -> None:
    item, skipped = np.array([7, 3, 7, 7]), np.array([False, True, True, False])
    told = History.empty(8, 4).counted(item, skipped, np.array([10, 20, 90, 30]))
    assert told.item.tolist() == [3, 7]
    assert told.plays.tolist() == [0, 2]
    assert told.skips.tolist() == [1, 1]
    assert told.last_s[1] == 30  # a skip is no play


def test_each_count_is_halved_by_its_half_life_and_by_nothing_else() -> None:
    day, item = 86_400, np.array([4, 4, 4, 4])
    at_s = day * np.array([100, 98, 70, 40])
    told = History.empty(8, 4).counted(item, np.array([False, False, False, True]), at_s)
    ages = np.array([0, 2, 30])
    expected = [(0.5 ** (ages / half_life)).sum() for half_life in HALF_LIVES_D]  # a skip is no play
    np.testing.assert_allclose(told.decayed, [expected], rtol=1e-6)
    later = told.counted(item[:1], np.array([False]), at_s[:1] + 30 * day)
    halved = [one * 0.5 ** (30 / half_life) + 1 for one, half_life in zip(expected, HALF_LIVES_D, strict=True)]
    np.testing.assert_allclose(later.decayed, [halved], rtol=1e-6)


def test_a_history_told_at_once_or_play_by_play_is_the_same_and_its_counts_to_the_last_bit(keeps: Histories) -> None:
    of = plays(np.random.default_rng(2), n=40, listeners=1)
    whole = keeps.after(None, of.item, of.skipped, of.at_s)
    one: History | None = None
    for k in range(40):
        one = keeps.after(one, of.item[k : k + 1], of.skipped[k : k + 1], of.at_s[k : k + 1])
    assert one is not None
    np.testing.assert_allclose(one.decayed, whole.decayed, rtol=1e-5)
    assert replace(one, decayed=whole.decayed).to_bytes() == whole.to_bytes()


def test_a_history_reads_back_from_its_bytes_and_no_others(keeps: Histories) -> None:
    of = plays(np.random.default_rng(3), listeners=1)
    history = keeps.after(None, of.item, of.skipped, of.at_s)
    data = history.to_bytes()
    assert History.from_bytes(data).to_bytes() == data
    for bad in (data[:-1], data + b"x", b""):
        with pytest.raises(ValueError, match="a history has"):
            History.from_bytes(bad)


def test_what_is_heard_of_a_running_session_counts_but_moves_no_interest(keeps: Histories) -> None:
    of = plays(np.random.default_rng(4), listeners=1)
    before = keeps.after(None, of.item, of.skipped, of.at_s)
    now = keeps.heard(before, np.array([5]), np.array([False]), np.array([99_999]))
    assert now.plays.sum() == before.plays.sum() + 1
    assert np.array_equal(now.interest, before.interest)
    assert np.array_equal(now.factor, before.factor)


def test_items_that_came_after_the_batch_count_and_say_nothing_of_interests() -> None:
    none = np.empty((0, 4), dtype=np.float32)
    tables = FeatureTables(none, np.empty(0, np.float32), np.empty((0, 2), np.float32), np.empty((0, 14), np.float32))
    keeps = Histories(ITEMS, tables)
    history = keeps.after(None, np.array([1, len(ITEMS) + 3]), np.zeros(2, dtype=np.bool_), np.array([5, 6]))
    assert history.item.tolist() == [1, len(ITEMS) + 3]
    assert np.array_equal(history.factor, np.zeros(4, dtype=np.float32))


def test_a_batch_of_no_plays_has_tables_that_know_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    nobody = Plays(np.empty(0, dtype=object), none, none, none.astype(np.bool_), none)
    tables = build_tables(nobody, 5, np.random.default_rng(0))
    assert not tables.factor.any()
    assert np.allclose(tables.of_all, [0.0, 0.5])
    assert Histories(ITEMS, tables).of_plays(nobody) == {}


def test_interests_are_the_directions_that_were_planted() -> None:
    rng = np.random.default_rng(6)
    true = np.linalg.qr(rng.standard_normal((8, 8)))[0][:3].astype(np.float32)
    near = np.repeat(true, 30, axis=0) + 0.05 * rng.standard_normal((90, 8)).astype(np.float32)
    vector = near / np.linalg.norm(near, axis=1, keepdims=True)
    weight = np.repeat([6.0, 3.0, 1.0], 30).astype(np.float32)
    centre, share = interests_of(vector, weight, n_interests=3)
    found = centre @ true.T
    assert (found.max(axis=1) > 0.99).all()
    assert sorted(np.argmax(found, axis=1).tolist()) == [0, 1, 2]
    assert np.allclose(np.sort(share), [0.1, 0.3, 0.6])


def test_fewer_items_than_interests_give_as_many_as_there_are_and_none_give_none() -> None:
    vector = np.eye(8, dtype=np.float32)[:2]
    centre, share = interests_of(vector, np.array([2.0, 1.0], dtype=np.float32))
    assert centre.shape == (2, 8)
    assert share.sum() == pytest.approx(1.0)
    centre, share = interests_of(np.zeros((3, 8), np.float32), np.ones(3, np.float32))
    assert centre.shape == (0, 8)
    assert share.shape == (0,)
