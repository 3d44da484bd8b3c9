"""What the records of logged data accept, and what they say when they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bart.errors import SupportError
from bart.ope import LoggedChoices, LoggedSlates, estimate


def choices(**changes: Any) -> LoggedChoices:
    fields: dict[str, Any] = {
        "reward": np.array([0.0, 1.0, 1.0]),
        "action": np.array([0, 1, 1]),
        "propensity": np.array([0.5, 0.25, 1.0]),
        "target_pmf": np.array([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0]]),
    }
    return LoggedChoices(**{**fields, **changes})


def slates(**changes: Any) -> LoggedSlates:
    half, whole = np.full((3, 2), 0.5), np.full(3, 0.25)
    fields: dict[str, Any] = {
        "reward": np.ones((3, 2)),
        "slate_propensity": whole,
        "marginal_propensity": half,
        "cascade_propensity": half,
        "target_slate": whole,
        "target_marginal": half,
        "target_cascade": half,
    }
    return LoggedSlates(**{**fields, **changes})


def test_a_good_record_keeps_what_it_was_given() -> None:
    data = choices(q_hat=np.full((3, 2), 0.5, dtype=np.float32))
    assert (len(data), data.n_actions) == (3, 2)
    np.testing.assert_array_equal(data.target_propensity(), [0.5, 0.9, 0.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.array([0.0, np.nan, 1.0])}, r"reward\[1\] is nan; expected a finite number"),
        ({"reward": np.array([0.0, 1.0, np.inf])}, r"reward\[2\] is inf"),
        ({"reward": np.empty(0)}, "reward is empty"),
        ({"reward": np.ones((3, 1))}, r"reward has shape \(3, 1\)"),
        ({"reward": ["a", "b", "c"]}, "reward is not an array of numbers"),
        ({"action": np.array([0, 2, 1])}, r"action\[1\] is 2; expected an integer in \[0, 2\)"),
        ({"action": np.array([0, -1, 1])}, r"action\[1\] is -1"),
        ({"action": np.array([0.0, 1.0, 1.0])}, "action has shape .* expected integers"),
        ({"action": np.array([0, 1])}, "action has 2 rows; expected 3"),
        ({"propensity": np.array([0.5, 0.0, 1.0])}, r"propensity\[1\] is 0.0; expected \(0, 1\]"),
        ({"propensity": np.array([0.5, 1.5, 1.0])}, r"propensity\[1\] is 1.5"),
        ({"propensity": np.array([0.5, np.nan, 1.0])}, r"propensity\[1\] is nan"),
        ({"target_pmf": np.array([[0.5, 0.5], [0.2, 0.9], [1.0, 0.0]])}, r"target_pmf at row \[1\] is 1.1.* in sum"),
        ({"target_pmf": np.array([[0.5, 0.5], [-0.1, 1.1], [1.0, 0.0]])}, r"target_pmf\[1, 0\] is -0.1"),
        ({"target_pmf": np.array([0.5, 0.5, 1.0])}, "target_pmf has shape"),
        ({"target_pmf": np.full((2, 2), 0.5)}, "target_pmf has 2 rows; expected 3"),
        ({"target_pmf": np.full((3, 2, 4), 0.5)}, r"expected position \[n\] with it"),
        ({"target_pmf": np.full((3, 2, 2), 0.5), "position": np.array([0, 1, 2])}, r"position\[2\] is 2"),
        ({"q_hat": np.zeros((3, 3))}, r"q_hat has shape \(3, 3\); expected \(3, 2\)"),
        ({"q_hat": np.array([[0, 0], [0, np.nan], [0, 0]])}, r"q_hat\[1, 1\] is nan"),
    ],
)
def test_bad_choices_are_refused_with_the_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choices(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.ones(3)}, "reward has shape"),
        ({"reward": np.ones((0, 2))}, "at least one slate"),
        ({"slate_propensity": np.array([0.1, 0.0, 0.1])}, r"slate_propensity\[1\] is 0.0"),
        (
            {"marginal_propensity": np.array([[0.1, 0.1], [0.1, 2.0], [0.1, 0.1]])},
            r"marginal_propensity\[1, 1\] is 2.0",
        ),
        ({"target_cascade": np.full((3, 2), 1.5)}, r"target_cascade\[0, 0\] is 1.5; expected \[0, 1\]"),
        ({"target_slate": np.full(2, 0.5)}, r"target_slate has shape \(2,\); expected \(3,\)"),
    ],
)
def test_bad_slates_are_refused_with_the_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slates(**changes)


def test_a_propensity_of_zero_can_be_caught_by_name() -> None:
    with pytest.raises(SupportError):
        choices(propensity=np.array([0.5, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate("magic", choices()), "name is 'magic'; expected one of ips, snips"),
        (lambda: estimate("ips", slates()), "name is 'ips'; expected one of slate_ips"),
        (lambda: estimate("ips", choices(), "magic"), "interval is 'magic'; expected one of empirical_likelihood"),
        (lambda: estimate("ips", choices(), level=95), "level is 95"),
        (lambda: estimate("ips", choices(), cap=3), "ips: .*its parameters are: none"),
        (lambda: estimate("clipped_ips", choices()), "clipped_ips: .*cap.*its parameters are: cap"),
        (lambda: estimate("clipped_ips", choices(), cap=0.0), "cap is 0.0; expected a number > 0"),
        (lambda: estimate("dr", choices()), "data.q_hat is None"),
        (lambda: estimate("ips", choices(), "percentile"), "rng is None"),
        (lambda: estimate("ips", choices(), reward_range=(0.0, 0.5)), r"reward_range is \(0.0, 0.5\)"),
        (lambda: estimate("ips", {"reward": [1]}), "data is a dict; expected LoggedChoices"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_call_is_answered_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
