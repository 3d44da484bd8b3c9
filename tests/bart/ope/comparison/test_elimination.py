"""Policies that leave once another is shown to be better: the best stays at every look, also on adaptive logs."""

from __future__ import annotations

import numpy as np
import pytest

from bart.ope import LoggedChoices
from bart.ope.comparison.elimination import Elimination, eliminate

ARMS = 3


def adaptive(rng: np.random.Generator, n: int, rate: list[float]) -> dict[str, LoggedChoices]:
    """A log that goes after what earned most so far, and a policy for each arm."""
    hits, shown = np.ones(ARMS), np.full(ARMS, 3.0)
    action, propensity = np.empty(n, dtype=np.int64), np.empty(n)
    reward = np.empty(n)
    for i in range(n):
        pmf = np.full(ARMS, 0.1)
        pmf[np.argmax(hits / shown)] += 0.7
        action[i] = rng.choice(ARMS, p=pmf)
        propensity[i] = pmf[action[i]]
        reward[i] = rng.random() < rate[action[i]]
        hits[action[i]] += reward[i]
        shown[action[i]] += 1
    pmf = np.eye(ARMS) * 0.91 + 0.03
    return {f"arm {a}": LoggedChoices(reward, action, propensity, np.tile(pmf[a], (n, 1))) for a in range(ARMS)}


def test_the_best_policy_is_kept_at_every_look_of_an_adaptive_log() -> None:
    lost = 0
    for seed in range(60):
        found = eliminate(adaptive(np.random.default_rng(seed), 300, [0.3, 0.3, 0.32]), level=0.8)
        lost += "arm 2" not in found.left
    assert lost <= 60 * 0.2  # at most one in five promised; measured far below


def test_a_policy_that_is_far_behind_leaves_and_it_is_told_when_and_by_whom() -> None:
    log = adaptive(np.random.default_rng(1), 1_500, [0.05, 0.1, 0.9])
    found = eliminate(log)
    assert found.left == ("arm 2",)
    first = found.standings[0]
    assert (first.by, first.policy) == ("arm 2", "arm 0")
    assert first.eliminated_at is not None
    assert 20 < first.eliminated_at < 1_500
    assert first.behind is not None
    assert 0 < first.behind < 0.85 * 0.91
    end = first.eliminated_at
    shorter = {
        name: LoggedChoices(r.reward[:end], r.action[:end], r.propensity[:end], r.target_pmf[:end])
        for name, r in log.items()
    }
    assert eliminate(shorter).standings[0].eliminated_at == first.eliminated_at  # as it was seen on that day


def test_equal_policies_and_a_single_one_stay() -> None:
    log = adaptive(np.random.default_rng(2), 300, [0.2, 0.4, 0.6])
    same = log["arm 1"]
    assert eliminate({"one": same, "other": same}).left == ("one", "other")
    assert eliminate({"one": same}).left == ("one",)


def test_rewards_of_any_range_give_the_same_rows_and_scaled_gaps() -> None:
    log = adaptive(np.random.default_rng(3), 800, [0.05, 0.1, 0.9])
    moved = {n: LoggedChoices(5 * r.reward - 3, r.action, r.propensity, r.target_pmf) for n, r in log.items()}

    def rows(found: Elimination) -> list[int | None]:
        return [each.eliminated_at for each in found.standings]

    one, other = eliminate(log), eliminate(moved, reward_range=(-3.0, 2.0))
    assert rows(one) == rows(other)
    assert other.standings[0].behind == pytest.approx(5 * (one.standings[0].behind or 0))


def test_rows_that_are_no_sequence_are_refused() -> None:
    log = adaptive(np.random.default_rng(4), 50, [0.2, 0.4, 0.6])
    one = log["arm 1"]
    named = LoggedChoices(one.reward, one.action, one.propensity, one.target_pmf, user=np.arange(50) % 5)
    with pytest.raises(ValueError, match="named users"):
        eliminate({"a": named})
    with pytest.raises(ValueError, match="expected reward_range"):
        eliminate({"a": one}, reward_range=(0.0, 0.5))
