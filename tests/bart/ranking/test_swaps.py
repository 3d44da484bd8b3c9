"""Neighbours exchanged now and then: every order that can come of it, from the definition, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest

from bart.page.policy import PagePolicy
from bart.page.search import search_page
from bart.ranking.swaps import Swaps
from bart.types import Candidates, Floats, Page, Shelf

RATES = [0.0, 0.3, 1.0, (0.0, 0.0, 0.4, 0.7, 0.2, 0.5)]
SCORES = [np.array([0.3, 0.9, -0.2, 0.7, 0.1, 0.5]), np.array([0.5, 0.5, 0.2, 0.2, 0.9, 0.9]), np.zeros(6)]


def exchanged(n: int, rate: tuple[float, ...], at: int = 0) -> Iterator[tuple[list[int], float]]:
    """Every order of places from `at` on and its probability: a place is exchanged with the next or it is not."""
    if at >= n:
        yield [], 1.0
        return
    swap = rate[at] if at + 1 < n else 0.0
    for rest, p in exchanged(n, rate, at + 1):
        yield [at, *rest], (1 - swap) * p
    if swap:
        for rest, p in exchanged(n, rate, at + 2):
            yield [at + 1, at, *rest], swap * p


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("number", range(len(SCORES)))
def test_propensities_and_marginals_equal_full_enumeration(rate: float | tuple[float, ...], number: int) -> None:
    policy = Swaps(rate)
    rates = rate if isinstance(rate, tuple) else (rate,) * 6
    for n in range(1, 7):
        score = SCORES[number][:n]
        by_score = np.argsort(-score, kind="stable")
        joint: dict[tuple[int, ...], float] = {}
        for places, p in exchanged(n, rates):
            order = tuple(by_score[places].tolist())
            joint[order] = joint.get(order, 0.0) + p
        assert sum(joint.values()) == pytest.approx(1.0, abs=1e-12)
        for k in range(1, n + 1):
            heads: dict[tuple[int, ...], float] = {}
            marginal = np.zeros((n, k))
            for order, p in joint.items():
                heads[order[:k]] = heads.get(order[:k], 0.0) + p
                marginal[list(order[:k]), range(k)] += p
            np.testing.assert_allclose(policy.marginal(score, k), marginal, rtol=0, atol=1e-12)
            for order in permutations(range(n), k):
                found = policy.propensity(score, np.array(order)).prod()
                assert found == pytest.approx(heads.get(order, 0.0), abs=1e-12)


def test_nothing_moves_by_more_than_a_place_and_the_first_two_never() -> None:
    score = np.random.default_rng(0).normal(size=12)
    by_score = np.argsort(-score)
    policy = Swaps((0.0, 0.0, *(0.5,) * 10))
    moved = 0
    for seed in range(200):
        order = policy.rank(score, 12, np.random.default_rng(seed)).order
        assert (order[:2] == by_score[:2]).all()
        place = np.argsort(by_score)[order]
        assert np.abs(place - np.arange(12)).max() <= 1
        moved += int((place != np.arange(12)).sum())
    assert moved > 400


def results(n: int) -> tuple[Candidates, Floats]:
    """A list of results and their scores."""
    score = np.random.default_rng(n).random(n)
    return Candidates(np.arange(n), np.zeros(n, dtype=np.int64), (Shelf("search=1", "Results"),)), score


def test_a_page_of_results_is_drawn_and_recomputed_to_the_last_bit() -> None:
    candidates, score = results(9)
    rates = np.array([0.0, 0.0, *(0.6,) * 5])
    policy: PagePolicy = search_page(np.zeros(1), rates)
    frequency: dict[tuple[int, ...], int] = {}
    probability: dict[tuple[int, ...], float] = {}
    for seed in range(4000):
        page: Page = policy.decide(candidates, score, 1, 7, np.random.default_rng(seed))
        shelf, card = policy.propensity(candidates, score, page)
        np.testing.assert_array_equal(shelf, page.shelf_propensity)
        np.testing.assert_array_equal(card, page.card_propensity)
        order = tuple(page.card[0].tolist())
        frequency[order] = frequency.get(order, 0) + 1
        probability[order] = page.propensity
        np.testing.assert_array_equal(Swaps(tuple(rates)).propensity(score, np.array(order)), card[0])
    # Every order of 7 places of 9, those by exchanges of neighbours from the third on.
    assert sum(probability.values()) == pytest.approx(1.0, abs=1e-12)
    for order, p in probability.items():
        assert abs(frequency[order] / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000)
