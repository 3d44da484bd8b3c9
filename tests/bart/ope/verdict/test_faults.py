"""Logs with one thing wrong are not conclusive, and what is wrong is named; the same log without it is conclusive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world
import pytest

from bart.ope import LoggedChoices, LoggedSlates, estimate
from bart.ope.comparison.evaluation import evaluate_policies
from bart.ope.policies.pages import EvaluationPolicy
from bart.ope.verdict.balance import judge_balance
from bart.ope.verdict.choices import judge
from bart.ope.verdict.order import judge_order
from bart.ope.verdict.pages import judge_listeners
from bart.types import Floats, PageBatch


def log(seed: int, n: int = 4_000, actions: int = 5) -> LoggedChoices:
    rng = np.random.default_rng(seed)
    action = np.where(rng.random(n) < 0.5, rng.integers(0, actions, n), 0)
    propensity = np.where(action == 0, 0.5 + 0.5 / actions, 0.5 / actions)
    reward = (rng.random(n) < 0.1 + 0.05 * action).astype(float)
    return LoggedChoices(reward, action, propensity, np.tile([0.1, 0.1, 0.1, 0.1, 0.6], (n, 1)))


def said(data: LoggedChoices, words: str) -> bool:
    found = estimate("snips", data)
    return found.verdict != "conclusive" and any(words in warning for warning in found.warnings)


def test_a_clean_log_is_conclusive() -> None:
    found = [estimate("snips", log(seed)).verdict for seed in range(20)]
    assert found.count("conclusive") >= 18


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.3])
def test_propensities_off_by_a_factor_are_found_where_the_mean_weight_hardly_shows_them(factor: float) -> None:
    data = log(1)
    assert said(replace(data, propensity=data.propensity * factor), "propensities are wrong")


def test_mass_on_actions_that_were_never_logged_is_named() -> None:
    data = log(2)
    kept = data.action != 3
    short = LoggedChoices(
        data.reward[kept], data.action[kept], data.propensity[kept] / 0.9, np.asarray(data.target_pmf)[kept]
    )
    assert said(short, "10% of the evaluation policy's choices are actions that the log never took (action 3)")


def test_an_action_left_out_in_some_contexts_is_named() -> None:
    rng = np.random.default_rng(3)
    n = 6_000
    segment = rng.integers(0, 4, n)
    pmf = np.full((n, 5), 0.05)
    pmf[np.arange(n), np.where(segment == 0, 4, segment)] += 0.75
    action = np.where(segment == 0, rng.integers(0, 4, n), rng.integers(0, 5, n))
    data = LoggedChoices(
        (rng.random(n) < 0.2).astype(float), action, np.where(segment == 0, 0.25, 0.2), pmf / pmf.sum(1, keepdims=True)
    )
    assert said(data, "are left out there")


def test_actions_that_were_not_on_offer_are_no_fault() -> None:
    rng = np.random.default_rng(4)
    n = 3_000
    offered = rng.random((n, 6)) < 0.5
    offered[np.arange(n), rng.integers(0, 6, n)] = True
    pmf = offered / offered.sum(axis=1, keepdims=True)
    action = np.minimum((pmf.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), 5)
    best = np.where(offered, np.arange(6), -1).argmax(axis=1)
    wanted = 0.3 * pmf
    wanted[np.arange(n), best] += 0.7
    data = LoggedChoices((rng.random(n) < 0.3).astype(float), action, pmf[np.arange(n), action], wanted)
    assert judge_balance(data) == ("conclusive", ())


def test_rewards_that_fall_over_the_log_are_said_to_be_of_no_one_time() -> None:
    data = log(5)
    keep = np.random.default_rng(5).random(len(data)) < np.linspace(1, 0, len(data))
    assert said(replace(data, reward=data.reward * keep), "rewards are not constant, from")
    moved = replace(data, reward=data.reward * keep + 100)
    assert judge_order(moved)[0] == "weak"


def test_rows_of_users_one_after_the_other_are_said_to_be_alike_unless_the_user_is_named() -> None:
    rng = np.random.default_rng(6)
    user = np.repeat(np.arange(800), 5)
    data = log(6)
    reward = (rng.random(4_000) < rng.beta(1, 2, 800)[user]).astype(float)
    alike = replace(data, reward=reward)
    assert said(alike, "name the user")
    assert any("name the user" in w for w in estimate("ips", alike, "anytime").warnings)
    assert judge_order(replace(alike, user=user)) == ("conclusive", ())


@pytest.mark.parametrize("users", [20, 100, 800])
def test_users_one_after_the_other_are_not_taken_for_drift(users: int) -> None:
    rng = np.random.default_rng(7)
    for seed in range(10):
        data = log(seed)
        rate = rng.beta(1, 2, users)[np.arange(4_000) * users // 4_000]
        why = judge_order(replace(data, reward=(rng.random(4_000) < rate).astype(float)))[1]
        assert [words.split(",")[0].split(" (")[0] for words in why] == ["rows next to one another are alike"]


def test_drift_is_named_first_where_rows_are_alike_beside_it_and_alone_where_they_are_not() -> None:
    rng = np.random.default_rng(8)
    falls = np.linspace(1, 0, 4_000)
    users = (rng.random(4_000) < falls * rng.beta(2, 2, 800)[np.arange(4_000) // 5]).astype(float)
    both = judge_order(replace(log(8), reward=users))[1]
    assert [words.split()[0] for words in both] == ["rewards", "rows"]
    alone = judge_order(replace(log(8), reward=(rng.random(4_000) < falls).astype(float)))[1]
    assert [words.split()[0] for words in alone] == ["rewards"]


def slates(seed: int, rate: Floats, n: int = 3_000, positions: int = 3) -> LoggedSlates:
    """Positions filled one by one; rate: [n] that rewards are multiplied by."""
    rng = np.random.default_rng(seed)
    logged, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    item = rng.choice(4, (n, positions), p=logged)
    reward = (rng.random((n, positions)) < (0.1 + 0.1 * item) * rate[:, None]).astype(float)
    p, q = logged[item], target[item]
    return LoggedSlates(reward, p.prod(1), p, np.cumprod(p, 1), q.prod(1), q, np.cumprod(q, 1))


def test_slates_are_held_to_the_same_order_of_rows_as_single_choices() -> None:
    users = np.arange(3_000) // 10
    own = np.random.default_rng(9).gamma(1.0, 1.0, 300)[users].clip(0, 2)
    clean, falling, alike = (slates(9, rate) for rate in (np.ones(3_000), np.linspace(1, 0, 3_000), own))
    found = [estimate("sn_independent_ips", data) for data in (clean, falling, alike)]
    assert [each.verdict for each in found] == ["conclusive", "weak", "weak"]
    assert found[1].warnings[0].startswith("rewards are not constant")
    assert found[2].warnings[0].startswith("rows next to one another are alike")
    named = estimate("sn_independent_ips", replace(alike, user=users), rng=np.random.default_rng(9))
    assert named.verdict == "conclusive"
    assert named.upper - named.lower > 1.2 * (found[2].upper - found[2].lower)


def pages(score: Floats, fall: Floats, seed: int = 10) -> PageBatch:
    """1,500 pages of two days and a half, whose appeal is multiplied by fall [1500]."""
    truth = np.random.default_rng(seed).normal(-1.2, 1.0, 1_500 * 35)
    appeal = np.repeat(fall, 35) / (1 + np.exp(-truth))
    batch = page_log_world.batch(np.random.default_rng(seed), pages=1_500, score=truth + score, appeal=appeal)
    return replace(batch, at_s=np.arange(1_500) * 240 // 3600 * 3600 + 1_700_000_000)


def test_pages_whose_rewards_fall_over_the_log_are_not_conclusive_and_a_policy_that_learns_is_no_drift() -> None:
    rng = np.random.default_rng(10)
    noise, steady = rng.normal(0, 1.5, 1_500 * 35), np.ones(1_500)
    learns = noise * np.repeat(np.linspace(2, 0.2, 1_500), 35)
    for batch, words in (
        (pages(noise, steady), ""),
        (pages(noise, np.linspace(1, 0.05, 1_500)), "rewards are not constant"),
        (pages(learns, steady), ""),
    ):
        chances = 1 / (1 + np.exp(-batch.score))
        target = EvaluationPolicy("target", chances, 0.1, 0.1)
        found = estimate("exposure_dr", target.logged(batch, chances))
        (told,) = evaluate_policies(batch, [target], rng=rng, estimators={"dr": "exposure_dr"}, q_logged=chances)
        for each in (found, told.estimates["dr"]):
            assert (each.verdict == "conclusive") == (not words), each.warnings
            assert any(w.startswith("rewards are not constant") for w in each.warnings) == bool(words)


def test_a_mean_weight_is_doubted_before_it_is_refused() -> None:
    found = {z: judge(4_000, 2_000.0, 2_000.0, 1 - 0.01 * z, 0.01)[0] for z in (1, 2.5, 5)}
    assert found == {1: "conclusive", 2.5: "weak", 5: "unusable"}
    assert judge(4_000, 2_000.0, 2_000.0, 1.025, 0.01)[0] == "conclusive"


def test_an_anytime_interval_that_crosses_itself_says_that_the_mean_was_not_constant() -> None:
    n = 40_000
    reward = (np.arange(n) < n / 2).astype(float)
    data = LoggedChoices(reward, np.zeros(n, int), np.full(n, 0.5), np.tile([0.5, 0.5], (n, 1)))
    found = estimate("ips", data, "anytime")
    assert (found.lower, found.upper) == (0.0, 1.0)
    assert any("crossed itself" in w for w in found.warnings)
    assert found.verdict != "conclusive"


def test_few_or_dominating_listeners_keep_pages_from_being_conclusive() -> None:
    assert judge_listeners(np.full(50, 30.0)) == ("conclusive", ())
    assert judge_listeners(np.full(6, 250.0))[0] == "weak"
    verdict, reasons = judge_listeners(np.array([1_050.0] + [9.0] * 50))
    assert verdict == "weak"
    assert "one listener made 70% of the pages" in reasons[0]
