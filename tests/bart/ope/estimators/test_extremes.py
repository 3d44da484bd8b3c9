"""Logs at the edge: what estimators and intervals hold whatever they are given, and the identities of the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bart.ope import ESTIMATORS, INTERVALS, LoggedChoices, LoggedSlates, estimate
from bart.ope.estimators.slates import SLATE_ESTIMATORS

K = 4
PARAMETERS: Mapping[str, dict[str, Any]] = {
    "clipped_ips": {"cap": 2.0},
    "ncis": {"cap": 2.0},
    "switch_dr": {"tau": 2.0},
    "dros": {"lam": 2.0},
    "sg_ips": {"lam": 0.2},
    "sg_dr": {"lam": 0.2},
}
REWARDS = {
    "zeros": lambda _, n: np.zeros(n),
    "ones": lambda _, n: np.ones(n),
    "coins": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "negative": lambda rng, n: -2 - rng.random(n),
    "mixed": lambda rng, n: 10 * rng.normal(size=n),
    "large": lambda rng, n: 100 + rng.random(n),
    "constant": lambda _, n: np.full(n, 7.0),
}


def log(rng: np.random.Generator, n: int, reward: np.ndarray, least: float = 0.0) -> tuple[LoggedChoices, np.ndarray]:
    """A log with random pmfs, some choices nearly impossible; and the logging pmf."""
    pmf = rng.dirichlet(np.full(K, 0.5), n) + least
    pmf /= pmf.sum(axis=1, keepdims=True)
    action = (rng.random((n, 1)) > np.cumsum(pmf, axis=1)).sum(axis=1).clip(0, K - 1)
    pmf = np.maximum(pmf, 1e-12)
    pmf /= pmf.sum(axis=1, keepdims=True)
    target = rng.dirichlet(np.full(K, 0.3), n)
    return LoggedChoices(reward, action, pmf[np.arange(n), action], target, np.full((n, K), 0.3)), pmf


def more(name: str, pmf: np.ndarray) -> dict[str, Any]:
    found = dict(PARAMETERS.get(name, {}))
    if name in ("mips", "offcem"):
        found |= {"logging_pmf": pmf, "embedding" if name == "mips" else "cluster": np.arange(K) % 2}
    return found


@pytest.mark.parametrize("kind", REWARDS)
@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "mrdr"])
def test_an_estimate_is_finite_and_lies_in_its_own_interval(name: str, kind: str) -> None:
    for n in (1, 2, 3, 60):
        rng = np.random.default_rng([n, len(kind)])
        data, pmf = log(rng, n, REWARDS[kind](rng, n))
        refused: dict[str | None, str] = {}
        for interval in (None, *INTERVALS):
            try:
                found = estimate(name, data, interval, rng=np.random.default_rng(0), replicates=50, **more(name, pmf))
            except ValueError as error:
                refused[interval] = str(error)
                continue
            figures = found.value, found.lower, found.upper, found.effective_sample_size, found.max_weight
            assert np.isfinite(figures).all(), interval
            assert found.lower <= found.value <= found.upper, interval
        # The default refuses nothing but weights that are all 0; others say what they need.
        assert "sum to 0" in refused.get(None, "sum to 0")
        assert all("expected" in reason or "sum to 0" in reason for reason in refused.values()), refused


def test_two_rows_without_a_reward_do_not_prove_that_there_is_none() -> None:
    # All weights below 1: the limits of what could have been logged must still hold a weight above 1.
    data = LoggedChoices(np.zeros(2), np.zeros(2, int), np.array([0.6, 0.9]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    found = estimate("snips", data)
    assert found.upper > 0.5
    one = replace(
        data, reward=np.zeros(1), action=np.zeros(1, int), propensity=np.array([0.6]), target_pmf=[[0.5, 0.5]]
    )
    assert (estimate("ips", one).lower, estimate("ips", one).upper) == (0.0, 1.0)


def test_a_value_beyond_what_is_possible_is_shown_at_the_end_of_it_and_says_so() -> None:
    n = 300
    action = np.zeros(n, dtype=int)
    action[0] = 1
    propensity = np.where(action == 1, 0.002, 0.998)
    data = LoggedChoices((action == 1).astype(float), action, propensity, np.tile([0.0, 1.0], (n, 1)))
    found = estimate("ips", data)
    assert found.value == 1.0  # 1 / (0.002 n) = 1.67 is no share; the warning says what stands there
    assert any("beyond what is possible" in w for w in found.warnings)
    assert found.lower <= found.value <= found.upper
    assert found.verdict == "unusable"


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_two_effective_rows_are_unusable_at_any_reward(reward: float) -> None:
    n = 1_000
    action = np.zeros(n, dtype=int)
    action[:2] = 1
    data = LoggedChoices(
        np.full(n, reward),
        action,
        np.where(action == 1, 0.002, 0.998),
        np.tile([0.0, 1.0], (n, 1)),
        np.full((n, 2), reward),
    )
    for name in ("ips", "snips", "dr", "sndr"):
        found = estimate(name, data)
        assert found.effective_sample_size == pytest.approx(2.0)
        assert found.verdict == "unusable"


EQUAL = [n for n in ESTIMATORS if n not in ("mrdr", "dm", "dros", "switch_dr", "sg_dr", "offcem", "dr", "sndr")]


@pytest.mark.parametrize("name", [*EQUAL, "dr", "sndr", "offcem", "switch_dr", "sg_dr"])
def test_equal_policies_give_the_mean_reward(name: str) -> None:
    rng = np.random.default_rng(5)
    data, pmf = log(rng, 400, rng.random(400), least=0.05)
    # A model that knows the action only as what the policy does on average: its base equals its own prediction.
    q_hat = np.repeat(rng.random((400, 1)), K, axis=1)
    same = replace(data, target_pmf=pmf, q_hat=q_hat)
    assert estimate(name, same, "normal", **more(name, pmf)).value == pytest.approx(data.reward.mean(), rel=1e-12)


@pytest.mark.parametrize("name", ["dm", "dros"])
def test_estimators_that_shrink_towards_the_model_do_so_for_equal_policies_too(name: str) -> None:
    rng = np.random.default_rng(6)
    data, pmf = log(rng, 400, rng.random(400), least=0.05)
    same = replace(data, target_pmf=pmf, q_hat=np.full((400, K), 0.25))
    value = estimate(name, same, "normal", **more(name, pmf)).value
    kept = 2.0 / 3.0 if name == "dros" else 0.0  # w lam / (w^2 + lam) at w = 1, lam = 2
    assert value == pytest.approx(0.25 + kept * (data.reward.mean() - 0.25), rel=1e-12)


@pytest.mark.parametrize("name", ["snips", "ncis", "sndr"])
def test_a_constant_reward_is_its_own_value(name: str) -> None:
    rng = np.random.default_rng(7)
    data, pmf = log(rng, 300, np.full(300, 0.37))
    assert estimate(name, data, "normal", **more(name, pmf)).value == pytest.approx(
        0.37 if name != "sndr" else 0.3 + 0.07, rel=1e-12
    )


@pytest.mark.parametrize("name", [n for n in SLATE_ESTIMATORS if n not in ("cascade_dr", "adaptive_ips", "page_ncis")])
def test_one_slot_makes_every_slate_estimator_its_single_form(name: str) -> None:
    rng = np.random.default_rng(8)
    data, _ = log(rng, 200, (rng.random(200) < 0.4).astype(float), least=0.05)
    target, p = data.target_propensity(), data.propensity
    slates = LoggedSlates(data.reward[:, None], p, p[:, None], p[:, None], target, target[:, None], target[:, None])
    single = "snips" if name.startswith("sn_") or name == "slate_snips" else "ips"
    assert estimate(name, slates, "normal").value == pytest.approx(estimate(single, data).value, rel=1e-12)


def test_a_perfect_model_leaves_dr_the_variance_of_the_values() -> None:
    rng = np.random.default_rng(9)
    data, _ = log(rng, 500, np.zeros(500), least=0.05)
    q_hat = rng.random((500, K))
    exact = replace(data, reward=q_hat[np.arange(500), data.action], q_hat=q_hat)
    found = estimate("dr", exact, "normal")
    value = (exact.target_pmf * q_hat).sum(axis=1)
    assert found.value == pytest.approx(value.mean(), rel=1e-12)
    assert found.upper - found.value == pytest.approx(1.959964 * value.std(ddof=1) / np.sqrt(500), rel=1e-6)


def test_model_assisted_intervals_are_labelled_first_and_never_conclusive() -> None:
    rng = np.random.default_rng(10)
    data, _ = log(rng, 2_000, (rng.random(2_000) < 0.3).astype(float), least=0.05)
    found, plain = estimate("dr", data, "model_assisted"), estimate("dr", data)
    assert found.warnings[0].startswith("model-assisted: ")
    assert found.verdict == "weak"
    assert found.width < plain.width
    assert not any("model-assisted" in w for w in plain.warnings)
    with pytest.raises(ValueError, match="needs predicted rewards"):
        estimate("ips", data, "model_assisted")
