"""Logs without exploration: what reordering a page would earn follows from how often each slot is read, by enumeration.

A page of three cards in a row is always drawn alike. Every outcome stands in the log as often as it is likely: the next
card is read with probability 1/2, and a card that is read streams with its own probability.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import page_log_world as world
import pytest

from bart.ope.estimate import estimate
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.records.from_batch import logged_pages
from bart.types import Floats, PageBatch

READ = np.array([1.0, 0.5, 0.25])  # of each slot
APPEAL = np.array([0.5, 0.25, 0.75])  # of each card, by quarters
PAGES = 4 * 4**3


def enumerated(columns: int = 3, appeal: Floats = APPEAL) -> PageBatch:
    """Every outcome of a page on which card 0, 1 and, of three columns, 2 stand in this order."""
    score = np.tile([0.3, 0.2, 0.1], PAGES)
    pages = world.batch(np.random.default_rng(1), PAGES, 1, 3, 1, columns, 0.0, score=score)
    length = np.array([1, 1, 2, 3])[np.arange(PAGES) // 64]
    quarter = np.array(list(product(range(4), repeat=4)))[:, 1 : columns + 1]
    seen = np.arange(columns) < length[:, None]
    reward = (seen & (quarter < 4 * appeal[:columns])).astype(float)
    assert (pages.card[:, 0] == np.arange(columns)).all()
    heard = np.where(reward > 0, 40.0, 0.0)
    return replace(pages, seen=seen[:, None], reward=reward[:, None], listened_s=heard[:, None])


def value(pages: PageBatch, order: tuple[int, ...], name: str = "click_ips") -> tuple[float, str]:
    score = np.tile(0.3 - 0.1 * np.argsort(order), PAGES)
    found = estimate(name, logged_pages(pages, score, 0.0, 0.0), rng=np.random.default_rng(1))
    assert "without any exploration" in found.warnings[0] or order == (0, 1, 2)
    return found.value, found.verdict


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_reordering_the_cards_of_a_page_has_exactly_its_true_value(order: tuple[int, ...]) -> None:
    found, verdict = value(enumerated(), order)
    assert found == pytest.approx(float(READ @ APPEAL[list(order)]), abs=1e-12)
    assert verdict != "conclusive"


def test_where_a_place_moves_appeal_the_weights_are_wrong() -> None:
    """The assumption that fails silently: a card that earns by its place, not by itself."""
    by_place = np.array([0.75, 0.25, 0.25])  # whichever card stands there
    found, verdict = value(enumerated(appeal=by_place), (2, 1, 0))
    truth = float(READ @ by_place)
    assert abs(found - truth) > 0.1
    assert verdict != "conclusive"


def test_cards_that_never_stood_there_have_no_weight_and_the_verdict_says_so() -> None:
    pages = enumerated(columns=2)
    found, verdict = value(pages, (2, 0, 1))
    assert verdict == "unusable"
    assert found == pytest.approx(0.5 * APPEAL[0])  # of card 2, in the first slot, nothing is known


def test_where_a_part_was_left_to_chance_it_agrees_with_what_was_drawn() -> None:
    rng = np.random.default_rng(5)
    pages = world.batch(rng, 3_000, 1, 4, 1, 4, 0.4, hazards=(0.6, 0.6, 0.0, 0.0))
    found = estimate("click_ips", logged_pages(pages, -pages.score, 0.1, 0.1))
    other = estimate("exposure_ips", logged_pages(pages, -pages.score, 0.1, 0.1))
    assert abs(found.value - other.value) < found.width / 2 + other.width / 2
    assert found.verdict != "conclusive"
    own = estimate("click_ips", logged_pages(pages, pages.score, 0.4, 0.4))
    assert own.value == pytest.approx(pages.reward.sum(axis=(1, 2)).mean())
    assert own.max_weight == pytest.approx(1)


def test_the_interval_allows_for_what_is_fitted_of_reading() -> None:
    """Influences add up to what leaving out a tenth of the pages does."""
    rng = np.random.default_rng(6)
    data = logged_pages(pages := world.batch(rng, 800, 1, 4, 1, 4, 0.0), -pages.score, 0.0, 0.0)
    terms = PAGE_ESTIMATORS["click_ips"](data)
    assert terms.influence.mean() == pytest.approx(0, abs=1e-12)
    fewer = np.ones(800)
    fewer[:40] = 0
    expected = terms.value - terms.influence[:40].sum() / 760
    assert terms.refit(fewer) == pytest.approx(expected, abs=0.1 * abs(terms.influence[:40].sum() / 760) + 1e-4)
