"""Batched rankings are the single ones, group by group."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bart.ranking import (
    EpsilonGreedy,
    batch_rank,
    conditional_propensity,
    marginal_of_rank,
    min_rank,
    propensity_of_rank,
)
from bart.types import Floats, Ints

K = 4


def ragged(seed: int, groups: int = 30, largest: int = 9) -> tuple[Floats, Ints]:
    """Scores with many ties in groups of 0 to `largest`."""
    rng = np.random.default_rng(seed)
    offset = np.concatenate([[0], np.cumsum(rng.integers(0, largest + 1, size=groups))])
    return rng.integers(0, 5, size=offset[-1]).astype(np.float64), offset


def random_orders(offset: Ints, rng: np.random.Generator) -> Ints:
    order = np.full((len(offset) - 1, K), -1)
    for g, n in enumerate(np.diff(offset)):
        drawn = rng.permutation(n)[:K]
        order[g, : len(drawn)] = drawn
    return order


@pytest.mark.parametrize("largest", [9, 250])
def test_ranks_count_what_is_strictly_above_and_ties_what_is_the_same(largest: int) -> None:
    score, offset = ragged(0, largest=largest)
    rank, tie = min_rank(score, offset)
    for start, stop in pairwise(offset.tolist()):
        for i in range(start, stop):
            assert rank[i] == (score[start:stop] > score[i]).sum()
            assert tie[i] == (score[start:stop] == score[i]).sum()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 1.0, "position", "group"]))
def test_batched_propensities_are_the_single_ones_to_the_last_bit(seed: int, kind: float | str) -> None:
    score, offset = ragged(seed, groups=8)
    rng = np.random.default_rng(seed + 1)
    order = random_orders(offset, rng)
    epsilon: float | Floats
    if kind == "group":
        epsilon = rng.random((len(order), K))
    else:
        epsilon = rng.random(K) if kind == "position" else float(kind)
    found = conditional_propensity(score, offset, order, epsilon)
    rank, tie = min_rank(score, offset)
    place = np.minimum(offset[:-1, None] + np.maximum(order, 0), max(len(score) - 1, 0))
    by_rank = propensity_of_rank(
        np.where(order >= 0, rank[place], -1), np.where(order >= 0, tie[place], 1), np.diff(offset), epsilon
    )
    np.testing.assert_array_equal(by_rank, found)
    for g in range(len(order)):
        shown = order[g][order[g] >= 0]
        rates = np.broadcast_to(epsilon, order.shape)[g]
        policy = EpsilonGreedy(rates)
        group = score[offset[g] : offset[g + 1]]
        available = np.ones(len(group), dtype=np.bool_)
        for t, action in enumerate(shown):
            assert found[g, t] == policy.pmf(group, available)[action]
            available[action] = False
        assert np.isnan(found[g, len(shown) :]).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_batched_draws_are_the_single_ones_from_the_same_stream(epsilon: float) -> None:
    score, offset = ragged(3, groups=200)
    order, propensity = batch_rank(score, offset, K, epsilon, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    for g in range(len(order)):
        one = EpsilonGreedy(epsilon).rank(score[offset[g] : offset[g + 1]], K, rng)
        assert order[g][order[g] >= 0].tolist() == one.order.tolist()
        np.testing.assert_array_equal(propensity[g][order[g] >= 0], one.propensity)


def test_chunks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    score, offset = ragged(5, groups=50)
    epsilon = np.random.default_rng(6).random((50, K))
    whole = batch_rank(score, offset, K, epsilon, np.random.default_rng(7))
    monkeypatch.setattr("bart.ranking.batch.CHUNK", 7)
    parts = batch_rank(score, offset, K, epsilon, np.random.default_rng(7))
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


@pytest.mark.parametrize("kind", ["number", "position", "group"])
def test_marginals_from_shared_tables_are_the_single_ones(kind: str) -> None:
    score, offset = ragged(8)
    rng = np.random.default_rng(9)
    groups = len(offset) - 1
    epsilon: float | Floats = 0.3
    if kind != "number":
        epsilon = rng.random(K) if kind == "position" else rng.choice([0.1, 0.4], size=(groups, 1)) * np.ones(K)
    rank, tie = min_rank(score, offset)
    found = marginal_of_rank(rank, tie, offset, K, epsilon)
    for g in range(groups):
        part = slice(offset[g], offset[g + 1])
        expected = EpsilonGreedy(np.broadcast_to(epsilon, (groups, K))[g]).marginal(score[part], K)
        np.testing.assert_allclose(found[part], expected, rtol=0, atol=1e-14)


def test_an_empty_log_gives_empty_answers() -> None:
    none, offset = np.empty(0), np.zeros(1, dtype=np.int64)
    assert len(min_rank(none, offset)[0]) == 0
    assert conditional_propensity(none, offset, np.empty((0, K), dtype=np.int64), 0.2).shape == (0, K)
    assert batch_rank(none, offset, K, 0.2, np.random.default_rng(0))[0].shape == (0, K)
    assert marginal_of_rank(offset[:0], offset[:0], offset, K, 0.2).shape == (0, K)


def test_read_only_arrays_and_other_widths_are_taken() -> None:
    score, offset = ragged(10)
    order = random_orders(offset, np.random.default_rng(11))
    expected = conditional_propensity(score, offset, order, 0.2)
    for array in (score, offset, order):
        array.flags.writeable = False
    np.testing.assert_array_equal(conditional_propensity(score, offset, order, 0.2), expected)
    narrow = conditional_propensity(
        score.astype(np.float32),  # type: ignore[arg-type]
        offset.astype(np.int32),  # type: ignore[arg-type]
        order.astype(np.int32),  # type: ignore[arg-type]
        0.2,
    )
    np.testing.assert_array_equal(narrow, expected)


def test_bad_logs_are_refused_by_place() -> None:
    score, offset = np.arange(5.0), np.array([0, 2, 5])
    good = np.array([[0, 1], [2, 0]])
    for bad, where in (
        ([[0, 2], [2, 0]], r"order\[0, 1\] is 2; expected an action in \[0, 2\)"),
        ([[0, 1], [1, 1]], r"order\[1, 1\] is 1; expected an action in \[0, 3\) not taken before"),
        ([[-1, 1], [1, 0]], r"order\[0, 1\] is 1"),
        ([[0, -2], [1, 0]], r"order\[0, 1\] is -2"),
    ):
        with pytest.raises(ValueError, match=where):
            conditional_propensity(score, offset, np.array(bad), 0.2)
    with pytest.raises(ValueError, match=r"order has shape \(1, 2\); expected \(2, k\)"):
        conditional_propensity(score, offset, good[:1], 0.2)
    with pytest.raises(ValueError, match=r"score\[4\] is nan"):
        conditional_propensity(np.array([0, 1, 2, 3, np.nan]), offset, good, 0.2)
    with pytest.raises(ValueError, match="offset of shape .* must run from 0 to 5"):
        conditional_propensity(score, offset[:2], good, 0.2)
    with pytest.raises(ValueError, match=r"offset\[2\] is 1; expected at least offset\[1\] = 3"):
        min_rank(score, np.array([0, 3, 1, 5]))
    with pytest.raises(ValueError, match=r"epsilon\[1, 0\] is 1.5; expected a number in \[0, 1\]"):
        conditional_propensity(score, offset, good, np.array([[0.1, 0.2], [1.5, 0.1]]))
    with pytest.raises(ValueError, match="epsilon has shape"):
        conditional_propensity(score, offset, good, np.full((3, 2), 0.1))
    with pytest.raises(ValueError, match="epsilon has shape"):
        batch_rank(score, offset, 3, np.full(2, 0.1), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"n\[0\] is too small for 2 positions"):
        propensity_of_rank(np.array([[0, 1]]), np.array([[1, 1]]), np.array([1]), 0.2)
