"""Exposures and exposure_dr: against enumeration, recovery of how listeners read, and what the gates say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest
from scipy.stats import norm

from bart.ope import estimate
from bart.ope.estimators.page_estimate import estimate_with_spread
from bart.ope.exposure.conditioned import conditioned_exposure
from bart.ope.exposure.doubly_robust import fit_exposure, left_by_cap, refit
from bart.ope.exposure.draws import corrected, drawn_exposure, reach_gaps
from bart.ope.exposure.exposure import NARROW, WIDE, appeal_at, exposure, summarise
from bart.ope.exposure.influence import influence
from bart.ope.intervals.pages import PageSetting, student
from bart.ope.models.appeal import fit_appeal, logit
from bart.ope.models.browsing import Browsing, hazards, in_scanning_order, position_trust, seen_cards, transitions
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import PAGE_GATES, ExposureDiagnostics, judge_cap, judge_exposure, judge_reach
from bart.types import Floats

LOGGED = np.array([0.9, 0.5, 0.1, 0.8, 0.8, 0.2])
TARGET = np.array([0.2, 0.7, 0.4, 0.3, 0.9, 0.6])
APPEAL = np.array([0.5, 0.2, 0.35, 0.1, 0.4, 0.25])
ROW, COLUMN = np.array([1.0, 0.9]), np.array([1.0, 0.8])


def browsing(hc0: float, hc1: float, hr0: float, hr1: float) -> Browsing:
    return Browsing(0.95, (hc0, hc1), (hr0, hr1), COLUMN, ROW)


def exact(tiny, how: Browsing, probability: Floats) -> tuple[Floats, float]:
    """Exposure of each card and value of the policy, by going through all pages and all ways of reading them."""
    p = tiny.shown() * ROW[:, None] * COLUMN
    hc, hr = how.column_hazard, how.row_hazard
    second = (1 - p[:, :, 0]) * hc[0] + p[:, :, 0] * hc[1]  # [72, rows] reaches the second column
    quiet = (1 - p[:, :, 0]) * (hc[0] * (1 - p[:, :, 1]) + 1 - hc[0])  # row ends without a stream
    first = np.full(len(p), how.start)
    reach_row = np.stack([first, first * (quiet[:, 0] * hr[0] + (1 - quiet[:, 0]) * hr[1])], axis=1)
    reach = np.stack([reach_row, reach_row * second], axis=2)
    weighted = probability[:, None, None] * reach * ROW[:, None] * COLUMN
    cards = np.zeros(6)
    np.add.at(cards, tiny.pages.order, weighted)
    return cards, float((weighted * tiny.shown()).sum())


def card_exposure(tiny, how: Browsing, policy: int) -> tuple[Floats, float]:
    summary = summarise(tiny.pages, np.tile(logit(APPEAL), 72))
    found = exposure(summary, how, 0.0, policy)
    cards = np.zeros(6)
    cards[tiny.pages.order.reshape(-1)] = found.card
    return cards, float(found.reward[0])


@pytest.mark.parametrize("policy", [0, 1])
def test_exposure_is_exact_where_going_on_does_not_depend_on_streams(policy: int) -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    how = browsing(0.7, 0.7, 0.6, 0.6)
    cards, value = exact(tiny, how, (tiny.logged, tiny.target)[policy])
    found_cards, found_value = card_exposure(tiny, how, policy)
    assert found_cards == pytest.approx(cards, rel=1e-12)
    assert found_value == pytest.approx(value, rel=1e-6)  # appeal is interpolated between levels


def test_the_mean_field_bias_is_small_for_weak_dependence_and_grows_with_it() -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    gaps = []
    for how in (browsing(0.7, 0.7, 0.6, 0.6), browsing(0.75, 0.65, 0.65, 0.55), browsing(0.9, 0.0, 0.9, 0.0)):
        cards, value = exact(tiny, how, tiny.logged)
        found_cards, found_value = card_exposure(tiny, how, 0)
        gaps.append((np.abs(found_cards / cards - 1).max(), abs(found_value / value - 1)))
    (none_card, none), (weak_card, weak), (strong_card, strong) = gaps
    assert none_card < 1e-12
    assert none < 1e-6
    assert weak < 0.004
    assert weak_card < 0.05
    assert 0.002 < strong < 0.06
    assert strong_card > weak_card


@pytest.mark.parametrize("policy", [0, 1])
def test_drawn_exposure_is_right_where_rows_end_at_a_stream(policy: int) -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    how = browsing(0.9, 0.0, 0.9, 0.0)
    cards, value = exact(tiny, how, (tiny.logged, tiny.target)[policy])
    found = drawn_exposure(
        tiny.pages,
        np.arange(72),
        np.tile(logit(APPEAL), 72),
        how,
        0.0,
        ("logged", "target")[policy],
        400,
        np.random.default_rng(1),
    )
    by_card = np.zeros((72, 6))
    np.put_along_axis(by_card, tiny.pages.order.reshape(72, 4), found.card.reshape(72, 4), axis=1)
    shown = by_card > 0
    mean = by_card.sum(axis=0) / shown.sum(axis=0)
    error = np.array([by_card[shown[:, k], k].std() / np.sqrt(shown[:, k].sum()) for k in range(6)])
    assert np.all(np.abs(mean - cards) < 4 * error + 1e-12)
    assert abs(found.reward.mean() - value) < 4 * found.reward.std() / np.sqrt(72)
    assert found.total.mean() == pytest.approx(cards.sum(), rel=0.01)


@pytest.mark.parametrize("policy", [0, 1])
def test_exposure_conditioned_on_the_card_is_closer_to_the_truth_than_the_mean_field(policy: int) -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    for hazard in ((0.75, 0.65, 0.65, 0.55), (0.9, 0.5, 0.9, 0.5), (0.9, 0.0, 0.9, 0.9), (0.9, 0.0, 0.9, 0.0)):
        how = browsing(*hazard)
        cards, value = exact(tiny, how, (tiny.logged, tiny.target)[policy])
        plain_cards, plain_value = card_exposure(tiny, how, policy)
        score = np.tile(logit(APPEAL), 72)
        found = conditioned_exposure(tiny.pages, np.arange(72), score, how, 0.0, ("logged", "target")[policy])
        by_card = np.zeros(6)
        by_card[tiny.pages.order.reshape(-1)] = found.card
        assert np.abs(by_card / cards - 1).max() < (0.5, 0.85)[policy] * np.abs(plain_cards / cards - 1).max()
        assert abs(found.reward[0] / value - 1) < abs(plain_value / value - 1)
        assert found.total[0] == pytest.approx(by_card.sum())


def test_appeal_between_levels_is_that_of_the_shifted_model() -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    score = np.tile(logit(APPEAL), 72)
    for span, tolerance in ((NARROW, 2e-4), (WIDE, 2e-4)):
        for shift in (-0.9 * span[0], 0.3, 0.8 * span[0]):
            shifted = summarise(tiny.pages, score + shift, span)
            assert appeal_at(summarise(tiny.pages, score, span), shift, 1) == pytest.approx(
                appeal_at(shifted, 0.0, 1), abs=tolerance
            )


def test_hazards_are_the_shares_that_went_on() -> None:
    batch = world.batch(np.random.default_rng(2), pages=4_000, hazards=(0.9, 0.6, 0.5, 0.8))
    data = logged_pages(batch, batch.score, 0.3, 0.3)
    went, possible = transitions(data)
    found = hazards(went.sum(axis=0), possible.sum(axis=0))
    error = np.sqrt(0.25 / possible.sum(axis=0))
    assert np.all(np.abs(found - [1.0, 0.9, 0.6, 0.5, 0.8]) < 4 * error)
    assert in_scanning_order(data) == 1.0


def test_a_kind_of_step_that_never_occurred_takes_the_pooled_hazard() -> None:
    found = hazards(np.array([5.0, 8.0, 0.0, 3.0, 0.0]), np.array([10.0, 16.0, 0.0, 4.0, 0.0]))
    assert found.tolist() == [0.5, 0.5, 0.5, 0.75, 0.75]


def test_position_trust_is_recovered_as_a_product_of_rows_and_columns() -> None:
    rng = np.random.default_rng(3)
    row, column = rng.integers(0, 3, 200_000), rng.integers(0, 4, 200_000)
    q = rng.uniform(0.2, 0.8, 200_000)
    truth_row, truth_column = np.array([1.0, 0.8, 0.6]), np.array([1.0, 0.9, 0.7, 0.5])
    reward = truth_row[row] * truth_column[column] * q
    found_row, found_column = position_trust(row, column, reward, 1.7 * q, 3, 4)
    assert found_row == pytest.approx(truth_row, rel=1e-3)
    assert found_column == pytest.approx(truth_column, rel=1e-3)


def test_the_logged_ranks_keep_quality_apart_from_trust() -> None:
    # Trust is 1 everywhere; the best cards stand first, and the target's model does not know them.
    rng = np.random.default_rng(4)
    score = rng.normal(-1.0, 1.2, 4_000 * 35)
    batch = world.batch(
        rng, pages=4_000, score=score, appeal=1 / (1 + np.exp(-score)), hazards=(0.97, 0.97, 0.95, 0.95)
    )
    data = logged_pages(batch, score, 0.3, 0.3, q_target=np.full(len(score), 0.2))
    seen = seen_cards(data)
    naive, stacked = (fit_appeal(data, seen, kind) for kind in ("target", "stacked"))
    assert naive.column_trust[-1] < 0.85
    assert stacked.column_trust[-1] == pytest.approx(1.0, abs=0.1)


def biased(pages: int, seed: int, hazard: tuple[float, float, float, float]) -> tuple[LoggedPages, float]:
    """A log, and the target's mean reward on the same visits under the same reading."""
    rng = np.random.default_rng(seed)
    appeal_score = rng.normal(-1.5, 1.0, pages * 35)
    logged_score = appeal_score + rng.normal(0, 1.5, pages * 35)
    target_score = appeal_score + rng.normal(0, 0.5, pages * 35)
    appeal = 1 / (1 + np.exp(-appeal_score))
    batch = world.batch(rng, pages=pages, score=logged_score, appeal=appeal, hazards=hazard)
    data = logged_pages(batch, target_score, 0.1, 0.1, q_target=1 / (1 + np.exp(-target_score)))
    truth = np.mean(
        [
            world.batch(rng, pages=pages, score=target_score, appeal=appeal, epsilon=0.1, hazards=hazard).reward.sum()
            / pages
            for _ in range(8)
        ]
    )
    return data, float(truth)


@pytest.mark.parametrize("hazard", [(0.9, 0.9, 0.8, 0.8), (0.9, 0.7, 0.7, 0.9)])
def test_exposure_dr_finds_the_value_of_a_better_policy(hazard: tuple[float, float, float, float]) -> None:
    data, truth = biased(4_000, 5, hazard)
    found = estimate("exposure_dr", data, rng=np.random.default_rng(6))
    assert found.lower < truth < found.upper
    assert found.upper - found.lower < 0.3 * truth
    assert truth > 1.15 * data.page_reward.mean()
    assert found.verdict == "conclusive"


def test_drawn_reach_agrees_with_the_mean_field_where_reading_does_not_depend_on_streams() -> None:
    data, _ = biased(400, 7, (0.9, 0.9, 0.8, 0.8))
    plain = estimate("exposure_dr", data)
    drawn = estimate("exposure_dr", data, reach="draws", rng=np.random.default_rng(8), draws=64)
    assert drawn.value == pytest.approx(plain.value, rel=0.02)
    found = corrected(plain.value, np.zeros(400), reach_gaps(data, fit_exposure(data), 400), 400)
    assert abs(found.bias) < 4 * np.sqrt((found.influence**2).sum()) / 400


def test_the_value_is_corrected_where_rows_end_at_a_stream() -> None:
    data, _ = biased(1_200, 7, (0.9, 0.0, 0.9, 0.9))
    plain = estimate("exposure_dr", data, reach="mean_field")
    found = estimate("exposure_dr", data)
    drawn = estimate("exposure_dr", data, reach="draws", rng=np.random.default_rng(8))
    assert abs(found.value - drawn.value) < 0.4 * abs(plain.value - drawn.value)
    assert abs(plain.value - drawn.value) > 0.004 * drawn.value
    assert found.verdict == drawn.verdict == "conclusive"
    assert plain.verdict == "weak"


def test_a_policy_that_ranks_as_the_logging_one_is_corrected_by_exactly_nothing() -> None:
    data, _ = biased(400, 7, (0.9, 0.0, 0.9, 0.9))
    names = ("rank", "tie", "shelf_rank", "shelf_tie", "shelf_epsilon", "card_epsilon")
    same = replace(data, **{f"{name}_target": getattr(data, f"{name}_logged") for name in names}, fits={})
    gaps = reach_gaps(same, fit_exposure(same))
    assert (gaps[:, 0] == gaps[:, 1]).all()
    assert np.abs(gaps[:, 0]).max() > 0
    assert corrected(1.0, np.zeros(400), gaps, 400).bias == 0


def test_the_targets_ranks_take_back_what_its_model_flatters() -> None:
    # The target shows the cards whose error is largest; a prediction without its ranks believes these scores.
    rng = np.random.default_rng(21)
    pages, noise = 4_000, 1.2
    truth = rng.normal(-1.5, 0.8, pages * 35)
    score = truth + rng.normal(0, noise, len(truth))
    appeal = 1 / (1 + np.exp(-truth))
    batch = world.batch(rng, pages=pages, score=rng.normal(-1.5, 1.0, len(truth)), appeal=appeal)
    data = logged_pages(batch, score, 0.05, 0.05, q_target=1 / (1 + np.exp(-score)))
    value = np.mean(
        [world.batch(rng, pages=pages, score=score, appeal=appeal, epsilon=0.05).reward.sum() / pages for _ in range(6)]
    )
    assert estimate("dm", data, predictor="target").value > 1.1 * value
    assert estimate("dm", data).value == pytest.approx(value, rel=0.04)


def test_positions_of_equal_trust_get_it_where_appeal_bends_in_the_score() -> None:
    # Expected rewards for drawn ones: what is off is the prediction, not chance.
    rng, pages = np.random.default_rng(24), 1_500
    s = rng.normal(size=pages * 35)
    score, appeal = s - 1.5, 1 / (1 + np.exp(1.5 - s + 0.4 * s**2))
    batch = world.batch(rng, pages=pages, score=score, appeal=appeal, hazards=(1.0, 1.0, 1.0, 1.0))
    q = 1 / (1 + np.exp(-score))
    data = logged_pages(batch, score, 0.3, 0.3, q_logged=q, q_target=q)
    data = replace(data, reward=np.where(data.seen, appeal[data.offset[:-1, None, None] + data.order], 0.0))
    found = fit_appeal(data, seen_cards(data))
    assert found.row_trust == pytest.approx(np.ones(3), abs=0.02)
    assert found.column_trust == pytest.approx(np.ones(3), abs=0.02)


def test_the_cap_halves_the_spread_and_an_infinite_one_leaves_every_weight() -> None:
    data, truth = biased(3_000, 22, (0.9, 0.9, 0.8, 0.8))
    capped, plain = fit_exposure(data, cap=3.0), fit_exposure(data, cap=np.inf)
    assert (plain.terms.weight == plain.terms.plain).all()
    assert capped.terms.weight.max() == 3.0
    spread = [influence(data, fit).std() for fit in (capped, plain)]
    assert spread[0] < 0.8 * spread[1]
    assert capped.value == pytest.approx(truth, rel=0.06)
    assert not left_by_cap(plain).any()
    with pytest.raises(ValueError, match="cap is 0; expected a number > 0, inf for none"):
        estimate("exposure_dr", data, cap=0)


def test_a_prediction_that_is_wrong_beyond_the_cap_is_told() -> None:
    data, _ = biased(3_000, 23, (0.9, 0.9, 0.8, 0.8))
    fit = fit_exposure(data, cap=3.0)
    assert judge_cap(data, fit)[0] == "conclusive"
    beyond = fit.terms.plain > 3.0
    wrong = replace(fit, terms=replace(fit.terms, residual=fit.terms.residual + 0.4 * beyond))
    verdict, reasons = judge_cap(data, wrong)
    assert verdict == "weak"
    assert "rewards beyond the cap of 3 differ from the prediction by +" in reasons[0]
    alone = judge_cap(data, fit, replace(PAGE_GATES, beyond_cap=0.0))
    assert "of the target's exposure lies beyond the cap of 3" in alone[1][0]


def test_an_interval_allows_for_a_bias_by_the_cap_that_the_log_could_not_tell_from_none() -> None:
    data, _ = biased(3_000, 23, (0.9, 0.9, 0.8, 0.8))
    found, spread = estimate_with_spread("exposure_dr", data, cap=3.0)
    plain = student(spread, PageSetting())
    left = left_by_cap(fit_exposure(data, cap=3.0))
    by_user = np.bincount(data.user, left - left.mean())
    users = len(np.unique(data.user))
    error = np.sqrt((by_user**2).sum() * users / (users - 1)) / len(data)
    extra = norm.ppf(0.975) * PAGE_GATES.cap_allowance * error
    assert extra > 0
    assert found.upper - found.value == pytest.approx(np.hypot(plain[1] - found.value, extra), rel=1e-12)
    assert found.value - found.lower == pytest.approx(np.hypot(found.value - plain[0], extra), rel=1e-12)
    uncapped, spread = estimate_with_spread("exposure_dr", data, cap=np.inf)
    assert (uncapped.lower, uncapped.upper) == pytest.approx(student(spread, PageSetting()), rel=1e-12)


def test_the_gate_fires_where_the_mean_field_is_off() -> None:
    data, _ = biased(600, 10, (0.95, 0.0, 0.95, 0.95))
    found = estimate("exposure_dr", data, reach="mean_field")
    assert "streams" in " ".join(found.warnings)
    assert judge_reach(0.04, 0.005)[0] == "weak"
    assert judge_reach(0.01, 0.005) == ("conclusive", ())


def test_drawing_needs_a_stream_of_random_numbers() -> None:
    data, _ = biased(30, 12, (0.9, 0.9, 0.8, 0.8))
    with pytest.raises(ValueError, match="rng is None"):
        estimate("exposure_dr", data, reach="draws")
    with pytest.raises(ValueError, match="reach is 'guess'"):
        estimate("exposure_dr", data, reach="guess")
    with pytest.raises(ValueError, match="predictor is 'logged', but q_logged was not given"):
        estimate("exposure_dr", data, predictor="logged")


def test_a_log_in_which_nothing_was_seen_is_refused() -> None:
    data, _ = biased(20, 13, (0.9, 0.9, 0.8, 0.8))
    unseen = replace(data, seen=np.zeros_like(data.seen), reward=np.zeros_like(data.reward), fits={})
    with pytest.raises(ValueError, match="no card was seen"):
        estimate("exposure_dr", unseen)


def test_rewards_that_are_all_zero_or_all_one_give_a_finite_value() -> None:
    data, _ = biased(200, 14, (0.9, 0.9, 0.8, 0.8))
    none = replace(data, reward=np.zeros_like(data.reward), fits={})
    every = replace(data, reward=data.seen.astype(np.float64), fits={})
    assert estimate("exposure_dr", none).value == pytest.approx(0.0, abs=0.01)
    assert 0 < estimate("exposure_dr", every).value <= 9


def test_refitting_with_every_page_once_changes_nothing() -> None:
    data, _ = biased(500, 15, (0.9, 0.7, 0.7, 0.9))
    fit = fit_exposure(data)
    assert refit(data, fit, np.ones(len(data))) == pytest.approx(fit.value, rel=1e-6)
    # The prior stream a position weighs less beside three times the log.
    assert refit(data, fit, np.full(len(data), 3.0)) == pytest.approx(fit.value, rel=1e-3)


def test_gates_call_a_verdict_by_size_balance_and_reading() -> None:
    good = ExposureDiagnostics(800.0, 20.0, 1.01, 0.02, 1.0, 1.0)
    assert judge_exposure(good, 5_000) == ("conclusive", ())
    for change, verdict, words in (
        ({"effective_sample_size": 2.0}, "unusable", "effective sample size 2.0 of 5,000 pages"),
        ({"effective_sample_size": 120.0}, "weak", "at least 300 is needed"),
        ({"balance": 0.6}, "unusable", "listeners browse otherwise"),
        ({"balance": 1.15}, "weak", "beyond its error"),
        ({"log_exposure": 0.9}, "weak", "observed exposure of the log is 0.90"),
        ({"scanning_order": 0.5}, "weak", "50% of the seen cards"),
    ):
        found, reasons = judge_exposure(replace(good, **change), 5_000)
        assert found == verdict
        assert words in reasons[0]
    assert judge_exposure(good, 200)[0] == "weak"
