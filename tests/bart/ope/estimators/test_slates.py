"""Slate estimators in cases where the answer is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from bart.ope import LoggedChoices, LoggedSlates, estimate
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.estimators.slates import SLATE_ESTIMATORS
from bart.types import Floats

ITEMS = 3


def world(seed: int = 0) -> tuple[Floats, Floats, Floats, Floats]:
    """Product policies over two positions (logging, target: [2, items]); additive effects; reward of a click [a, b]."""
    rng = np.random.default_rng(seed)
    logging = 0.8 * rng.dirichlet(np.ones(ITEMS), 2) + 0.2 / ITEMS
    return logging, rng.dirichlet(np.ones(ITEMS), 2), rng.random((2, ITEMS)), rng.random((ITEMS, ITEMS))


def every_slate(behaviour: str) -> tuple[LoggedSlates, Floats, float, dict[str, Floats]]:
    """All nine slates with mean rewards, the probability of each, the target's value, and exact cascade models."""
    logging, target, alone, pair = world()
    slates = np.array(list(itertools.product(range(ITEMS), repeat=2)))
    first, second = slates.T
    reward = np.empty((9, 2))
    if behaviour == "independent":
        reward[:, 0], reward[:, 1] = alone[0, first], alone[1, second]
    elif behaviour == "cascade":
        reward[:, 0], reward[:, 1] = alone[0, first], pair[first, second]
    elif behaviour == "standard":
        reward[:, 0], reward[:, 1] = pair[second, first], pair[first, second]
    else:  # additive: each item moves both rewards
        reward[:, 0] = alone[0, first] + 0.5 * alone[1, second]
        reward[:, 1] = 0.3 * alone[0, first] + alone[1, second]
    p = np.stack([logging[0, first], logging[1, second]], axis=1)
    q = np.stack([target[0, first], target[1, second]], axis=1)
    data = LoggedSlates(reward, p.prod(1), p, np.cumprod(p, 1), q.prod(1), q, np.cumprod(q, 1))
    value = float((q.prod(1) * reward.sum(1)).sum())
    to_go = reward[:, 1]
    expected_second = np.array([(target[1] * pair[a]).sum() for a in range(ITEMS)])
    models = {
        "q_hat": np.stack([reward[:, 0] + expected_second[first], to_go], axis=1),
        "q_target": np.stack(
            [np.full(9, float((target[0] * (alone[0] + expected_second)).sum())), expected_second[first]], axis=1
        ),
    }
    return data, p.prod(1), value, models


@pytest.mark.parametrize(
    ("name", "behaviour", "unbiased"),
    [
        ("slate_ips", "independent", True),
        ("slate_ips", "cascade", True),
        ("slate_ips", "standard", True),
        ("slate_ips", "additive", True),
        ("cascade_ips", "independent", True),
        ("cascade_ips", "cascade", True),
        ("cascade_ips", "standard", False),
        ("independent_ips", "independent", True),
        ("independent_ips", "cascade", False),
        ("pseudo_inverse", "additive", True),
        ("pseudo_inverse", "independent", True),
        ("pseudo_inverse", "cascade", False),
        ("cascade_dr", "cascade", True),
        ("cascade_dr", "independent", True),
    ],
)
def test_the_enumerated_expectation_is_the_truth_where_the_assumption_holds(
    name: str, behaviour: str, unbiased: bool
) -> None:
    data, chance, value, _ = every_slate(behaviour)
    rng = np.random.default_rng(2)
    extra: dict[str, Any] = {}
    if name == "cascade_dr":
        # Any model of the current position that is averaged over the target leaves the estimate unbiased.
        table, (_, target, _, _) = rng.random((ITEMS, ITEMS)), world()
        first, second = np.array(list(itertools.product(range(ITEMS), repeat=2))).T
        extra["q_hat"] = np.stack([table[0, first], table[first, second]], axis=1)
        extra["q_target"] = np.stack([np.full(9, target[0] @ table[0]), (table @ target[1])[first]], axis=1)
    expected = float((chance * SLATE_ESTIMATORS[name](data, **extra).linear()).sum())
    assert (abs(expected - value) < 1e-12) == unbiased


def test_the_adaptive_estimator_is_right_for_mixed_behaviours() -> None:
    total = 0.0
    value = 0.0
    for code, behaviour in enumerate(("independent", "cascade", "standard")):
        data, chance, truth, _ = every_slate(behaviour)
        terms = SLATE_ESTIMATORS["adaptive_ips"](data, behaviour=np.full(9, code))
        total += float((chance * terms.linear()).sum()) / 3
        value += truth / 3
    assert total == pytest.approx(value, abs=1e-12)


def test_a_perfect_cascade_model_leaves_no_variance_for_one_context() -> None:
    data, _, value, models = every_slate("cascade")
    rows = SLATE_ESTIMATORS["cascade_dr"](data, **models).linear()
    np.testing.assert_allclose(rows, value, atol=1e-12)


def one_slot() -> tuple[LoggedSlates, LoggedChoices]:
    rng = np.random.default_rng(1)
    n = 300
    p, q = rng.uniform(0.1, 0.9, n), rng.uniform(0, 1, n)
    reward = (rng.random(n) < 0.4).astype(float)
    column = reward[:, None]
    slates = LoggedSlates(column, p, p[:, None], p[:, None], q, q[:, None], q[:, None])
    return slates, LoggedChoices(reward, np.zeros(n, int), p, np.stack([q, 1 - q], axis=1))


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
def test_one_slot_makes_every_slate_estimator_its_single_form(name: str) -> None:
    slates, single = one_slot()
    zero = np.zeros((300, 1))
    extra: dict[str, Any] = {
        "adaptive_ips": {"behaviour": np.arange(300) % 3},
        "cascade_dr": {"q_hat": zero, "q_target": zero},
    }.get(name, {})
    plain = "snips" if name.startswith("sn_") or name == "slate_snips" else "ips"
    cap: dict[str, float] = {}
    if name == "page_ncis":
        plain, cap = "ncis", {"cap": 2.0}
    assert SLATE_ESTIMATORS[name](slates, **extra, **cap).value() == pytest.approx(
        ESTIMATORS[plain](single, **cap).value(), abs=1e-12
    )


@pytest.mark.parametrize("name", SLATE_ESTIMATORS)
def test_equal_policies_give_the_mean_reward_of_a_slate(name: str) -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.2, 0.8, (500, 3))
    reward = (rng.random((500, 3)) < 0.3).astype(float)
    data = LoggedSlates(reward, p.prod(1), p, np.cumprod(p, 1), p.prod(1), p, np.cumprod(p, 1))
    extra: dict[str, Any] = {
        "adaptive_ips": {"behaviour": np.ones((500, 3), dtype=int)},
        "cascade_dr": {"q_hat": np.zeros((500, 3)), "q_target": np.zeros((500, 3))},
    }.get(name, {})
    found = estimate(name, data, rng=np.random.default_rng(0), **extra)
    assert found.value == pytest.approx(reward.sum(axis=1).mean(), abs=1e-12)
    assert found.lower < found.value < found.upper
    assert found.effective_sample_size == pytest.approx(500)
    assert found.verdict == "conclusive"


def test_the_table_of_pages_holds_the_slate_estimators() -> None:
    from bart.ope import PAGE_ESTIMATORS

    assert set(SLATE_ESTIMATORS) <= set(PAGE_ESTIMATORS)


def test_behaviours_are_checked() -> None:
    slates, _ = one_slot()
    with pytest.raises(ValueError, match="behaviour lies in"):
        estimate("adaptive_ips", slates, behaviour=np.full(300, 3))
    with pytest.raises(ValueError, match="q_hat has shape"):
        estimate("cascade_dr", slates, q_hat=np.zeros(3), q_target=np.zeros(3))


def test_capped_marginal_weights_of_a_slate_are_normalised_slot_by_slot() -> None:
    rng = np.random.default_rng(4)
    n, m = 500, 3
    p, q = rng.uniform(0.05, 1.0, (n, m)), rng.uniform(0.0, 1.0, (n, m))
    data = LoggedSlates(
        (rng.random((n, m)) < 0.4).astype(float), p.prod(1), p, p.cumprod(1), q.prod(1), q, q.cumprod(1)
    )
    weight = np.minimum(q / p, 1.5)
    by_hand = ((weight * data.reward).sum(0) / weight.sum(0)).sum()
    found = estimate("page_ncis", data, cap=1.5)
    assert found.value == pytest.approx(by_hand, rel=1e-12)
    assert found.lower < found.value < found.upper
    assert found.verdict != "conclusive"
    uncapped = estimate("page_ncis", data, cap=1e9)
    assert uncapped.value == pytest.approx(estimate("sn_independent_ips", data).value, rel=1e-12)
    with pytest.raises(ValueError, match="capped slot by slot"):
        estimate("page_ncis", data, "empirical_likelihood", cap=1.5)


def test_weights_below_zero_match_no_choice_rather_than_a_negative_number_of_them() -> None:
    n = 200
    p, q = np.full((n, 2), 0.9), np.full((n, 2), 0.01)
    data = LoggedSlates(np.ones((n, 2)), p.prod(1), p, p.cumprod(1), q.prod(1), q, q.cumprod(1))
    found = estimate("pseudo_inverse", data)
    assert found.verdict == "unusable"
    assert "about 0.0 of 200" in " ".join(found.warnings)
