"""Arms against the first one: corrected, decided only with enough listeners, checked against their shares."""

from __future__ import annotations

import numpy as np
import pytest

from api.upkeep.arms import check_shares, compare_means
from bart.ope.intervals.clusters import Clustered, clustered_mean


def mean(value: float, listeners: int = 200, error: float = 0.02, largest: float = 0.02) -> Clustered:
    return Clustered(value, error, listeners - 1.0, 10 * listeners, listeners, largest, 1.0)


def test_more_arms_widen_the_differences_and_leave_each_arms_own_interval() -> None:
    two = compare_means({"a": mean(1.0), "b": mean(1.1)}, 0.95)
    five = compare_means({name: mean(1.0 + 0.1 * i) for i, name in enumerate("abcde")}, 0.95)
    assert two[0].difference is None
    assert two[0].decision is None
    assert two[1].difference_upper < five[1].difference_upper
    assert two[1].once_upper < five[1].once_upper < five[1].difference_upper
    assert (two[1].lower, two[1].upper) == (five[1].lower, five[1].upper)


def test_a_clear_difference_is_decided_and_one_from_few_or_dominated_listeners_is_not() -> None:
    assert [one.decision for one in compare_means({"a": mean(1.0), "b": mean(2.0), "c": mean(0.5)}, 0.95)] == [
        None,
        "better",
        "worse",
    ]
    few = compare_means({"a": mean(1.0, 6), "b": mean(3.0)}, 0.95)
    assert few[1].decision == "open"
    assert "6 listeners; 20 an arm are needed" in few[0].notes[0]
    one = compare_means({"a": mean(1.0), "b": mean(3.0, largest=0.4)}, 0.95)
    assert one[1].decision == "open"
    assert "one listener made 40%" in one[1].notes[0]


def test_an_arm_of_one_listener_has_a_value_and_no_interval() -> None:
    single = clustered_mean(np.array([1.0, 0.0]), np.array(["u", "u"]))
    (first, second) = compare_means({"a": single, "b": mean(1.0)}, 0.95)
    assert (first.value, first.lower, second.difference_lower) == (0.5, None, None)


def test_arms_filled_by_their_shares_pass_and_a_loss_in_one_arm_is_found() -> None:
    rng = np.random.default_rng(0)
    user = np.array([f"u{i}" for i in range(2_000)], dtype=object)
    arm = np.where(rng.random(2_000) < 0.25, "b", "a").astype(object)
    share = {"a": 0.6, "b": 0.2}
    fair = check_shares(user, arm, share)
    assert fair["p_value"] > 0.001
    assert fair["warnings"] == []
    kept = (arm == "a") | (rng.random(2_000) < 0.7)
    lost = check_shares(user[kept], arm[kept], share)
    assert lost["p_value"] < 0.001
    assert "no comparison holds" in lost["warnings"][0]


def test_listeners_of_several_arms_are_counted_apart() -> None:
    found = check_shares(np.array(["u", "u", "v"]), np.array(["a", "b", "b"]), {"a": 0.5, "b": 0.5})
    assert found["listeners"] == {"a": 0, "b": 1}
    assert found["several_arms"] == 1
    assert "several arms" in found["warnings"][0]
    assert check_shares(np.array(["u"]), np.array([""]), {"a": 0.5, "b": 0.5})["p_value"] == pytest.approx(1.0)
