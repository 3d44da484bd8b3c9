"""Tails of weights, and how wrong propensities may be before a difference turns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bart.ope.verdict.tails import pareto_k, turning_factor


@pytest.mark.parametrize("shape", [0.1, 0.4, 0.8])
def test_the_shape_of_a_pareto_tail_is_found(shape: float) -> None:
    rng = np.random.default_rng(1)
    found = [pareto_k(stats.genpareto.rvs(shape, size=20_000, random_state=rng)) for _ in range(20)]
    assert np.mean(found) == pytest.approx(shape, abs=0.08)


def test_a_long_log_has_a_shape_too() -> None:
    rng = np.random.default_rng(3)
    assert pareto_k(rng.random(100_000)) == pytest.approx(-1.0, abs=0.1)  # the fit's likelihoods differ by thousands


def test_weights_that_hardly_differ_have_no_tail() -> None:
    assert pareto_k(np.ones(1_000)) is None
    assert pareto_k(np.arange(10.0)) is None


def test_the_turning_factor_is_the_least_that_reaches_the_other_value() -> None:
    rng = np.random.default_rng(2)
    weight, reward = rng.exponential(1.0, 12), rng.random(12)
    value = weight @ reward / weight.sum()
    for against in (value - 0.1, value + 0.1):
        factor = turning_factor(weight, reward, against)
        assert factor is not None
        ends = np.array(np.meshgrid(*[[1 / factor, factor]] * 12, indexing="ij")).reshape(12, -1) * weight[:, None]
        reached = (ends * reward[:, None]).sum(axis=0) / ends.sum(axis=0)
        extreme = reached.min() if against < value else reached.max()
        assert extreme == pytest.approx(against, abs=1e-6)


def test_a_value_that_is_none_other_turns_at_once_and_one_out_of_reach_never() -> None:
    weight, reward = np.ones(50), np.repeat([0.0, 1.0], 25)
    assert turning_factor(weight, reward, 0.5) == 1.0
    assert turning_factor(weight, reward, 1.5) is None
    assert turning_factor(weight, reward, 0.6) == pytest.approx(np.sqrt(1.5))  # g / (g + 1/g) = .6


def test_rows_that_stand_for_several_count_so() -> None:
    weight, reward = np.ones(3), np.array([0.0, 0.0, 1.0])
    counted = turning_factor(weight, reward, 0.6, np.array([1.0, 1.0, 2.0]))
    assert counted == pytest.approx(turning_factor(np.ones(4), np.array([0.0, 0.0, 1.0, 1.0]), 0.6))
