"""What another policy would have earned on pages with pins, with shelves that share items, or of a policy of its own.

A card's reward depends on the card and on how much of the page stands above it alone, so that importance weights are
unbiased; the truth is the mean over pages of the other policy.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from bart.log.outcomes.pages import pages_of
from bart.log.record.feedback import FeedbackEvent
from bart.ope.estimate import estimate
from bart.ope.exposure.doubly_robust import fit_exposure
from bart.ope.records.from_batch import logged_pages
from bart.ope.weights.pages import cascade_weight, marginal_propensity, marginal_weight, page_propensity
from bart.page.batch import batch_propensity
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy, PlackettLuce
from bart.types import Candidates, Context, Decision, ItemTable, Labels, ListenerTraits, PageBatch, Shelf

AT = datetime(2026, 3, 1, tzinfo=timezone.utc)
SHELVES, CARDS, ROWS, COLUMNS = 3, 4, 2, 3
N = SHELVES * CARDS
PINS = ((0, 1, N), (1, 0, N + 1))
APPEAL = np.random.default_rng(0).random(N + 2)
SCORE = np.append(np.random.default_rng(1).random(N), [0.0, 0.0])
OTHER = np.append(np.random.default_rng(2).random(N), [0.0, 0.0])


def candidates(kind: str) -> Candidates:
    shelf = np.append(np.repeat(np.arange(SHELVES), CARDS), [-1, -1])
    item = np.arange(N + 2)
    if kind == "overlap":  # the first card of each shelf is the last of the one before
        item[CARDS - 1 : N : CARDS] = np.roll(item[0:N:CARDS], -1)
    return Candidates(item, shelf, tuple(Shelf("rule", str(s)) for s in range(SHELVES)))


def items() -> ItemTable:
    n = N + 2
    return ItemTable(
        item_id=np.array([f"i{i}" for i in range(n)], dtype=object),
        title=np.array([f"i{i}" for i in range(n)], dtype=object),
        type=np.zeros(n, dtype=np.int8),
        artists=Labels.of([()] * n),
        genres=Labels.of([()] * n),
        released_at=np.full(n, "NaT", dtype="datetime64[D]"),
        countries=Labels.of([()] * n),
        explicit=np.zeros(n, dtype=bool),
        popularity=np.zeros(n),
        duration_s=np.full(n, np.nan),
        vector=np.zeros((n, 2), dtype=np.float32),
    )


def log(kind: str, policy: PagePolicy, score: np.ndarray, pages: int, seed: int) -> PageBatch:
    rng = np.random.default_rng(seed)
    among, pins = candidates(kind), PINS if kind == "pins" else ()
    decisions, feedback = [], []
    for i in range(pages):
        page = policy.decide(among, score, ROWS, COLUMNS, rng, pins=pins)
        decisions.append(
            Decision(
                request_id=f"r{i}",
                user_id=f"u{i}",
                context=Context(AT),
                traits=ListenerTraits(),
                listener=np.zeros(2, dtype=np.float32),
                batch_id="b",
                policy="epsilon_greedy",
                shelf_epsilon=np.full(ROWS, 0.5),
                card_epsilon=np.array([0.5, 0.3, 0.7]),
                rules_version="",
                seed=0,
                shelves=among.shelves,
                item_id=np.array([f"i{j}" for j in among.item], dtype=object),
                shelf=among.shelf,
                raw_score=score,
                score=score,
                page=page,
            )
        )
        events = [FeedbackEvent("page", AT, displayed=True)]
        for row, column in np.argwhere(page.card >= 0).tolist():
            heard = 60.0 * (rng.random() < APPEAL[among.item[page.card[row, column]]])
            events.append(FeedbackEvent(f"{row} {column}", AT, row, column, True, True, heard))
        feedback.append(events)
    return pages_of(decisions, {d.request_id: e for d, e in zip(decisions, feedback, strict=True)}, items())


def greedy() -> PagePolicy:
    return PagePolicy(EpsilonGreedy(np.full(ROWS, 0.5)), EpsilonGreedy(np.array([0.5, 0.3, 0.7])))


def logging(kind: str) -> PagePolicy:
    return PagePolicy(PlackettLuce(1.0), PlackettLuce(1.0)) if kind == "own" else greedy()


TARGET = PagePolicy(EpsilonGreedy(0.6), EpsilonGreedy(0.6))


@pytest.mark.parametrize("kind", ["pins", "overlap", "own"])
@pytest.mark.parametrize("name", ["independent_ips", "cascade_ips"])
def test_another_policy_is_evaluated_without_bias(kind: str, name: str) -> None:
    batch = log(kind, logging(kind), SCORE, 3_000, 5)
    data = logged_pages(batch, np.tile(OTHER, 3_000), 0.6, 0.6)
    assert len(data) == 3_000
    truth = np.where((there := log(kind, TARGET, OTHER, 2_000, 6)).seen, there.reward, 0.0).sum(axis=(1, 2))
    found = estimate(name, data)
    error = np.hypot((found.upper - found.lower) / 4, truth.std() / np.sqrt(len(truth)))
    assert abs(found.value - truth.mean()) < 3.5 * error
    weight = (cascade_weight if name == "cascade_ips" else marginal_weight)(data)
    for slot in np.ndindex(ROWS, COLUMNS):
        at = (slice(None), *slot)
        there = weight[at][data.order[at] >= 0]
        if len(there) == len(data):  # rows may end early where items are shared or pins take their place
            assert abs(there.mean() - 1) < 4 * there.std() / np.sqrt(len(there))
    if kind != "pins":
        assert found.verdict != "conclusive"
        assert any("exact" in warning for warning in found.warnings)


@pytest.mark.parametrize("kind", ["pins", "overlap", "own"])
def test_conditional_propensities_of_drawn_slots_are_those_of_the_page_policy(kind: str) -> None:
    batch = log(kind, logging(kind), SCORE, 200, 7)
    data = logged_pages(batch, np.tile(OTHER, 200), 0.2, np.array([0.2, 0.4, 0.1]))
    shelf, card = page_propensity(data, "target")
    expected_shelf, expected = batch_propensity(batch, np.tile(OTHER, 200), 0.2, np.array([0.2, 0.4, 0.1]))
    assert shelf == pytest.approx(expected_shelf, abs=1e-12)
    drawn = (batch.card >= 0) & ~batch.pinned
    assert card[data.order >= 0] == pytest.approx(expected[drawn], abs=1e-12)
    shelf, card = page_propensity(data, "logged")
    assert card[data.order >= 0] == pytest.approx(batch.card_propensity[drawn], abs=1e-12)


def test_marginals_beside_pins_are_the_shares_of_drawn_pages() -> None:
    batch = log("pins", greedy(), SCORE, 4_000, 8)
    data = logged_pages(batch, np.tile(SCORE, 4_000), batch.shelf_epsilon, batch.card_epsilon)
    expected = marginal_propensity(data, "logged")
    card = data.order[:, 0, 1]  # the second draw of the first row stands in the third column
    for k in range(N):
        here = card == k
        if here.sum() < 50:
            continue
        share = here.mean()
        assert expected[here, 0, 1][0] == pytest.approx(share, abs=4 * np.sqrt(share / 4_000))
    assert (data.column[:, 0, 1] == 2).all()


def test_what_pins_earned_is_part_of_the_value() -> None:
    batch = log("pins", greedy(), SCORE, 300, 9)
    data = logged_pages(batch, np.tile(OTHER, 300), 0.2, 0.2)
    by_pins = np.where(batch.pinned & batch.seen, batch.reward, 0.0).sum(axis=(1, 2))
    assert data.pinned_reward == pytest.approx(by_pins)
    nothing = logged_pages(
        replace(batch, reward=np.where(batch.pinned, 0.0, batch.reward)), np.tile(OTHER, 300), 0.2, 0.2
    )
    for name in ("independent_ips", "sn_independent_ips", "exposure_dr", "dm", "cascade_dr", "slate_ips"):
        gap = (
            estimate(name, data, rng=np.random.default_rng(1)).value
            - estimate(name, nothing, rng=np.random.default_rng(1)).value
        )
        assert gap == pytest.approx(by_pins.mean(), abs=1e-9), name


def test_the_weight_of_an_overlapping_page_is_that_of_its_choices() -> None:
    batch = log("overlap", greedy(), SCORE, 100, 10)
    data = logged_pages(batch, np.tile(OTHER, 100), 0.2, 0.2)
    shelf, card = batch_propensity(batch, np.tile(OTHER, 100), 0.2, 0.2)
    last = cascade_weight(data)[:, 1, 2]
    whole = np.nanprod(shelf / batch.shelf_propensity, axis=1) * np.nanprod(card / batch.card_propensity, axis=(1, 2))
    full = data.order[:, 1, 2] >= 0
    assert last[full] == pytest.approx(whole[full])


def test_pages_without_any_chance_are_conclusive_of_no_other_policy() -> None:
    fixed = PagePolicy(EpsilonGreedy(0.0), EpsilonGreedy(0.0))
    batch = log("plain", fixed, SCORE, 100, 11)
    zero = replace(batch, shelf_epsilon=np.zeros((100, ROWS)), card_epsilon=np.zeros((100, COLUMNS)))
    other = logged_pages(zero, np.tile(OTHER, 100), 0.0, 0.0)
    assert other.cautions[0].startswith("100 of 100 pages were drawn without any exploration")
    assert logged_pages(zero, np.tile(SCORE, 100), 0.1, 0.1).cautions
    assert logged_pages(zero, np.tile(SCORE, 100), 0.0, 0.0).cautions == ()


def test_the_logging_policy_is_itself_where_pages_without_exploration_share_cards() -> None:
    # The best of the first shelf is the best of the second, too, whose last card then takes its place.
    score = np.array([0.9, 0.8, 0.7, 0.95, 0.85, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0, 0.0])
    fixed = log("overlap", PagePolicy(EpsilonGreedy(0.0), EpsilonGreedy(0.0)), score, 60, 12)
    fixed = replace(fixed, shelf_epsilon=np.zeros((60, ROWS)), card_epsilon=np.zeros((60, COLUMNS)))
    batch = PageBatch.concat([log("overlap", greedy(), score, 140, 13), fixed])
    data = logged_pages(batch, batch.score, batch.shelf_epsilon, batch.card_epsilon)
    without = fit_exposure(data).terms.logged.card == 0  # marginals do not know that another shelf took a card
    assert 0 < without.sum() < len(without)
    for name, parameters in (("exposure_dr", {"reach": "mean_field"}), ("exposure_dr", {"reach": "conditioned"})):
        found = estimate(name, data, **parameters)
        assert found.value == pytest.approx(data.page_reward.mean(), rel=1e-12)
        assert found.max_weight == pytest.approx(1.0, abs=1e-12)
    other = logged_pages(batch, np.tile(OTHER, 200), 0.2, 0.2)
    fit = fit_exposure(other)
    seen = fit.summary.seen
    expected = cascade_weight(other)[seen.page, seen.row, seen.column]
    assert np.array_equal(fit.terms.plain[without], expected[without])
