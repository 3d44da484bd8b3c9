"""Selection among policies: paired differences, P(best), false discoveries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bart.ope import LoggedChoices
from bart.ope.comparison.best import draw_values, probability_best
from bart.ope.comparison.choices import compare_choices
from bart.ope.comparison.exploration_cost import cost_of_exploration_choices
from bart.ope.comparison.false_discovery import ADJUSTMENTS, adjusted
from bart.ope.comparison.selection import select, select_pages
from bart.ope.comparison.selection_choices import select_choices
from bart.ope.intervals.pages import Spread
from bart.ope.verdict.pages import PAGE_GATES

K = 4


def choices(rng: np.random.Generator, n: int = 2_000) -> dict[str, LoggedChoices]:
    """An epsilon-greedy log whose action 1 is the best, and policies that take 0 (as the log), 1 or 2."""
    explore = rng.random(n) < 0.4
    action = np.where(explore, rng.integers(0, K, n), 0)
    propensity = np.where(action == 0, 0.6 + 0.1, 0.1)
    reward = (rng.random(n) < np.array([0.2, 0.5, 0.2, 0.2])[action]).astype(float)
    records = {}
    for name, greedy, epsilon in (("log", 0, 0.4), ("one", 1, 0.1), ("two", 2, 0.1)):
        pmf = np.full((n, K), epsilon / K)
        pmf[:, greedy] += 1 - epsilon
        records[name] = LoggedChoices(reward, action, propensity, pmf)
    return records


def test_adjusted_p_values_are_those_of_their_definitions() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.5, 0.001])
    np.testing.assert_allclose(adjusted(p), stats.false_discovery_control(p, method="bh"))
    np.testing.assert_allclose(adjusted(p, "benjamini_yekutieli"), stats.false_discovery_control(p, method="by"))
    # Holm by its definition: each p times how many are at least as large, never below an earlier one.
    np.testing.assert_allclose(adjusted(p, "holm"), [0.04, 0.09, 0.09, 0.5, 0.005])
    assert adjusted(np.array([])).size == 0


def test_bad_p_values_and_unknown_adjustments_are_refused() -> None:
    with pytest.raises(ValueError, match="outside \\[0, 1\\]"):
        adjusted(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="expected one of benjamini_hochberg"):
        adjusted(np.array([0.1]), "bonferroni")


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_false_discoveries_stay_at_the_rate_where_tests_share_a_baseline(name: str) -> None:
    rng = np.random.default_rng(0)
    false = []
    for _ in range(2_000):
        noise = rng.normal(size=11)
        z = (noise[1:] - noise[0]) / np.sqrt(2) + np.where(np.arange(10) < 4, 3.0, 0.0)
        called = adjusted(2 * stats.norm.sf(np.abs(z)), name) <= 0.1
        false.append((called[4:]).sum() / max(called.sum(), 1))
    assert np.mean(false) <= 0.1 + 2 * np.std(false) / np.sqrt(len(false))


def test_p_best_of_two_is_the_normal_probability_of_their_difference() -> None:
    value, covariance = np.array([1.0, 0.7]), np.array([[0.09, 0.03], [0.03, 0.04]])
    expected = stats.norm.cdf(0.3 / np.sqrt(0.09 + 0.04 - 0.06))
    draw = draw_values(value, covariance, np.random.default_rng(1), draws=200_000)
    assert probability_best(draw)[0] == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(200_000))


def test_policies_that_are_one_share_the_first_place() -> None:
    draw = draw_values(np.array([1.0, 1.0, 0.0]), np.zeros((3, 3)) + 0.01, np.random.default_rng(2))
    np.testing.assert_allclose(probability_best(draw), [0.5, 0.5, 0.0])


def test_the_exchangeable_prior_is_calibrated_where_policies_are_as_close_as_their_errors() -> None:
    rng = np.random.default_rng(3)
    noise = 0.5 * np.eye(6) + 0.5
    said: dict[str, list[float]] = {"flat": [], "exchangeable": []}
    was = []
    for _ in range(300):
        true = rng.normal(0, 0.7, 6)
        estimate = rng.multivariate_normal(true, noise)
        was += (true == true.max()).tolist()
        for prior, values in said.items():
            values += probability_best(draw_values(estimate, noise, rng, prior, draws=1_000)).tolist()  # type: ignore[arg-type]
    outcome = np.array(was, dtype=float)
    off = {}
    for prior, values in said.items():
        p = np.array(values)
        sure = p > 0.5
        off[prior] = p[sure].mean() - outcome[sure].mean()
        error = np.sqrt(0.25 / sure.sum())
        if prior == "exchangeable":
            assert abs(off[prior]) < 3 * error
    # Taken at their face value, close estimates promise more than they keep: by theory .10 and more here.
    assert off["flat"] > 0.05


def test_a_policy_against_itself_differs_by_nothing() -> None:
    records = choices(np.random.default_rng(4))
    found = select_choices({"a": records["one"], "b": records["one"]}, np.random.default_rng(0))
    (pair,) = found.pairwise
    assert (pair.value, pair.lower, pair.upper, pair.p_value, pair.decision) == (0.0, 0.0, 0.0, 1.0, "undecided")
    assert found.p_best == (0.5, 0.5)


def test_the_better_policy_is_found_and_the_order_of_a_pair_only_turns_its_sign() -> None:
    records = choices(np.random.default_rng(5))
    found = select_choices(records, np.random.default_rng(0), baseline="log")
    by_name = {d.policy: d for d in found.versus_baseline}
    assert by_name["one"].decision == "better"
    assert by_name["two"].decision == "undecided"
    assert found.p_best[1] is not None
    assert found.p_best[1] > 0.99
    turned = select_choices(dict(reversed(records.items())), np.random.default_rng(0), baseline="two")
    one = next(d for d in found.pairwise if (d.policy, d.against) == ("one", "two"))
    back = next(d for d in turned.pairwise if (d.policy, d.against) == ("two", "one"))
    assert (one.value, one.lower, one.upper) == pytest.approx((-back.value, -back.upper, -back.lower), abs=1e-4)


def test_paired_intervals_cover_the_true_difference() -> None:
    # Both take their own action with .925 and every other with .025.
    truth = (0.925 - 0.025) * (0.5 - 0.2)
    inside = {"likelihood": 0, "student": 0}
    narrower = 0
    for seed in range(60):
        rng = np.random.default_rng([6, seed])
        records = choices(rng, 400)
        pair = {"one": records["one"], "two": records["two"]}
        for name, user in (("likelihood", None), ("student", np.arange(400))):
            (d,) = select_choices(pair, rng, user=user).pairwise
            inside[name] += d.lower <= truth <= d.upper
        same = {"a": records["one"], "b": replace(records["one"], target_pmf=0.9 * records["one"].target_pmf + 0.1 / K)}
        (d,) = select_choices(same, rng).pairwise
        narrower += d.standard_error < 0.2 * select_choices(same, rng).standard_error[0]
    assert min(inside.values()) >= 60 * 0.95 - 2.5 * np.sqrt(60 * 0.95 * 0.05)
    assert narrower == 60  # what two policies share cancels


def test_records_of_different_logs_are_refused() -> None:
    one, other = choices(np.random.default_rng(7)), choices(np.random.default_rng(8))
    with pytest.raises(ValueError, match=r"policies\['b'\]\.reward is not that of 'a'"):
        select_choices({"a": one["one"], "b": other["one"]}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="baseline is 'c'; expected one of a"):
        select_choices({"a": one["one"]}, np.random.default_rng(0), baseline="c")


def test_a_policy_that_the_log_cannot_judge_is_never_called_best() -> None:
    records = choices(np.random.default_rng(9), 60)  # about six rows match a policy that takes another action
    found = select_choices(records, np.random.default_rng(0))
    assert found.verdict[1:] == ("unusable", "unusable")
    assert found.p_best == (1.0, None, None)
    assert {d.decision for d in found.versus_baseline} == {"unusable"}
    assert "one, two" in found.warnings[0]


def test_selection_reads_like_plain_data() -> None:
    row = select_choices(choices(np.random.default_rng(10)), np.random.default_rng(0)).as_dict()
    assert [p["name"] for p in row["policies"]] == ["log", "one", "two"]
    assert len(row["pairwise"]) == 3
    assert set(row["versus_baseline"][0]) >= {"policy", "against", "value", "lower", "upper", "p_value", "adjusted_p"}


def spread(value: float, influence: np.ndarray, user: np.ndarray) -> Spread:
    return Spread(value, influence, user, lambda m: value + float(m @ influence / m.sum()))


def test_pages_are_compared_by_joint_replicates_of_listeners() -> None:
    rng = np.random.default_rng(11)
    user = np.repeat(np.arange(500), 4)
    common, own = np.repeat(rng.normal(size=500), 4), rng.normal(size=(2, 2_000))
    noise = [x - x.mean() for x in (common + 0.1 * own[0], common + 0.1 * own[1])]
    found = select_pages(
        {"a": spread(1.0, noise[0], user), "b": spread(1.02, noise[1], user)}, rng, bootstrap=4_000, prior="flat"
    )
    (pair,) = found.pairwise
    # Clustered: one listener's four pages are one draw, and what both policies share cancels.
    sums = np.bincount(user, noise[0] - noise[1])
    error = np.sqrt(np.sum((sums - sums.mean()) ** 2) * 500 / 499) / 2_000
    assert pair.standard_error == pytest.approx(error, rel=1e-9)
    assert pair.upper - pair.lower == pytest.approx(2 * 1.96 * error, rel=0.02)
    assert found.clusters == 500
    assert found.p_best[1] == pytest.approx(stats.norm.cdf(0.02 / error), abs=0.03)
    with pytest.raises(ValueError, match="of other pages"):
        select_pages({"a": spread(1.0, noise[0], user), "b": spread(1.0, noise[1], user[::-1])}, rng)


def test_differences_allow_for_the_bias_by_the_cap() -> None:
    rng = np.random.default_rng(21)
    user = np.arange(800)
    noise = [x - x.mean() for x in rng.normal(size=(2, 800))]
    parts = {"a": spread(1.0, noise[0], user), "b": spread(1.2, noise[1], user)}
    plain = select_pages(parts, np.random.default_rng(1)).pairwise[0]
    same = spread(0.0, noise[0], user)
    alike = select_pages(parts, np.random.default_rng(1), beyond={"a": same, "b": same}).pairwise[0]
    assert (alike.lower, alike.upper, alike.p_value) == (plain.lower, plain.upper, plain.p_value)
    left = {"a": same, "b": spread(0.0, np.zeros(800), user)}
    wide = select_pages(parts, np.random.default_rng(1), beyond=left).pairwise[0]
    deviation = PAGE_GATES.cap_allowance * same.standard_error()
    assert wide.upper - wide.value == pytest.approx(np.hypot(plain.upper - plain.value, 1.96 * deviation), rel=1e-3)
    assert wide.p_value > plain.p_value


def test_the_table_of_all_pairs_is_adjusted_for_how_many_there_are() -> None:
    rng = np.random.default_rng(22)
    influence = rng.normal(size=(400, 12))
    found = select([str(i) for i in range(12)], np.zeros(12), influence - influence.mean(axis=0), rng)
    assert len(found.pairwise) == 66
    expected = adjusted(np.array([d.p_value for d in found.pairwise]))
    assert [d.adjusted_p for d in found.pairwise] == pytest.approx(expected.tolist())
    for d in found.pairwise:
        assert (d.decision == "undecided") == (d.adjusted_p > found.false_discovery)


def test_one_user_says_nothing() -> None:
    found = select(["a", "b"], np.array([1.0, 2.0]), np.zeros((5, 2)), np.random.default_rng(0), user=np.zeros(5))
    assert found.pairwise[0].decision == "undecided"
    assert found.p_best == (None, None)
    assert "one user" in found.warnings[0]


def test_the_cost_of_exploration_is_greedy_minus_the_logs_mean_reward() -> None:
    rng = np.random.default_rng(12)
    record = choices(rng, 8_000)["log"]
    greedy = np.zeros((8_000, K))
    greedy[:, 0] = 1.0
    cost = cost_of_exploration_choices(record, greedy, rng)
    # The log's greedy action earns .2; exploring it earns .7 x .2 + .1 x (.5 + .2 + .2).
    truth = 0.2 - (0.7 * 0.2 + 0.1 * 0.9)
    assert cost["lower"] <= truth <= cost["upper"]
    assert cost["upper"] < 0  # exploring pays here
    assert cost["logging"] == pytest.approx(record.reward.mean())
    assert cost["greedy"] == pytest.approx(record.reward[record.action == 0].mean())


def test_a_comparison_of_choices_has_slices_rewards_and_shares() -> None:
    rng = np.random.default_rng(13)
    records = choices(rng)
    even = np.arange(2_000) % 2 == 0
    found = compare_choices(
        records,
        rng,
        masks={"even": even},
        rewards={"minutes": 3 * records["log"].reward},
        groups={"half": (np.array([0, 0, 1, 1]), ("low", "high"))},
    )
    log = next(row for row in found["slices"] if row["policy"] == "log")
    assert log["n"] == 1_000
    assert log["lower"] <= records["log"].reward[even].mean() <= log["upper"]
    one = next(row for row in found["rewards"] if row["policy"] == "one")
    plain = found["selection"]["policies"][1]["value"]
    assert one["value"] == pytest.approx(3 * plain)
    shares = {row["policy"]: [s["value"] for s in row["shares"]] for row in found["exposure"]["half"]}
    assert shares["one"] == pytest.approx([0.95, 0.05])
    assert shares["two"] == pytest.approx([0.05, 0.95])
