"""The Open Bandit sample: what is in it, and that each policy is found in the other's log."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simulator.datasets import open_bandit


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
        assert list(rows) == ["ips", "snips", "dr", "dm", "on_policy"]
        own = rows["on_policy"]
        assert own["lower"] < own["value"] < own["upper"]
        for name in ("ips", "snips", "dr"):
            found = rows[name]
            assert found["lower"] <= own["value"] <= found["upper"]  # each interval holds the other log's mean
            assert found["lower"] < found["value"] < found["upper"]
            assert found["verdict"] == "weak"  # forty clicks: the intervals are wider than twice the value
        assert direction["verdict"] == "weak"
        assert direction["verdict_line"].startswith("weak: the interval is")


def test_the_same_seed_gives_the_same_click_model() -> None:
    log = open_bandit.load("bts")
    first, second = (open_bandit.click_model(log, np.random.default_rng(0), folds=2) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0 < first.min() < first.max() < 0.5


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="policy is 'greedy'; expected one of random, bts"):
        open_bandit.load("greedy")  # type: ignore[arg-type]
