"""Training recovers a planted truth, finds nothing where there is nothing, and uses only the cards that are data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reward_world as world

from bart.errors import SchemaMismatch, SupportError
from bart.learning.importance import WEIGHTINGS, WeightScale, conditional_weight, exposure_weight
from bart.learning.metrics import auc, calibration_curve, holdout_metrics, log_loss, ndcg, pairs_in_order
from bart.learning.training import TrainingConfig, TrainingResult, seen_cards, train
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.types import Candidates, Floats, ItemTable, PageBatch, Shelf

ITEMS: ItemTable = world.item_table(np.random.default_rng(3))


def config(order: int = 3, **changes: Any) -> TrainingConfig:
    reward = RewardConfig(FeatureSchema(dimension=8, order=order), bits=18, learning_rate=None)
    return TrainingConfig(reward, **{"passes": 2, **changes})


def in_batches(pages: PageBatch, size: int = 1000) -> Callable[[], Iterator[PageBatch]]:
    def batches() -> Iterator[PageBatch]:
        for start in range(0, len(pages), size):
            yield pages.take(np.arange(start, min(start + size, len(pages))))

    return batches


def skewed(batch: PageBatch) -> Floats:
    """A poor logging policy: popular items first."""
    return ITEMS.popularity[batch.item]


@pytest.fixture(scope="module")
def uniform_log() -> PageBatch:
    return world.logged_pages(np.random.default_rng(11), ITEMS, 5000)


@pytest.fixture(scope="module")
def small_log() -> PageBatch:
    return world.logged_pages(np.random.default_rng(12), ITEMS, 300, score=skewed, epsilon=0.4, unseen=0.3)


# ------------------------------------------------------------------------------------------------------------- recovery


@pytest.fixture(scope="module")
def by_order(uniform_log: PageBatch) -> dict[int, TrainingResult]:
    passes = {1: 1, 2: 1, 3: 2}
    return {order: train(in_batches(uniform_log), ITEMS, config(order, passes=n)) for order, n in passes.items()}


def test_a_truth_inside_the_features_is_recovered_to_two_percent(
    uniform_log: PageBatch, by_order: dict[int, TrainingResult]
) -> None:
    chance = world.slot_probability(uniform_log, world.planted_logit(ITEMS, uniform_log))
    cut = by_order[3].metrics.holdout_from_s
    assert cut is not None
    held = uniform_log.seen & (uniform_log.at_s >= cut)[:, None, None]
    least = log_loss(uniform_log.reward[held], chance[held])
    holdout = by_order[3].metrics.holdout
    assert holdout is not None
    assert holdout.n_cards == held.sum()
    assert holdout.log_loss < 1.02 * least
    assert holdout.base_log_loss > 1.15 * least
    assert holdout.ece < 0.03


def test_each_order_fits_better_than_the_one_below(by_order: dict[int, TrainingResult]) -> None:
    holdouts = [by_order[order].metrics.holdout for order in (1, 2, 3)]
    for lower, higher in itertools.pairwise(holdouts):
        assert lower is not None
        assert higher is not None
        assert higher.log_loss < 0.97 * lower.log_loss
        assert higher.auc > lower.auc + 0.03
        assert higher.ndcg_10 > lower.ndcg_10 + 0.02


def test_where_rewards_were_shuffled_there_is_nothing_to_find(uniform_log: PageBatch) -> None:
    rng = np.random.default_rng(0)
    reward = uniform_log.reward.copy()
    reward[uniform_log.seen] = rng.permutation(reward[uniform_log.seen])
    holdout = train(in_batches(replace(uniform_log, reward=reward)), ITEMS, config()).metrics.holdout
    assert holdout is not None
    positive = holdout.mean_reward * holdout.n_cards
    negative = holdout.n_cards - positive
    standard_error = np.sqrt((positive + negative + 1) / (12 * positive * negative))  # of the rank sum
    assert abs(holdout.auc - 0.5) < 3 * standard_error
    assert holdout.log_loss > holdout.base_log_loss - 0.001


def test_rewards_may_be_fractions(small_log: PageBatch) -> None:
    half = replace(small_log, reward=np.where(small_log.seen, 0.5, 0.0))
    result = train(in_batches(half), ITEMS, config())
    assert result.metrics.mean_reward == 0.5
    holdout = result.metrics.holdout
    assert holdout is not None
    assert abs(holdout.mean_prediction - 0.5) < 0.02
    assert holdout.log_loss == pytest.approx(np.log(2), rel=0.01)


# ------------------------------------------------------------------------------------------------------ what is a datum


def test_pages_that_are_forced_open_or_never_displayed_stay_out_and_are_counted(small_log: PageBatch) -> None:
    forced, displayed, closed = (np.zeros(300, bool), np.ones(300, bool), np.ones(300, bool))
    forced[:10], displayed[5:20], closed[15:50] = True, False, False
    log = replace(small_log, forced=forced, displayed=displayed, closed=closed)
    result = train(in_batches(log), ITEMS, config(holdout=0.0))
    counts = result.metrics.counts
    assert (counts.pages, counts.forced_pages, counts.undisplayed_pages, counts.open_pages) == (300, 10, 10, 30)
    assert counts.used_pages == 250
    only = train(in_batches(small_log.take(np.arange(50, 300))), ITEMS, config(holdout=0.0))
    assert (result.model.weights() == only.model.weights()).all()


def test_cards_unseen_pinned_or_not_in_the_table_stay_out_and_are_counted(small_log: PageBatch) -> None:
    pinned = np.zeros_like(small_log.pinned)
    pinned[:, 0, 0] = True
    item = small_log.item.copy()
    item[::7] = -1
    log = replace(small_log, pinned=pinned, item=item)
    counts = train(in_batches(log), ITEMS, config(holdout=0.0)).metrics.counts
    assert counts.seen_cards == small_log.seen.sum()
    assert counts.pinned_cards == (small_log.seen & pinned).sum()
    assert counts.unknown_cards > 0
    assert counts.training_cards == counts.seen_cards - counts.pinned_cards - counts.unknown_cards


def test_what_unseen_cards_would_have_earned_teaches_nothing(small_log: PageBatch) -> None:
    altered = replace(small_log, reward=np.where(small_log.seen, small_log.reward, 1.0))
    a, b = (train(in_batches(log), ITEMS, config()) for log in (small_log, altered))
    assert (a.model.weights() == b.model.weights()).all()


def test_the_holdout_is_the_latest_pages_and_teaches_nothing(small_log: PageBatch) -> None:
    result = train(in_batches(small_log), ITEMS, config(holdout=0.2))
    cut = int(small_log.at_s[240])
    assert result.metrics.holdout_from_s == cut
    late = (small_log.at_s >= cut)[:, None, None]
    altered = replace(small_log, reward=np.where(late & small_log.seen, 1.0 - small_log.reward, small_log.reward))
    other = train(in_batches(altered), ITEMS, config(holdout=0.2))
    assert (result.model.weights() == other.model.weights()).all()
    assert result.metrics.holdout != other.metrics.holdout


def test_the_holdout_does_not_depend_on_the_order_of_the_log(small_log: PageBatch) -> None:
    mixed = small_log.take(np.random.default_rng(0).permutation(len(small_log)))
    cut = train(in_batches(mixed), ITEMS, config()).metrics.holdout_from_s
    assert cut == train(in_batches(small_log), ITEMS, config()).metrics.holdout_from_s


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_the_size_of_batches_changes_nothing(small_log: PageBatch, weighting: str) -> None:
    results = [train(in_batches(small_log, size), ITEMS, config(weighting=weighting)) for size in (300, 37)]
    assert (results[0].model.weights() == results[1].model.weights()).all()
    first, second = (result.metrics for result in results)
    assert first.effective_sample_size == pytest.approx(second.effective_sample_size, rel=1e-12)  # sums in other parts
    assert replace(first, effective_sample_size=0.0) == replace(second, effective_sample_size=0.0)


def test_a_base_model_goes_on_learning_and_stays_as_it_is(small_log: PageBatch) -> None:
    base = train(in_batches(small_log), ITEMS, config()).model
    before = base.weights()
    result = train(in_batches(small_log), ITEMS, config(), base=base)
    assert (base.weights() == before).all()
    assert result.model.n_learned == 2 * base.n_learned


def test_a_base_model_of_another_make_is_refused(small_log: PageBatch) -> None:
    with pytest.raises(SchemaMismatch, match="another feature schema"):
        train(in_batches(small_log), ITEMS, config(), base=RewardModel(config(2).reward))
    with pytest.raises(ValueError, match="another configuration"):
        train(in_batches(small_log), ITEMS, config(), base=RewardModel(replace(config().reward, bits=12)))


def test_progress_is_reported_up_to_the_end(small_log: PageBatch) -> None:
    calls: list[tuple[int, int]] = []
    train(in_batches(small_log), ITEMS, config(), progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len({total for _, total in calls}) == 1
    assert calls[-1][0] == calls[-1][1]


def test_a_log_without_data_is_refused_with_the_reason(small_log: PageBatch) -> None:
    with pytest.raises(
        ValueError, match="no seen card to learn from: 300 pages, of them 0 forced, 0 not displayed, 300"
    ):
        train(in_batches(replace(small_log, closed=np.zeros(300, bool))), ITEMS, config())
    with pytest.raises(ValueError, match="no seen card to learn from"):
        train(lambda: iter(()), ITEMS, config())


def test_the_expected_stream_rate_is_that_of_the_new_model_on_the_pages_held_out(small_log: PageBatch) -> None:
    from bart.ope import estimate
    from bart.ope.records.from_batch import logged_pages
    from bart.reward.scorer import Scorer

    result = train(in_batches(small_log, 37), ITEMS, config(holdout=0.4))
    held = small_log.take(np.flatnonzero(small_log.at_s >= result.metrics.holdout_from_s))
    score = Scorer.compile(result.model, ITEMS).score_batch(held)
    expected = estimate("page_ncis", logged_pages(held, score, held.shelf_epsilon, held.card_epsilon))
    rate = result.metrics.stream_rate
    assert rate is not None
    assert (rate.n_pages, rate.level) == (len(held), 0.95) == (120, 0.95)
    assert (rate.value, rate.lower, rate.upper) == pytest.approx((expected.value, expected.lower, expected.upper))
    assert rate.lower < rate.value < rate.upper
    assert rate.logged == pytest.approx(held.reward.sum() / len(held))


def test_of_many_pages_held_out_evenly_spread_ones_are_looked_at(
    small_log: PageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bart.learning import value as training_value

    monkeypatch.setattr(training_value, "MOST_PAGES", 50)
    rates = [train(in_batches(small_log, n), ITEMS, config(holdout=0.4)).metrics.stream_rate for n in (300, 37)]
    assert rates[0] == rates[1]
    assert rates[0] is not None
    assert rates[0].n_pages == 40  # of 120, every third


def test_without_pages_held_out_the_stream_rate_says_why(small_log: PageBatch) -> None:
    metrics = train(in_batches(small_log), ITEMS, config(holdout=0.0)).metrics
    assert (metrics.holdout, metrics.stream_rate) == (None, None)
    assert metrics.without_stream_rate == "no page was held out"


def test_metrics_can_be_written_as_json(small_log: PageBatch) -> None:
    import json

    result = train(in_batches(small_log), ITEMS, config(weighting="exposure"))
    fields = json.loads(json.dumps(result.metrics.as_dict(), allow_nan=False))
    assert fields["counts"]["pages"] == 300
    assert fields["holdout"]["calibration"][0].keys() == {"prediction", "reward", "n"}
    assert json.loads(json.dumps(config().as_dict()))["reward"]["schema"]["dimension"] == 8


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weighting": "some"}, "weighting is 'some'; expected one of none, conditional, exposure"),
        ({"passes": 0}, "passes is 0; expected at least 1"),
        ({"holdout": 1.0}, r"holdout is 1.0; expected a share in \[0, 1\)"),
        ({"cap": 0.0}, "cap is 0.0; expected a positive number or None"),
        ({"cap_percentile": 101.0}, r"cap_percentile is 101.0; expected a number in \(0, 100\] or None"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TrainingConfig(**fields)


# ------------------------------------------------------------------------------------------------------------ weighting


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_under_uniform_logging_every_weight_is_one(weighting: str) -> None:
    log = world.logged_pages(np.random.default_rng(1), ITEMS, 50)
    weight = WEIGHTINGS[weighting](log, seen_cards(log))
    assert np.allclose(weight, 1.0, rtol=1e-12)


@pytest.mark.parametrize(("weighting", "slots"), [("conditional", 1), ("exposure", 4)])
def test_weights_undo_the_preference_of_the_logging_policy(weighting: str, slots: int) -> None:
    """Of the whole page by exposure; conditional weights leave in place what earlier draws have taken away."""
    log = world.logged_pages(np.random.default_rng(2), ITEMS, 4000, score=skewed, epsilon=0.5, rows=1, columns=slots)
    cards = seen_cards(log)
    weight = WEIGHTINGS[weighting](log, cards)
    popularity = ITEMS.popularity[log.item[cards.candidate]]
    uniform = world.logged_pages(np.random.default_rng(3), ITEMS, 4000, rows=1, columns=slots)
    free = ITEMS.popularity[uniform.item[seen_cards(uniform).candidate]]
    weighted = np.average(popularity, weights=weight)
    share = weight / weight.sum()
    standard_error = np.sqrt((share**2 * (popularity - weighted) ** 2).sum() + free.var() / len(free))
    assert popularity.mean() > free.mean() + 0.05
    assert abs(weighted - free.mean()) < 4 * standard_error


def test_conditional_weights_are_the_uniform_choice_over_the_recorded_one_at_each_draw(small_log: PageBatch) -> None:
    cards = seen_cards(small_log)
    weight = conditional_weight(small_log, cards)
    for m in range(0, len(cards), 97):
        i, r, c = int(cards.page[m]), int(cards.row[m]), int(cards.column[m])
        shelf = small_log.shelf[small_log.offset[i] : small_log.offset[i + 1]]
        shelves_left = len(np.unique(shelf)) - r
        cards_left = int((shelf == small_log.row_shelf[i, r]).sum()) - c
        expected = 1 / shelves_left / small_log.shelf_propensity[i, r] / cards_left / small_log.card_propensity[i, r, c]
        assert weight[m] == pytest.approx(expected, rel=1e-12)


def test_a_pinned_card_takes_no_draw_from_the_others(small_log: PageBatch) -> None:
    pinned = np.zeros_like(small_log.pinned)
    pinned[:, 0, 0] = True
    with_pin = replace(small_log, pinned=pinned)
    cards = seen_cards(with_pin)
    after = (cards.row == 0) & (cards.column == 1)
    plain = seen_cards(small_log)
    before = conditional_weight(small_log, plain)[(plain.row == 0) & (plain.column == 1)]
    size = np.bincount(small_log.shelf_offset[world.candidate_page(small_log)] + small_log.shelf)
    at = cards.part(after)
    n = size[small_log.shelf_offset[at.page] + small_log.row_shelf[at.page, 0]]
    assert np.allclose(conditional_weight(with_pin, at), before * (n - 1) / n)


def test_exposure_weights_are_those_of_the_exact_marginals_of_the_page_policy(small_log: PageBatch) -> None:
    cards = seen_cards(small_log)
    weight = exposure_weight(small_log, cards)
    logging = PagePolicy(EpsilonGreedy(0.4), EpsilonGreedy(0.4))
    uniform = PagePolicy(EpsilonGreedy(1.0), EpsilonGreedy(1.0))
    for i in range(0, 300, 60):
        part = slice(int(small_log.offset[i]), int(small_log.offset[i + 1]))
        shelves = tuple(Shelf(rule, "") for rule in world.RULES)
        candidates = Candidates(small_log.item[part], small_log.shelf[part], shelves)
        exposed = []
        for policy in (logging, uniform):
            shelf, card = policy.marginal(candidates, small_log.score[part], 3, 4)
            exposed.append(shelf[candidates.shelf].sum(axis=1) * card.sum(axis=1))
        at = np.flatnonzero(cards.page == i)
        local = cards.candidate[at] - part.start
        assert np.allclose(weight[at], exposed[1][local] / exposed[0][local], rtol=1e-10)


def test_a_page_that_asked_for_fewer_slots_is_weighted_by_those_alone() -> None:
    wide = world.logged_pages(np.random.default_rng(5), ITEMS, 20, score=skewed, epsilon=0.4, rows=2, columns=3)

    def padded(value: Any, fill: Any) -> Any:
        shape = [(0, 0), (0, 1), (0, 2)][: value.ndim]
        return np.pad(value, shape, constant_values=fill)

    larger = replace(
        wide,
        row_shelf=padded(wide.row_shelf, -1),
        card=padded(wide.card, -1),
        shelf_propensity=padded(wide.shelf_propensity, np.nan),
        card_propensity=padded(wide.card_propensity, np.nan),
        pinned=padded(wide.pinned, False),
        shelf_epsilon=padded(wide.shelf_epsilon, np.nan),
        card_epsilon=np.pad(wide.card_epsilon, [(0, 0), (0, 2)], constant_values=np.nan),
        seen=padded(wide.seen, False),
        listened_s=padded(wide.listened_s, 0.0),
        reward=padded(wide.reward, 0.0),
    )
    for weigh in (conditional_weight, exposure_weight):
        assert np.allclose(weigh(larger, seen_cards(larger)), weigh(wide, seen_cards(wide)), rtol=1e-12)


def test_a_propensity_of_zero_is_refused_where_weights_need_it(small_log: PageBatch) -> None:
    propensity = small_log.card_propensity.copy()
    propensity[4] = 0.0
    log = replace(small_log, card_propensity=propensity)
    with pytest.raises(SupportError, match=r"request request 4, row \d, column \d: card_propensity is 0.0; expected"):
        train(in_batches(log), ITEMS, config(weighting="conditional"))
    train(in_batches(log), ITEMS, config())


def test_capped_weights_have_mean_one_and_keep_their_order() -> None:
    weight = np.random.default_rng(0).lognormal(0.0, 2.0, 5000)
    for cap, percentile in ((None, None), (3.0, None), (None, 90.0), (3.0, 99.0), (None, 100.0)):
        scale = WeightScale(cap, percentile)
        for part in np.array_split(weight, 7):
            scale.add(part)
        scaled = scale.apply(weight)
        assert scaled.mean() == pytest.approx(1.0, rel=1e-9)
        assert (np.diff(scaled[np.argsort(weight)]) >= 0).all()
        assert scale.largest == weight.max()


def test_the_cap_by_percentile_is_that_percentile_to_two_percent() -> None:
    weight = np.random.default_rng(0).lognormal(0.0, 2.0, 5000)
    scale = WeightScale(None, 95.0)
    scale.add(weight)
    exact = np.percentile(weight, 95.0, method="inverted_cdf")
    assert exact <= scale.cap <= exact * 1.02 * (1 + 1e-9)
    unlimited = WeightScale()
    unlimited.add(weight)
    assert unlimited.cap == weight.max()


def test_a_cap_of_almost_nothing_makes_all_weights_one() -> None:
    scale = WeightScale(cap=1e-6)
    weight = np.array([0.5, 2.0, 40.0])
    scale.add(weight)
    assert np.allclose(scale.apply(weight), 1.0)


def test_weights_of_one_train_the_unweighted_model() -> None:
    log = world.logged_pages(np.random.default_rng(1), ITEMS, 100)
    plain, weighted = (train(in_batches(log), ITEMS, config(weighting=w)) for w in ("none", "conditional"))
    assert np.allclose(plain.model.weights(), weighted.model.weights(), atol=1e-6)
    assert weighted.metrics.effective_sample_size == pytest.approx(weighted.metrics.counts.training_cards)


# -------------------------------------------------------------------------------------------------------------- metrics


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    reward = (rng.random(60) < 0.4).astype(np.float64)
    prediction = np.round(rng.random(60), 1)  # with ties
    pairs = [
        (p > q) + 0.5 * (p == q)
        for p, q in itertools.product(prediction[reward == 1].tolist(), prediction[reward == 0].tolist())
    ]
    assert auc(reward, prediction) == pytest.approx(np.mean(pairs))
    assert auc(reward, -prediction) == pytest.approx(1 - np.mean(pairs))
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))


def test_the_truth_has_no_calibration_error_and_the_least_log_loss() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(200_000)
    reward = (rng.random(200_000) < chance).astype(np.float64)
    curve = calibration_curve(reward, chance)
    assert sum(b.n for b in curve) == 200_000
    assert all(abs(b.prediction - b.reward) < 4 * 0.5 / np.sqrt(b.n) for b in curve)
    for other in (chance**1.2, 0.9 * chance + 0.05):
        assert log_loss(reward, other) > log_loss(reward, chance)


def test_the_base_rate_has_the_entropy_of_the_rewards() -> None:
    reward = np.array([1.0, 0.0, 0.0, 0.0])
    expected = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    metrics = holdout_metrics(reward, np.full(4, 0.25), np.arange(4.0), np.zeros(4, dtype=np.int64))
    assert metrics.base_log_loss == metrics.log_loss == pytest.approx(expected)
    assert metrics.ece == pytest.approx(0.375)  # ten bins for four cards: one card a bin


def test_gain_is_one_for_the_best_order_and_discounted_below() -> None:
    page = np.array([0, 0, 0, 1, 1, 2])
    reward = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    best = np.array([3.0, 2.0, 1.0, 0.0, 1.0, 5.0])
    assert ndcg(reward, best, page, 10) == 1.0
    worst = -best
    assert ndcg(reward, worst, page, 10) == pytest.approx((1 / np.log2(4) + 1 / np.log2(3)) / 2)
    assert ndcg(reward, worst, page, 1) == 0.0
    assert np.isnan(ndcg(np.zeros(6), best, page, 10))


def test_pairs_are_counted_within_their_page_and_ties_are_a_half() -> None:
    rng = np.random.default_rng(0)
    page, reward = np.sort(rng.integers(3, 9, 80)), rng.integers(0, 2, 80).astype(np.float64)
    prediction = rng.integers(0, 5, 80) / 5.0
    won, every = pairs_in_order(reward, prediction, page)
    for k, number in enumerate(np.unique(page).tolist()):
        up, down = (prediction[(page == number) & (reward == kind)] for kind in (1.0, 0.0))
        assert every[k] == len(up) * len(down)
        assert won[k] == (up[:, None] > down).sum() + 0.5 * (up[:, None] == down).sum()
    one_page = np.zeros(80, dtype=np.int64)
    won, every = pairs_in_order(reward, prediction, one_page)
    assert won.sum() / every.sum() == pytest.approx(auc(reward, prediction))


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no held-out cards to measure on"):
        holdout_metrics(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
