"""Errors by listener: the jackknife and its degrees of freedom in closed form, and what holds at every look."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bart.ope.intervals.clusters import clustered_mean, degrees_of_freedom, jackknife_error


def sample(rng: np.random.Generator, listeners: int = 12) -> tuple[np.ndarray, np.ndarray]:
    user = np.repeat(np.arange(listeners), rng.integers(1, 9, listeners))
    return rng.normal(rng.normal(1.0, 1.0, listeners)[user], 0.5), user


def test_the_error_is_that_of_leaving_out_each_listener_in_turn() -> None:
    value, user = sample(np.random.default_rng(0))
    left = np.array([value[user != u].mean() for u in range(12)])
    expected = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    assert clustered_mean(value, user).error == pytest.approx(expected, rel=1e-12)


def test_degrees_of_freedom_are_those_of_the_matrices() -> None:
    rng = np.random.default_rng(1)
    for size in (rng.integers(1, 30, 9), np.array([40, 1, 2, 3, 2])):
        n, m = size.sum(), len(size)
        share = size / n
        maker = np.eye(m) - np.outer(share, np.ones(m))
        s = maker.T @ np.diag(1 / (1 - share) ** 2) @ maker @ np.diag(share**2)
        expected = np.trace(s) ** 2 / np.trace(s @ s)
        assert degrees_of_freedom(size.astype(float)) == pytest.approx(max(expected, 1.0), rel=1e-9)


def test_listeners_alike_leave_one_degree_less_than_there_are_and_a_dominating_one_hardly_any() -> None:
    assert degrees_of_freedom(np.full(30, 7.0)) == pytest.approx(29, rel=1e-9)
    assert degrees_of_freedom(np.array([50.0] + [1.0] * 100)) < 2


def test_the_interval_of_one_listener_is_everything() -> None:
    one = clustered_mean(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert one.interval(0.95) == one.always(0.95) == (-np.inf, np.inf)
    assert jackknife_error(np.zeros(1), np.ones(1)) == np.inf


def test_a_difference_has_the_degrees_of_freedom_of_welch() -> None:
    rng = np.random.default_rng(2)
    half, other = rng.uniform(0.1, 1, 7), rng.uniform(0, 3, 20)  # light tails, no skew
    one, two = np.concatenate([half, -half, [0.0]]) + 0.4, np.concatenate([other, -other])
    gap = clustered_mean(one, np.arange(15)).minus(clustered_mean(two, np.arange(40)))
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    lower, upper = gap.interval(0.95)
    # The jackknife of a plain mean is the classical error.
    assert (lower, upper) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_skewed_sums_widen_an_interval_by_the_second_term_of_its_expansion() -> None:
    value = np.random.default_rng(4).exponential(size=50)
    found = clustered_mean(value, np.arange(50))
    skewness = stats.skew(value) * 50 / 49**1.5  # of the mean: the jackknife leaves 49
    z = stats.norm.ppf(0.975)
    growth = 1 + skewness**2 * (z**4 + 2 * z**2 - 3) / 18
    half = stats.t.ppf(0.975, found.freedom) * found.error * growth
    assert found.interval(0.95) == pytest.approx((value.mean() - half, value.mean() + half), rel=1e-9)
    # Two arms that are skewed alike: their difference is not.
    even = found.minus(found)
    assert even.third == 0


def test_what_holds_at_every_look_is_wider_than_for_one_and_is_missed_less_often_than_promised() -> None:
    rng = np.random.default_rng(3)
    missed, runs = 0, 150
    for _ in range(runs):
        effect = rng.gamma(2, 0.5, 120)
        user = rng.integers(0, 120, 1_500)
        value = rng.poisson(effect[user]).astype(float)
        at = [clustered_mean(value[:n], user[:n]) for n in range(100, 1_501, 100)]
        ends = np.array([look.always(0.9) for look in at])
        once = np.array([look.interval(0.9) for look in at])
        assert (ends[:, 0] < once[:, 0]).all()
        missed += bool((ends[:, 0] > 1).any() or (ends[:, 1] < 1).any())
    assert missed / runs <= 0.1
