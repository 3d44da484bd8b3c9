"""Limits where a handful of rows carries the estimate, against exact ones and against the zero of rewards."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bart.ope import LoggedChoices, estimate
from bart.ope.comparison.selection_choices import select_choices
from bart.ope.intervals.choices import INTERVALS, Setting, design_effect
from bart.ope.intervals.few_hits import binomial_limits


def hits_log(n: int, hits: int, rewarded: int, share: float = 0.02) -> LoggedChoices:
    """`hits` of n rows take the evaluation policy's only action, `rewarded` of them with success."""
    action = (np.arange(n) < hits).astype(int)
    reward = (np.arange(n) < rewarded).astype(float)
    return LoggedChoices(reward, action, np.where(action == 1, share, 1 - share), np.tile([0.0, 1.0], (n, 1)))


@pytest.mark.parametrize("hits", [3, 4, 8, 29])
def test_with_no_reward_the_upper_end_is_the_exact_binomial_one(hits: int) -> None:
    n = 50 * hits
    found = estimate("snips", hits_log(n, hits, 0))
    assert found.upper == pytest.approx(stats.beta.ppf(0.975, 1, hits), rel=0.01)
    assert found.lower == 0.0


@pytest.mark.parametrize(("hits", "rewarded"), [(5, 1), (8, 6), (20, 2), (40, 8)])
def test_limits_lie_between_mid_p_and_exact_ones(hits: int, rewarded: int) -> None:
    found = estimate("snips", hits_log(50 * hits, hits, rewarded))
    exact = stats.beta.ppf(0.025, rewarded, hits - rewarded + 1), stats.beta.ppf(0.975, rewarded + 1, hits - rewarded)
    mid = stats.beta.ppf([0.025, 0.975], rewarded + 0.5, hits - rewarded + 0.5)
    assert exact[0] - 0.02 < found.lower < mid[0] + 1e-9
    assert mid[1] - 1e-9 < found.upper < exact[1] + 0.02


def test_a_share_of_which_nothing_was_drawn_may_be_anything() -> None:
    assert binomial_limits(0.5, 0.0, 0.025) == (0.0, 1.0)


def test_an_interval_covers_with_four_hits_on_average_whatever_they_earn() -> None:
    """Exactly, over the number of hits and of rewards among them: no simulation."""
    covered = {}
    for truth in (0.14, 0.3, 0.6):
        inside = 0.0
        for hits in range(1, 16):
            for rewarded in range(hits + 1):
                chance = stats.poisson.pmf(hits, 4) * stats.binom.pmf(rewarded, hits, truth)
                if chance > 1e-4:
                    lower, upper = INTERVALS["empirical_likelihood"](_terms(hits, rewarded), Setting())
                    inside += chance * (lower <= truth <= upper)
        covered[truth] = inside / (1 - stats.poisson.pmf(0, 4))
    assert min(covered.values()) > 0.945, covered


def _terms(hits: int, rewarded: int):  # type: ignore[no-untyped-def]
    from bart.ope.estimators.choices import snips

    return snips(hits_log(200, hits, rewarded))


@pytest.mark.parametrize(
    ("name", "interval"), [("snips", None), ("sndr", None), ("snips", "bernstein"), ("snips", "clopper_pearson")]
)
@pytest.mark.parametrize("zero", [1.0, -7.0, 100.0, 1e4, 1e6])
def test_value_and_interval_move_with_the_zero_of_rewards_and_by_nothing_else(
    name: str, interval: str | None, zero: float
) -> None:
    rng = np.random.default_rng(0)
    n, p = 1_000, np.array([0.7, 0.2, 0.1])
    action = rng.choice(3, size=n, p=p)
    reward = rng.integers(0, 5, n).astype(float)
    pmf = np.tile([0.2, 0.3, 0.5], (n, 1))
    model = rng.uniform(1, 3, (n, 3))
    plain = estimate(name, LoggedChoices(reward, action, p[action], pmf, model), interval, reward_range=(0, 4))
    there = LoggedChoices(reward + zero, action, p[action], pmf, model + zero)
    moved = estimate(name, there, interval, reward_range=(zero, zero + 4))
    ends = [moved.value - zero, moved.lower - zero, moved.upper - zero]
    np.testing.assert_allclose(ends, [plain.value, plain.lower, plain.upper], atol=1e-9 + 1e-9 * abs(zero))
    assert moved.verdict == plain.verdict


def test_differences_of_policies_do_not_depend_on_the_zero_of_rewards() -> None:
    rng = np.random.default_rng(1)
    n, p = 2_000, np.array([0.5, 0.3, 0.2])
    action = rng.choice(3, size=n, p=p)
    reward = rng.random(n) * (1 + action) / 3
    found = []
    for zero in (0.0, 50.0):
        records = {
            name: LoggedChoices(reward + zero, action, p[action], np.tile(pmf, (n, 1)))
            for name, pmf in (("a", [0.2, 0.3, 0.5]), ("b", [0.6, 0.3, 0.1]))
        }
        chosen = select_choices(records, np.random.default_rng(0), reward_range=(zero, zero + 1))
        pair = chosen.as_dict()["pairwise"][0]
        found.append([pair["value"], pair["lower"], pair["upper"]])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_rows_of_users_named_in_the_record_widen_the_interval_by_their_design_effect() -> None:
    rng = np.random.default_rng(2)
    user = np.repeat(np.arange(100), 20)
    reward = (rng.random(2_000) < rng.beta(1, 3, 100)[user]).astype(float)
    action = rng.integers(0, 2, 2_000)
    pmf = np.tile([0.4, 0.6], (2_000, 1))
    apart = LoggedChoices(reward, action, np.full(2_000, 0.5), pmf)
    named = LoggedChoices(reward, action, np.full(2_000, 0.5), pmf, user=user)
    from bart.ope.estimators.choices import snips

    effect, users = design_effect(snips(named), user)
    assert users == 100
    one, by_user = estimate("snips", apart), estimate("snips", named)
    ratio = np.sqrt(effect) * stats.t.ppf(0.975, 99) / stats.norm.ppf(0.975)
    assert by_user.width == pytest.approx(one.width * ratio, rel=0.03)
    with pytest.raises(ValueError, match="anytime takes rows as independent"):
        estimate("snips", named, "anytime")
    with pytest.raises(ValueError, match="user has 3 rows; expected 2000"):
        LoggedChoices(reward, action, np.full(2_000, 0.5), pmf, user=user[:3])


def test_a_value_beyond_what_is_possible_is_shown_at_its_end_and_a_mean_weight_off_one_is_said() -> None:
    data = hits_log(300, 9, 8)
    found = estimate("ips", data)
    assert found.value == found.upper == 1.0
    assert any("beyond what is possible" in w for w in found.warnings)
    fewer = estimate("ips", hits_log(300, 5, 1))
    assert any("weights average 0.833, and this estimator moves with that" in w for w in fewer.warnings)
    assert not any("moves with that" in w for w in estimate("snips", hits_log(300, 5, 1)).warnings)
