"""The Open Bandit sample: what is in it, and that each policy is found in the other's log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bart.errors import DataError
from bart.ope import LoggedChoices
from simulator.datasets.open_bandit import campaign as open_bandit
from simulator.datasets.open_bandit import replay as open_bandit_replay


def test_the_logs_hold_what_the_paper_describes() -> None:
    for policy, clicks in (("random", 38), ("bts", 42)):
        log = open_bandit.load(policy)  # type: ignore[arg-type]
        assert len(log) == 10_000
        assert log.click.sum() == clicks
        assert set(log.position.tolist()) == {0, 1, 2}
        assert (log.item.min(), log.item.max()) == (0, 79)
        assert (np.diff(log.timestamp) >= np.timedelta64(0)).all()
        assert ((log.propensity > 0) & (log.propensity <= 1)).all()
    np.testing.assert_array_equal(open_bandit.load("random").propensity, 1 / 80)


def test_policies_are_pmfs_at_each_position() -> None:
    for policy in open_bandit.POLICIES:
        pmf = open_bandit.policy_pmf(policy)
        assert pmf.shape == (80, 3)
        np.testing.assert_allclose(pmf.sum(axis=0), 1.0, atol=1e-12)


def test_the_uniform_policy_on_its_own_log_is_the_mean_click_rate() -> None:
    from bart.ope import estimate

    log = open_bandit.load("random")
    found = estimate("snips", open_bandit.choices(log, "random"))
    assert found.value == pytest.approx(log.click.mean(), rel=1e-9)
    assert found.effective_sample_size == pytest.approx(10_000)


def test_each_policy_is_estimated_from_the_other_log_beside_its_own_mean() -> None:
    report = open_bandit.evaluate(np.random.default_rng(0))
    json.dumps(report)
    assert [(d["log"], d["policy"]) for d in report["directions"]] == [
        ("uniform", "Thompson sampling"),
        ("Thompson sampling", "uniform"),
    ]
    for direction in report["directions"]:
        rows = {row["name"]: row for row in direction["estimates"]}
        assert list(rows) == ["ips", "snips", "dr", "dm", "replay", "on_policy"]
        own = rows["on_policy"]
        for name, row in rows.items():
            assert row["relative_error"] == pytest.approx(abs(row["value"] / own["value"] - 1)), name
        assert rows["replay"]["n"] < 10_000 / 10
        assert rows["replay"]["lower"] <= own["value"] <= rows["replay"]["upper"]
        errors = direction["bootstrap_relative_error"]
        assert list(errors) == ["ips", "snips", "dr", "dm", "replay"]
        assert all(0 <= e["lower"] <= e["mean"] <= e["upper"] for e in errors.values())
        assert own["lower"] < own["value"] < own["upper"]
        for name in ("ips", "snips", "dr"):
            found = rows[name]
            assert found["lower"] <= own["value"] <= found["upper"]  # each interval holds the other log's mean
            assert found["lower"] < found["value"] < found["upper"]
            assert found["verdict"] == "weak"  # forty clicks: the intervals are wider than twice the value
        assert direction["verdict"] == "weak"
        assert direction["verdict_line"].startswith("weak: ")
        assert "the interval is" in direction["verdict_line"]


def test_the_same_seed_gives_the_same_click_model() -> None:
    log = open_bandit.load("bts")
    first, second = (open_bandit.click_model(log, np.random.default_rng(0), folds=2) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0 < first.min() < first.max() < 0.5


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="policy is 'greedy'; expected one of random, bts"):
        open_bandit.load("greedy")  # type: ignore[arg-type]


def made(n: int, seed: int) -> tuple[LoggedChoices, float]:
    """A log of three actions and the value of the target policy, known exactly."""
    rng = np.random.default_rng(seed)
    logging, target, rate = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7]), np.array([0.2, 0.5, 0.8])
    action = rng.choice(3, size=n, p=logging)
    reward = (rng.random(n) < rate[action]).astype(float)
    data = LoggedChoices(reward, action, logging[action], np.broadcast_to(target, (n, 3)))
    return data, float(target @ rate)


def test_replay_keeps_rows_as_the_other_policy_would_choose_them() -> None:
    data, truth = made(40_000, 0)
    kept = open_bandit_replay.accepted(data.propensity, data.target_propensity(), np.random.default_rng(1))
    share = np.bincount(data.action[kept], minlength=3) / kept.sum()
    np.testing.assert_allclose(share, [0.1, 0.2, 0.7], atol=5 * 0.5 / np.sqrt(kept.sum()))
    assert kept.mean() == pytest.approx(1 / 3.5, abs=0.01)  # one in (largest weight)
    found = open_bandit_replay.replay_estimate(data, np.random.default_rng(1))
    assert (found.name, found.n) == ("replay", kept.sum())
    assert found.lower < truth < found.upper


def test_relative_errors_shrink_as_the_log_grows_and_vanish_for_an_exact_model() -> None:
    small, truth = made(400, 2)
    large, _ = made(40_000, 3)
    few, many = (
        open_bandit_replay.relative_errors(d, truth, ("ips", "snips"), np.random.default_rng(0), samples=50)
        for d in (small, large)
    )
    for name in ("ips", "snips", "replay"):
        assert many[name].mean < few[name].mean / 3
    rate = np.array([0.2, 0.5, 0.8])
    known = LoggedChoices(
        large.reward, large.action, large.propensity, large.target_pmf, np.broadcast_to(rate, (40_000, 3))
    )
    exact = open_bandit_replay.relative_errors(known, truth, ("dm",), np.random.default_rng(0), samples=3)["dm"]
    assert exact.mean < 1e-9


def test_a_log_of_the_logged_action_and_all_others_gives_the_same_estimates() -> None:
    rng = np.random.default_rng(0)
    n, k = 300, 6
    pmf, q_hat = rng.dirichlet(np.ones(k), size=(n, 2)).transpose(0, 2, 1), rng.random((n, k))
    data = LoggedChoices(
        rng.random(n), rng.integers(0, k, n), rng.uniform(0.1, 1, n), pmf, q_hat, rng.integers(0, 2, n)
    )
    small = open_bandit_replay.collapsed(data)
    assert small.n_actions == 2
    for name in ("ips", "snips", "dr", "dm"):
        one, two = (open_bandit_replay.ESTIMATORS[name](d).value() for d in (data, small))
        assert one == pytest.approx(two, rel=1e-12), name


def test_csv_files_of_a_campaign_are_evaluated_in_both_directions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for policy, pmf in (("random", np.full(4, 0.25)), ("bts", np.array([0.1, 0.2, 0.3, 0.4]))):
        item = rng.choice(4, size=3_000, p=pmf)
        click = rng.random(3_000) < 0.1 * (1 + item)
        folder = tmp_path / policy / "women"
        folder.mkdir(parents=True)
        rows = [
            f"{i},2019-11-24 00:00:00+00:00,{a},{1 + i % 3},{int(c)},{pmf[a]}"
            for i, (a, c) in enumerate(zip(item, click, strict=True))
        ]
        head = ",timestamp,item_id,position,click,propensity_score"
        (folder / "women.csv").write_text("\n".join([head, *rows]) + "\n")
    found = open_bandit_replay.both_directions(tmp_path, "women", np.random.default_rng(1), samples=5)
    for (_, policy), both in found.items():
        estimates, errors = both.estimates, both.relative_errors
        own = estimates["on_policy"]
        assert own.value == pytest.approx({"random": 0.25, "bts": 0.30}[policy], abs=0.04)
        for name in ("ips", "snips", "replay"):
            assert estimates[name].value == pytest.approx(own.value, abs=0.06)
        assert set(errors) == {"ips", "snips", "replay"}
    report = open_bandit.evaluate_folder(tmp_path, "women", np.random.default_rng(1))
    assert report["campaign"] == "women"
    first = report["directions"][0]
    assert first["title"] == "Thompson sampling policy, estimated from the uniform policy's log"
    assert [row["name"] for row in first["estimates"]] == ["ips", "snips", "replay", "on_policy"]
    assert first["verdict"] == first["estimates"][1]["verdict"]
    with pytest.raises(DataError, match=r"men.csv does not exist; expected .*, and --campaign women"):
        open_bandit_replay.read_csv_log(tmp_path, "bts", "men")
