"""Page estimators: identities, expectations by enumeration, intervals, verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest

from bart.ope import PAGE_ESTIMATORS, LoggedPages, estimate
from bart.ope.estimators.cascade import RestOfPage, cascade_dr_terms
from bart.ope.estimators.pages import PAGE_ESTIMATORS as BY_NAME
from bart.ope.estimators.pages import page_ncis, sn_independent_ips
from bart.ope.intervals.clusters import freedom_of_tails
from bart.ope.intervals.pages import PAGE_INTERVALS, PageSetting, Spread, page_interval, replicates
from bart.ope.models.browsing import Browsing
from bart.ope.records.from_batch import logged_pages
from bart.types import Floats

LOGGED = np.array([0.9, 0.5, 0.1, 0.8, 0.8, 0.2])
TARGET = np.array([0.2, 0.7, 0.4, 0.3, 0.9, 0.6])
APPEAL = np.array([0.5, 0.2, 0.35, 0.1, 0.4, 0.25])
PLAIN = ("independent_ips", "cascade_ips", "slate_ips", "adaptive_ips", "pseudo_inverse")


@pytest.fixture(scope="module")
def same() -> LoggedPages:
    """The target is the logging policy."""
    batch = world.batch(np.random.default_rng(1), pages=400)
    q = 1 / (1 + np.exp(-batch.score))
    return logged_pages(batch, batch.score, 0.3, 0.3, q_logged=q, q_target=q)


@pytest.fixture(scope="module")
def other() -> LoggedPages:
    rng = np.random.default_rng(2)
    batch = world.batch(rng, pages=900)
    score = batch.score + rng.normal(0, 0.5, len(batch.item))
    return logged_pages(batch, score, 0.2, 0.2, q_target=1 / (1 + np.exp(-score)))


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"cascade_dr"}))
def test_equal_policies_give_the_mean_reward(name: str, same: LoggedPages) -> None:
    assert estimate(name, same).value == pytest.approx(same.page_reward.mean(), rel=1e-9)


@pytest.mark.parametrize("name", PLAIN)
def test_weights_of_equal_policies_are_exactly_one(name: str, same: LoggedPages) -> None:
    found = estimate(name, same)
    assert found.max_weight == pytest.approx(1.0, abs=1e-12)
    assert found.effective_sample_size == pytest.approx(len(same))


@pytest.mark.parametrize("name", ["independent_ips", "cascade_ips", "slate_ips", "adaptive_ips"])
def test_expected_value_is_the_truth_where_reading_depends_on_position_only(name: str) -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    examined = np.array([[1.0, 0.7], [0.6, 0.3]])
    reward = tiny.shown() * examined
    terms = BY_NAME[name](replace(tiny.pages, reward=reward))
    truth = float(tiny.target @ reward.sum(axis=(1, 2)))
    assert terms.refit(tiny.logged) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("name", ["cascade_ips", "slate_ips", "adaptive_ips"])
def test_expected_value_is_the_truth_where_a_row_ends_at_a_stream(name: str) -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    p = tiny.shown()
    # The listener leaves the page at the first stream: every outcome of reading with its probability.
    value, truth = 0.0, 0.0
    none_yet = np.ones(len(p))
    for stop in range(4):
        r, c = divmod(stop, 2)
        reached = none_yet.copy()
        seen = np.zeros(p.shape, dtype=bool).reshape(len(p), 4)
        seen[:, : stop + 1] = True
        reward = np.zeros((len(p), 4))
        reward[:, stop] = 1.0
        data = replace(tiny.pages, seen=seen.reshape(p.shape), reward=reward.reshape(p.shape))
        chance = reached * p[:, r, c]
        value += BY_NAME[name](data).refit(tiny.logged * chance) * float((tiny.logged * chance).sum())
        truth += float(tiny.target @ chance)
        none_yet = none_yet * (1 - p[:, r, c])
    assert value == pytest.approx(truth, rel=1e-12)


def rest_of_tiny(appeal: Floats, hazard: tuple[float, float], rng: np.random.Generator) -> RestOfPage:
    """One model for all 72 pages of the enumerated world: they are draws for the same visit."""
    how = Browsing(1.0, hazard, (1.0, 0.0), np.ones(2), np.ones(2))
    return RestOfPage(
        how, np.tile(appeal, 72), np.tile(rng.random((2, 2)), (72, 1)), np.tile(rng.random((2, 2)), (72, 1))
    )


def cascade_dr_moments(model: RestOfPage) -> tuple[float, float, float]:
    """Mean and variance of cascade_dr's terms, and the truth, over all pages and readings that end at a stream."""
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    p = tiny.shown().reshape(-1, 4)
    mean, square, truth = 0.0, 0.0, 0.0
    none_yet = np.ones(len(p))
    for stop in range(5):  # the stream that ends reading, or none at all
        seen, reward = np.zeros((len(p), 4), dtype=bool), np.zeros((len(p), 4))
        seen[:, : stop + 1] = True
        chance = none_yet.copy()
        if stop < 4:
            reward[:, stop] = 1.0
            chance *= p[:, stop]
            none_yet *= 1 - p[:, stop]
            truth += float(tiny.target @ chance)
        data = replace(tiny.pages, seen=seen.reshape(-1, 2, 2), reward=reward.reshape(-1, 2, 2))
        each = cascade_dr_terms(data, model)[0]
        mean += float((tiny.logged * chance) @ each)
        square += float((tiny.logged * chance) @ each**2)
    return mean, square - mean**2, truth


def test_cascade_dr_is_unbiased_where_the_page_ends_at_a_stream_whatever_its_model() -> None:
    rng = np.random.default_rng(1)
    for appeal, hazard in ((APPEAL, (1.0, 0.0)), (rng.random(6), (0.8, 0.6)), (np.zeros(6), (0.3, 0.9))):
        mean, _, truth = cascade_dr_moments(rest_of_tiny(appeal, hazard, rng))
        assert mean == pytest.approx(truth, rel=1e-12)


def test_a_right_appeal_takes_variance_from_cascade_dr() -> None:
    rng = np.random.default_rng(2)
    nothing = RestOfPage(
        Browsing(1.0, (1.0, 0.0), (1.0, 0.0), np.ones(2), np.ones(2)),
        np.zeros(432),
        np.zeros((144, 2)),
        np.zeros((144, 2)),
    )
    _, plain, _ = cascade_dr_moments(nothing)
    _, right, _ = cascade_dr_moments(rest_of_tiny(APPEAL, (1.0, 0.0), rng))
    assert right < 0.65 * plain


def test_joint_replicates_keep_what_two_policies_share() -> None:
    rng = np.random.default_rng(11)
    influence = rng.normal(size=(2, 600)) + 3 * rng.normal(size=600)
    user = np.repeat(np.arange(200), 3)
    spreads = [Spread(2.0 + i, x - x.mean(), user, np.mean) for i, x in enumerate(influence)]
    found = replicates(spreads, np.random.default_rng(12), 4_000)
    assert found.shape == (4_000, 2)
    assert found.mean(axis=0) == pytest.approx([2.0, 3.0], abs=0.02)
    assert found.std(axis=0) == pytest.approx([s.standard_error() for s in spreads], rel=0.05)
    difference = Spread(1.0, spreads[1].influence - spreads[0].influence, user, np.mean).standard_error()
    assert (found[:, 1] - found[:, 0]).std() == pytest.approx(difference, rel=0.05)
    with pytest.raises(ValueError, match=r"spreads\[1\] is of other pages"):
        replicates([spreads[0], Spread(1.0, influence[0][:599], user[:599], np.mean)], rng)


def test_self_normalised_values_of_a_constant_reward_are_that_reward() -> None:
    tiny = world.enumerated(LOGGED, TARGET, APPEAL)
    data = replace(tiny.pages, reward=np.full(tiny.pages.reward.shape, 0.25))
    for name in ("sn_independent_ips", "page_ncis", "sn_cascade_ips", "slate_snips"):
        assert BY_NAME[name](data).value == pytest.approx(1.0)


def test_an_infinite_cap_is_no_cap(other: LoggedPages) -> None:
    assert page_ncis(other, np.inf).value == sn_independent_ips(other).value
    with pytest.raises(ValueError, match="cap is 0; expected a number > 0"):
        page_ncis(other, 0)


def test_one_slot_makes_all_of_them_one_estimator() -> None:
    rng = np.random.default_rng(3)
    batch = world.batch(rng, pages=500, shelves=1, rows=1, columns=1)
    data = logged_pages(batch, rng.normal(size=len(batch.item)), 0.1, 0.1)
    plain = {estimate(name, data).value for name in PLAIN}
    assert max(plain) - min(plain) < 1e-12
    normalised = {estimate(name, data).value for name in ("sn_independent_ips", "sn_cascade_ips", "slate_snips")}
    assert max(normalised) - min(normalised) < 1e-12


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_influence_is_the_derivative_of_the_estimate_by_pages(name: str, other: LoggedPages) -> None:
    terms = BY_NAME[name](other)
    assert terms.influence.sum() == pytest.approx(0.0, abs=1e-6)
    b = len(other)
    direction = np.random.default_rng(4).normal(size=b)
    step = 1e-4
    change = (terms.refit(1 + step * direction) - terms.refit(1 - step * direction)) / (2 * step)
    # Multiplicities enter a mean: the derivative is the covariance of influence and direction.
    assert change == pytest.approx(float(terms.influence @ direction) / b, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("interval", sorted(PAGE_INTERVALS))
def test_every_interval_holds_the_value_and_widens_with_the_level(interval: str, other: LoggedPages) -> None:
    wide = estimate("sn_independent_ips", other, interval, 0.99, np.random.default_rng(5), replicates=300)
    narrow = estimate("sn_independent_ips", other, interval, 0.8, np.random.default_rng(5), replicates=300)
    assert wide.lower < narrow.lower < narrow.value < narrow.upper < wide.upper


def test_intervals_cluster_by_listener() -> None:
    influence = np.repeat(np.random.default_rng(6).normal(size=100), 4)
    influence -= influence.mean()

    def error(user):
        return Spread(1.0, influence, user, np.mean).standard_error()

    # Four equal pages of a listener count as one.
    assert error(np.repeat(np.arange(100), 4)) == pytest.approx(2 * error(np.arange(400)), rel=0.02)
    assert error(np.zeros(400, dtype=np.int64)) == np.inf


def test_heavy_tails_cost_freedom_of_tails() -> None:
    rng = np.random.default_rng(7)
    assert freedom_of_tails(rng.normal(size=2_000)) > 1_500
    assert freedom_of_tails(np.concatenate([np.zeros(1_999), [1.0]])) < 5


def test_a_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(8).normal(2.0, 1.0, 400)
    spread = Spread(float(x.mean()), x - x.mean(), np.arange(400), lambda m: float(np.average(x, weights=m)))
    setting = PageSetting(rng=np.random.default_rng(9), groups=400)
    lower, upper = page_interval("jackknife", spread, setting)
    expected = page_interval("normal", spread, setting)
    assert (lower, upper) == pytest.approx(expected, rel=2e-3)


def test_a_log_with_an_effective_sample_size_of_two_is_unusable_at_any_reward() -> None:
    rng = np.random.default_rng(10)
    batch = world.batch(rng, pages=60, shelves=12, cards=30, epsilon=0.05)
    score = rng.normal(size=len(batch.item))
    for reward in (np.zeros(batch.card.shape), batch.seen * 1.0):
        found = estimate("slate_ips", logged_pages(batch, score, 0.01, 0.01, reward=reward))
        assert found.effective_sample_size < 5
        assert found.verdict == "unusable"
        assert "effective sample size" in found.warnings[0]


def test_wide_intervals_say_how_many_more_pages_are_needed(other: LoggedPages) -> None:
    found = estimate("independent_ips", other)
    assert any("more pages are needed" in note for note in found.warnings)


def test_unknown_names_and_parameters_are_refused(other: LoggedPages) -> None:
    with pytest.raises(ValueError, match="name is 'magic'; expected one of exposure_dr"):
        estimate("magic", other)
    with pytest.raises(ValueError, match=r"page_ncis: .*its parameters are: cap"):
        estimate("page_ncis", other, tau=3)
    with pytest.raises(ValueError, match="interval is 'wild'; expected one of student"):
        estimate("dm", other, "wild")
    with pytest.raises(ValueError, match="rng is None"):
        estimate("dm", other, "jackknife")
    assert set(BY_NAME) <= set(PAGE_ESTIMATORS)
