"""Estimates against the truth of a simulated world: scenes, logs, close policies, and what the study reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bart.ope import estimate
from bart.ope.verdict.pages import replay_error
from simulator.loop.truth import page_appeal
from simulator.reading.browsing import page_value, world_params
from simulator.study.evaluation import LogResult, StudyConfig, describe_study, parsed, study, study_log, summarise_study
from simulator.study.fresh import fresh_values, log_visits
from simulator.study.scene import (
    Scene,
    SceneConfig,
    SceneLog,
    listeners_of,
    log_scene,
    make_scene,
    scene_value,
    with_target,
)
from simulator.study.selection import SCORERS, chance_of_best, kendall_tau, regret, score_of

SMALL = SceneConfig(tracks=400, shelves=5, cards=8, rows=3, columns=3)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(600, np.random.default_rng(1), SMALL)


@pytest.fixture(scope="module")
def log(scene: Scene) -> SceneLog:
    return log_scene(scene, 0.3, world_params("W3"), np.random.default_rng(2))


@pytest.fixture(scope="module")
def small() -> StudyConfig:
    return StudyConfig(
        world="W1", pages=150, logs=2, estimators=("exposure_dr", "page_ncis"), scorers=SCORERS[::4], scene=SMALL
    )


def test_the_same_seed_makes_the_same_scene_and_log(scene: Scene, log: SceneLog) -> None:
    again = make_scene(600, np.random.default_rng(1), SMALL)
    assert (again.appeal == scene.appeal).all()
    other = log_scene(again, 0.3, world_params("W3"), np.random.default_rng(2))
    assert (other.pages.order == log.pages.order).all()
    assert (other.pages.reward == log.pages.reward).all()


def test_a_log_holds_the_displayed_pages_with_propensities_that_its_ranks_give(scene: Scene, log: SceneLog) -> None:
    assert 0.9 < len(log.pages) / len(scene) < 1
    assert replay_error(log.pages) == 0
    # By the definition, at the first choice of a page: epsilon / n, and 1 - epsilon for the best.
    best = log.score.reshape(-1, 5, 8).max(axis=2).argmax(axis=1)
    expected = 0.3 / 5 + 0.7 * (log.pages.row_shelf[:, 0] == best)
    assert log.pages.shelf_propensity[:, 0] == pytest.approx(expected)


def test_rewards_of_a_log_are_those_of_the_true_appeal(log: SceneLog) -> None:
    appeal, present = page_appeal(log.scene.appeal, log.scene.offset, log.pages.order)
    expected = page_value(appeal, present, world_params("W3"))
    reward = log.pages.page_reward
    assert reward.mean() == pytest.approx(expected.mean(), abs=4 * (reward - expected).std() / np.sqrt(len(reward)))


def test_the_true_value_of_the_logging_policy_is_the_mean_of_its_pages(log: SceneLog) -> None:
    value, error = scene_value(log.scene, log.score, 0.3, world_params("W3"), np.random.default_rng(3), draws=8)
    reward = log.pages.page_reward
    assert value == pytest.approx(reward.mean(), abs=4 * (error + reward.std() / np.sqrt(len(reward))))


def test_insight_raises_a_policys_value_and_noise_lowers_it(scene: Scene) -> None:
    def value(insight: float, noise: float) -> float:
        scorer = replace(SCORERS[0], insight=insight, noise=noise)
        score = score_of(scorer, scene, scene.model, np.random.default_rng(4))
        return scene_value(scene, score, 0.05, world_params("W1"), np.random.default_rng(5))[0]

    assert value(0.0, 0.0) < value(0.5, 0.0) < value(1.0, 0.0)
    assert value(0.5, 2.0) < value(0.5, 0.0)
    assert (
        score_of(replace(SCORERS[0], insight=0.0, noise=0.0), scene, scene.model, np.random.default_rng(4))
        == scene.model
    ).all()


def test_the_logging_policy_as_its_own_target_is_estimated_at_its_mean_reward(log: SceneLog) -> None:
    data = with_target(log, log.score, 0.3)
    assert estimate("exposure_dr", data).value == pytest.approx(data.page_reward.mean(), rel=1e-9)


def test_tau_regret_and_the_chance_of_the_best_are_what_they_say() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    assert kendall_tau(truth, truth**2) == 1
    assert kendall_tau(truth, -truth) == -1
    assert kendall_tau(truth, np.array([2.0, 1.0, 3.0, 4.0])) == pytest.approx(1 - 2 / 6)  # one pair of six swapped
    assert kendall_tau(truth, np.zeros(4)) == 0
    assert regret(truth, np.array([0.0, 0.0, 1.0, 0.0])) == pytest.approx(0.25)
    assert chance_of_best(truth, np.array([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 2], [1, 0, 0, 2.0]])) == 0.75


def test_a_study_is_the_same_in_one_process_and_in_two(small: StudyConfig) -> None:
    one, two = study(small), study(small, jobs=2)
    assert json.dumps(describe_study(small, one)) == json.dumps(describe_study(small, two))
    assert [r.log for r in one] == [0, 1]


def test_the_summary_counts_errors_and_coverage_over_logs_and_policies() -> None:
    def result(log: int, value: list[float]) -> LogResult:
        v = np.array(value)
        return LogResult(
            log=log,
            pages=10,
            mean_reward=1.0,
            truth=np.array([1.0, 2.0]),
            truth_error=np.zeros(2),
            own_truth=np.array([1.1, 2.0]),
            value={"dm": v},
            lower={"dm": v - 0.15},
            upper={"dm": v + 0.15},
            effective_sample_size={"dm": np.full(2, 10.0)},
            verdict={"dm": ("weak", "conclusive")},
            chance_of_best={"dm": 0.5},
        )

    found = summarise_study([result(0, [1.1, 2.0]), result(1, [1.2, 1.0])])["dm"]
    assert found["kendall_tau"] == [1.0, -1.0]
    assert found["mean_kendall_tau"] == 0
    assert found["bias"] == pytest.approx((0.1 + 0 + 0.2 - 0.5) / 4)
    assert found["relative_rmse"] == pytest.approx(np.sqrt((0.01 + 0.04 + 0.25) / 4))
    assert found["coverage"] == 0.5
    assert found["conclusive_coverage"] == 0.5
    # 1.1 and 2.0 are right; of 1.2 and 1.0 the latter, which is far off, was called conclusive.
    assert (found["false_conclusive"], found["false_weak"]) == (0.25, 0.25)
    assert found["own_coverage"] == 0.75
    assert found["coverage_error"] == pytest.approx(0.5)
    assert found["regret"] == [0.0, 0.5]
    assert found["verdicts"] == {"conclusive": 2, "weak": 2, "unusable": 0}


def test_a_study_reports_what_policies_are_worth_to_fresh_listeners_and_on_the_logs_own_visits(
    small: StudyConfig,
) -> None:
    result = study_log(small, 0)
    assert result.pages <= 150
    assert (result.truth_error < 0.1 * result.truth).all()
    assert (np.abs(result.own_truth / result.truth - 1) < 0.5).all()
    assert (result.lower["exposure_dr"] < result.truth).any()
    assert set(result.value) == {"exposure_dr", "page_ncis"}


def test_logs_of_one_world_share_its_true_values_and_no_listener(small: StudyConfig) -> None:
    worlds = small.worlds
    first, second, other = (set(log_visits(worlds, log).listener.tolist()) for log in (0, 1, worlds.logs))
    assert not first & second
    assert max(first | second) < worlds.logs * listeners_of(worlds.visits, SMALL)
    assert first & other  # of another world: the same places of another population
    one, two = study_log(small, 0), study_log(small, 1)
    assert (one.truth == two.truth).all()
    assert (one.own_truth != two.own_truth).all()


def test_true_values_do_not_depend_on_what_is_read_beside(small: StudyConfig) -> None:
    alone, _ = fresh_values(small.worlds, 0)
    beside, error = fresh_values(replace(small, beside=("W2",)).worlds, 0)
    assert (alone[0] == beside[0]).all()
    assert (beside[0] > beside[1]).all()  # W2 ends at the first stream
    assert (error > 0).all()


def test_an_estimator_takes_parameters_behind_its_name(small: StudyConfig) -> None:
    assert parsed("exposure_dr:cap=20:reach=conditioned") == ("exposure_dr", {"cap": 20.0, "reach": "conditioned"})
    names = ("page_ncis", "page_ncis:cap=20", "page_ncis:cap=1")
    found = study_log(replace(small, estimators=names), 0).value
    assert (found["page_ncis"] == found["page_ncis:cap=20"]).all()
    assert (found["page_ncis"] != found["page_ncis:cap=1"]).any()
    with pytest.raises(ValueError, match="'cap'; expected key=value after each colon"):
        StudyConfig(estimators=("page_ncis:cap",))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="world is 'W9'; expected one of W1"):
        StudyConfig(world="W9")
    with pytest.raises(ValueError, match="estimators: 'magic'; expected some of exposure_dr"):
        StudyConfig(estimators=("magic",))
    with pytest.raises(ValueError, match="a log without exploration supports nothing"):
        StudyConfig(epsilon=0.0)
    with pytest.raises(ValueError, match="expected fewer than the 100 tracks"):
        SceneConfig(tracks=100)


def test_the_command_writes_the_figures_of_every_estimator(tmp_path: Path) -> None:
    from api.cli import app

    asked = ["evaluate-estimators", "--world", "W2", "--seed", "5", "--pages", "120", "--seeds", "2", "--policies", "3"]
    out = tmp_path / "study"
    done = CliRunner().invoke(app, [*asked, "--estimators", "exposure_dr,page_ncis", "--jobs", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "selection.json").read_text())
    assert set(found) == {"exposure_dr", "page_ncis"}
    for row in found.values():
        assert len(row["kendall_tau"]) == 2
        assert {"relative_rmse", "coverage", "bias"} <= set(row)
    assert len(json.loads((out / "study.json").read_text())["logs"]) == 2
    assert (out / "study.svg").read_text().lstrip().startswith("<?xml")
    assert not list(out.glob(".*"))


def test_the_command_refuses_before_it_writes(tmp_path: Path) -> None:
    from api.cli import app

    done = CliRunner().invoke(app, ["evaluate-estimators", "--policies", "40", "--out", str(tmp_path / "x")])
    assert isinstance(done.exception, ValueError)
    assert "policies is 40; expected 2 to 12" in str(done.exception)
    assert not (tmp_path / "x").exists()
