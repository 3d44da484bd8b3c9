"""Intervals: what each must satisfy, and that the default covers where few rows carry the weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bart.ope import INTERVALS, LoggedChoices, estimate
from bart.ope.estimators.choices import dr, ips, snips
from bart.ope.intervals.anytime import confidence_sequence
from bart.ope.intervals.bootstrap import bootstrap
from bart.ope.intervals.cells import cell_of, cell_sums
from bart.ope.intervals.choices import Setting
from bart.ope.intervals.empirical_likelihood import empirical_likelihood

K, EPSILON, TARGET = 20, 0.2, 0.05


def epsilon_log(n: int, rng: np.random.Generator, differs: float = 1.0) -> tuple[LoggedChoices, float]:
    """An epsilon-greedy log whose greedy action is 0; the target's is 1 where the policies differ. And the truth."""
    other = rng.random(n) < differs
    explore = rng.random(n) < EPSILON
    action = np.where(explore, rng.integers(0, K, n), 0)
    propensity = np.where(action == 0, 1 - EPSILON + EPSILON / K, EPSILON / K)
    mean = np.full(K, 0.1)
    mean[1] = 0.3
    reward = (rng.random(n) < mean[action]).astype(float)
    pmf = np.full((n, K), TARGET / K)
    pmf[np.arange(n), other.astype(int)] += 1 - TARGET
    truth = TARGET * mean.mean() + (1 - TARGET) * (differs * 0.3 + (1 - differs) * 0.1)
    return LoggedChoices(reward, action, propensity, pmf, np.full((n, K), 0.15)), truth


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_is_ordered_within_limits_and_the_same_for_the_same_seed(name: str) -> None:
    data, _ = epsilon_log(600, np.random.default_rng(0))
    estimator = "dr" if name == "model_assisted" else "ips"
    first, second = (estimate(estimator, data, name, rng=np.random.default_rng(1)) for _ in range(2))
    assert 0 <= first.lower < first.upper <= 1
    assert first == second
    assert first.interval == name


@pytest.mark.parametrize("name", [n for n in INTERVALS if n not in ("percentile", "studentised", "stratified")])
def test_a_higher_level_gives_an_interval_that_holds_the_lower_one(name: str) -> None:
    data, _ = epsilon_log(600, np.random.default_rng(0))
    estimator = "dr" if name == "model_assisted" else "ips"
    narrow, wide = (estimate(estimator, data, name, level=level) for level in (0.8, 0.99))
    assert wide.lower <= narrow.lower
    assert narrow.upper <= wide.upper


@pytest.mark.parametrize("name", [n for n in INTERVALS if n != "model_assisted"])  # a model has a unit of its own
def test_intervals_move_with_the_unit_of_the_reward(name: str) -> None:
    data, _ = epsilon_log(500, np.random.default_rng(2), differs=0.3)
    minutes = replace(data, reward=60 * data.reward)
    rng = np.random.default_rng
    one = estimate("ips", data, name, rng=rng(0))
    sixty = estimate("ips", minutes, name, rng=rng(0), reward_range=(0.0, 60.0))
    np.testing.assert_allclose([sixty.lower, sixty.upper], [60 * one.lower, 60 * one.upper], rtol=1e-4, atol=1e-4)


def test_empirical_likelihood_covers_where_the_bootstrap_does_not() -> None:
    """About six rows carry the weight; 100 logs, so .95 has a standard error of .022."""
    logs, hits, short, width = 100, 0, 0, 0.0
    for rng in np.random.default_rng(11).spawn(logs):
        data, truth = epsilon_log(600, rng)
        lower, upper = INTERVALS["empirical_likelihood"](ips(data), Setting())
        hits += lower <= truth <= upper
        width += (upper - lower) / logs
        low, high = INTERVALS["percentile"](ips(data), Setting(rng=rng, replicates=200))
        short += low <= truth <= high
    assert hits / logs >= 0.95 - 3 * 0.022
    assert short < hits
    assert width < 0.7


def test_weights_of_one_leave_the_likelihood_interval_of_a_mean() -> None:
    """With all weights 1 the interval is Owen's for a binomial share: 2 n KL(mean, v) <= chi-square."""
    reward = np.repeat([1.0, 0.0], [6_000, 14_000])
    unit = [(1.0, 0.0), (1.0, 1.0)]
    lower, upper = empirical_likelihood(np.ones(20_000), reward, unit, 0.95, (0.0, 1.0))
    for end in (lower, upper):
        ratio = 2 * (6_000 * np.log(0.3 / end) + 14_000 * np.log(0.7 / (1 - end)))
        assert ratio == pytest.approx(stats.chi2.ppf(0.95, 1), rel=0.01)


def test_counting_rows_by_cells_moves_the_likelihood_interval_by_little() -> None:
    data, _ = epsilon_log(30_000, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    weight = ips(data).weight * np.exp(0.2 * rng.normal(size=len(data)))
    rows = weight * data.reward
    corners = [(0.0, 0.0), (float(weight.max()), float(weight.max()))]
    whole = empirical_likelihood(weight, rows, corners, 0.95, (0.0, 1.0))
    exact = empirical_likelihood(weight, rows, corners, 0.95, (0.0, 1.0), np.ones(len(rows)))
    np.testing.assert_allclose(whole, exact, atol=0.01 * (whole[1] - whole[0]))


def test_cells_keep_sums_and_hold_numbers_alike() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.exp(3 * rng.normal(size=5_000)), [0.0, 0.0], -rng.random(100)])
    cell, n_cells = cell_of([x], 6)
    assert cell_sums(cell, n_cells, [x]).sum() == pytest.approx(x.sum(), rel=1e-12)
    for c in range(n_cells):
        inside = x[cell == c]
        if np.abs(inside).max() > 1e-6 * np.abs(x).max():
            assert np.ptp(inside) <= np.abs(inside).max() / 32
    assert n_cells < 2_000


def test_the_bootstrap_spreads_as_the_delta_method_says() -> None:
    data, _ = epsilon_log(4_000, np.random.default_rng(5), differs=0.2)
    for terms in (ips(data), snips(data), dr(data)):
        draw = bootstrap(terms, 2_000, np.random.default_rng(0))
        assert draw.estimate == pytest.approx(terms.value(), rel=1e-9)
        error = terms.influence().std() / np.sqrt(len(terms))
        assert draw.estimate_error == pytest.approx(error, rel=1e-6)
        # The spread of 2,000 replicates is known to 1.6 %; heavy weights add to it.
        assert draw.value.std() == pytest.approx(error, rel=0.08)


def test_the_bootstrap_of_a_large_log_by_cells_spreads_like_that_by_rows() -> None:
    data, _ = epsilon_log(25_000, np.random.default_rng(6), differs=0.2)
    for terms in (ips(data), snips(data), dr(data)):
        draw = bootstrap(terms, 2_000, np.random.default_rng(0))
        assert draw.value.mean() == pytest.approx(terms.value(), abs=4 * draw.estimate_error / np.sqrt(2_000))
        assert draw.value.std() == pytest.approx(terms.influence().std() / np.sqrt(len(terms)), rel=0.08)


def test_rows_of_one_user_that_hang_together_widen_the_interval() -> None:
    """Every row five times over under one user: the error is that of the fifth."""
    data, _ = epsilon_log(1_000, np.random.default_rng(7), differs=0.2)
    assert data.q_hat is not None
    five = LoggedChoices(*(np.repeat(a, 5, axis=0) for a in (data.reward, data.action, data.propensity)),
                         np.repeat(data.target_pmf, 5, axis=0))  # fmt: skip
    user = np.repeat(np.arange(1_000), 5).astype(str)
    apart = estimate("snips", five, "percentile", rng=np.random.default_rng(0))
    together = estimate("snips", five, "percentile", rng=np.random.default_rng(0), user=user)
    assert together.width == pytest.approx(np.sqrt(5) * apart.width, rel=0.1)
    assert estimate("snips", five, rng=np.random.default_rng(0), user=user).interval == "empirical_likelihood"
    with pytest.raises(ValueError, match="user is given, but normal takes rows as independent"):
        estimate("snips", five, "normal", user=user)


def test_the_anytime_interval_never_widens_and_holds_over_the_whole_log() -> None:
    missed, logs = 0, 25
    for rng in np.random.default_rng(8).spawn(logs):
        data, truth = epsilon_log(500, rng, differs=0.2)
        lower, upper = confidence_sequence(ips(data).weight, data.reward, 100.0, 0.9)
        assert (np.diff(lower) >= 0).all()
        assert (np.diff(upper) <= 0).all()
        missed += bool((lower > truth).any() or (upper < truth).any())
    assert missed / logs <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / logs)


def test_stratified_intervals_need_classes() -> None:
    rng = np.random.default_rng(9)
    pmf = rng.dirichlet(np.ones(3), 200)
    data = LoggedChoices(rng.random(200), np.zeros(200, int), np.full(200, 0.3), pmf)
    with pytest.raises(ValueError, match="classes; expected at most 64"):
        estimate("ips", data, "stratified", rng=rng)


def test_shrunk_weights_and_model_only_estimates_say_so() -> None:
    data, _ = epsilon_log(2_000, np.random.default_rng(10), differs=0.1)
    assert any("leaves out the bias" in w for w in estimate("clipped_ips", data, "normal", cap=2.0).warnings)
    capped, plain = estimate("clipped_ips", data, cap=2.0), estimate("ips", data)
    assert (capped.lower, capped.upper) == pytest.approx((plain.lower, plain.upper), rel=1e-9)
    shown = estimate("clipped_ips", data, cap=0.1)  # nearly all of the value is cut away
    assert any("the bias of capped" in w for w in shown.warnings)
    direct = estimate("dm", data)
    assert direct.verdict != "conclusive"
    assert any("cannot show the model's bias" in w for w in direct.warnings)
    other = replace(data, reward=10 * data.reward)
    assert any("reward_range is not given" in w for w in estimate("ips", other).warnings)


def test_an_interval_by_a_handful_of_users_is_not_conclusive() -> None:
    n = 4_000
    rng = np.random.default_rng(9)
    data = LoggedChoices(rng.integers(0, 2, n), rng.integers(0, 2, n), np.full(n, 0.5), np.tile([0.4, 0.6], (n, 1)))
    few = estimate("snips", data, rng=rng, user=np.arange(n) % 3)
    assert few.verdict == "weak"
    assert any(w.startswith("3 users") for w in few.warnings)
    assert estimate("snips", data, rng=rng, user=np.arange(n) % 400).verdict == "conclusive"


def test_a_capped_value_with_an_interval_around_itself_is_not_conclusive() -> None:
    n = 4_000
    rng = np.random.default_rng(10)
    action = (rng.random(n) < 0.1).astype(int)
    reward = np.where(action == 1, rng.random(n) < 0.5, rng.random(n) < 0.1).astype(float)
    data = LoggedChoices(reward, action, np.where(action == 1, 0.1, 0.9), np.tile([0.1, 0.9], (n, 1)))
    capped = estimate("clipped_ips", data, "percentile", rng=rng, cap=2.0)
    assert capped.upper < 0.46  # the truth, .1 x .1 + .9 x .5: the interval is that of a biased value
    assert capped.verdict == "weak"
    assert estimate("ips", data, "percentile", rng=rng).verdict == "conclusive"
