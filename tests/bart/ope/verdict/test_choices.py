"""The verdict on a log, whatever its rewards."""

from __future__ import annotations

import numpy as np
import pytest

from bart.ope import LoggedChoices, diagnose, estimate
from bart.ope.verdict.choices import (
    diagnose_weights,
    judge,
    position_balance,
    propensity_error,
    support_violations,
    top_share,
    worse,
)
from bart.ope.weights.choices import effective_sample_size, importance_weight


def heavy_log(reward: float) -> LoggedChoices:
    """A thousand rows of which two carry nearly all the weight."""
    n = 1_000
    propensity = np.full(n, 0.998)
    propensity[:2] = 0.002
    pmf = np.tile([0.998, 0.002], (n, 1))
    pmf[:2] = [0.002, 0.998]
    action = np.ones(n, dtype=int)
    return LoggedChoices(np.full(n, reward), action, propensity, pmf)


@pytest.mark.parametrize("reward", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ips", "snips", "clipped_ips", "ncis"])
def test_a_log_with_an_effective_sample_size_of_two_is_unusable_at_any_reward(reward: float, name: str) -> None:
    data = heavy_log(reward)
    assert diagnose(data).effective_sample_size == pytest.approx(2.0, abs=0.02)
    found = estimate(name, data, **({"cap": 5.0} if name in ("clipped_ips", "ncis") else {}))
    assert found.verdict == "unusable"
    assert "effective sample size 2.0 of 1000" in " ".join(found.warnings)


def test_equal_policies_leave_every_row_effective() -> None:
    found = diagnose_weights(np.ones(500), np.ones(500))
    assert found.effective_sample_size == pytest.approx(500)
    assert (found.overlap, found.matches, found.mean_weight, found.verdict) == (1.0, 500.0, 1.0, "conclusive")
    assert found.needed == 500


def test_few_matches_are_unusable_and_the_rows_needed_are_said() -> None:
    weight = np.zeros(10_000)
    weight[:8] = 1_250.0
    found = diagnose_weights(weight, np.ones(10_000))
    assert found.verdict == "unusable"
    assert found.matches == pytest.approx(8.0)
    assert "about 8.0 of 10000 logged choices match" in found.reasons[0]
    assert "10,000 more rows" in found.reasons[0]
    assert found.needed == 125_000


def test_a_uniform_target_over_many_actions_needs_no_matches_by_luck() -> None:
    """A thousand actions, both policies uniform: hardly any choice is certain, all rows count."""
    found = diagnose_weights(np.ones(200), np.ones(200))
    assert found.verdict == "conclusive"


def test_weights_that_do_not_average_one_are_called_out() -> None:
    rng = np.random.default_rng(0)
    found = diagnose_weights(0.7 * rng.uniform(0.5, 1.5, 5_000), np.ones(5_000))
    assert found.verdict == "unusable"
    assert "propensities are wrong" in found.reasons[0]


def test_verdicts_are_ordered() -> None:
    assert worse("conclusive", "weak") == "weak"
    assert worse("unusable", "weak") == "unusable"
    assert judge(1_000, 50.0, 500.0, 1.0, 0.1)[0] == "weak"
    assert judge(1_000, 500.0, 500.0, 1.0, 0.1, top_reward_share=0.8)[0] == "weak"
    assert judge(1_000, 500.0, 500.0, 1.0, 0.1) == ("conclusive", ())


def test_an_interval_wider_than_twice_the_value_is_weak() -> None:
    reward = np.zeros(400)
    reward[0] = 1.0
    same = LoggedChoices(reward, np.zeros(400, int), np.ones(400), np.ones((400, 1)))
    assert diagnose(same).verdict == "conclusive"
    found = estimate("ips", same)
    assert found.verdict == "weak"
    assert "times the value" in " ".join(found.warnings)


def test_the_effective_sample_size_ignores_the_scale_of_weights() -> None:
    weight = np.random.default_rng(0).random(100)
    assert effective_sample_size(7 * weight) == pytest.approx(effective_sample_size(weight))
    assert effective_sample_size(np.zeros(3)) == 0.0
    with pytest.raises(ValueError, match=r"propensity\[1\] is 0.0"):
        importance_weight(np.ones(2), np.array([1.0, 0.0]))


def test_the_top_share_does_not_depend_on_the_order_of_ties() -> None:
    carried = np.zeros(1_000)
    carried[:100] = 1.0
    weight = np.ones(1_000)
    assert top_share(weight, carried) == pytest.approx(0.01)
    assert top_share(weight, carried[::-1].copy()) == pytest.approx(0.01)
    weight[:10] = 5.0
    assert top_share(weight, carried) == pytest.approx(0.1)


def test_support_and_propensities_can_be_replayed() -> None:
    logging = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    data = LoggedChoices(np.ones(2), np.array([0, 2]), np.array([0.5, 0.5]), np.array([[0.2, 0.3, 0.5]] * 2))
    np.testing.assert_array_equal(support_violations(data, logging), [0])
    assert propensity_error(data, logging) == 0.0
    assert propensity_error(data, logging[::-1]) == pytest.approx(0.5)


def test_positions_are_told_apart() -> None:
    data = LoggedChoices(
        np.array([1.0, 0.0, 1.0]), np.zeros(3, int), np.full(3, 0.5), np.full((3, 2), 0.5), position=np.array([0, 2, 2])
    )
    found = position_balance(data)
    np.testing.assert_array_equal(found.position, [0, 2])
    np.testing.assert_array_equal(found.rows, [1, 2])
    np.testing.assert_allclose(found.mean_reward, [1.0, 0.5])
    np.testing.assert_allclose(found.effective_sample_size, [1.0, 2.0])
