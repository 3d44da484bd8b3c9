"""The arena: logs that are the same everywhere, truths that hold, entries that are told what is wrong, a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from places import ROOT
from typer.testing import CliRunner

from api.cli import app
from bart.ope.weights.pages import marginal_weight
from simulator.arena import Answer, Log, Target, arena_log
from simulator.arena import run as runs
from simulator.arena.entries import checked, entry_named, ours
from simulator.arena.logs import export_log
from simulator.arena.table import markdown, order_tau, summarise
from simulator.arena.tasks import LOGGING, TARGETS, VERSION, WORLDS
from simulator.arena.truth import truths, work_out

EXPORT = """
from pathlib import Path
from simulator.arena.logs import arena_log, export_log
print(export_log(arena_log('A1', 'adaptive', 2), Path('.')))
"""


def test_a_log_has_the_same_bytes_in_another_process_with_other_threads(tmp_path: Path) -> None:
    here = export_log(arena_log("A1", "adaptive", 2), tmp_path / "here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    there = subprocess.run(
        [sys.executable, "-c", EXPORT], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert there.stdout.strip() == str(here)


@pytest.mark.parametrize("logging", LOGGING)
def test_who_served_has_weight_one_on_every_choice(logging: str) -> None:
    log = arena_log("W5", logging, 1)
    rates = {*LOGGING[logging].shelf, *LOGGING[logging].card}
    if len(rates) == 1:  # a target has one rate everywhere
        themselves = Target(9, "who served", log.score, rates.pop())
        for logged, again in zip(
            (log.shelf_propensity, log.card_propensity), log.target_propensity(themselves), strict=True
        ):
            np.testing.assert_allclose(again, logged, rtol=1e-12)
        np.testing.assert_allclose(marginal_weight(log.pages(themselves)), 1.0, rtol=1e-12)
    else:
        # Two cards of one score share the chance, which is rare.
        assert np.mean(log.shelf_propensity[:, :2] == 1) > 0.99
        assert np.mean(log.card_propensity[:, :, 0] == 1) > 0.99
        assert log.shelf_propensity[:, 2:].min() < 0.1


def test_a_policy_that_learns_is_moved_by_what_it_showed() -> None:
    learnt, even = arena_log("W1", "adaptive", 1), arena_log("W1", "even", 1)
    moved = learnt.score - learnt.record.scene.model
    quarter = len(moved) // 4 // 128 * 128
    assert np.all(even.score == even.record.scene.model)
    assert np.all(moved[: quarter // 4] == 0)  # of the first batch nothing was known
    assert np.std(moved[-quarter:]) > 1.2 * np.std(moved[quarter : 2 * quarter]) > 0  # and more from batch to batch
    # What was learnt is true in part: a track that had more streams than expected is better than the model thinks.
    appeal = learnt.record.scene.appeal
    better = np.log(appeal / (1 - appeal)) - learnt.record.scene.model
    assert np.corrcoef(moved[-quarter:], better[-quarter:])[0, 1] > 0.02


def test_an_export_holds_what_the_log_holds(tmp_path: Path) -> None:
    log = arena_log("KUAIRAND", "partly", 1)
    export_log(log, tmp_path)
    candidates, slots = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("candidates", "slots"))
    assert slots["reward"].to_numpy().sum() == log.reward.sum() > 100
    assert slots.num_rows == (log.card >= 0).sum()
    score = candidates["target_3"].to_numpy().reshape(len(log), -1)
    np.testing.assert_array_equal(score.reshape(-1), log.targets[3].score)
    assert float(candidates.schema.metadata[b"target_3"]) == TARGETS[3].epsilon


def test_truths_are_what_another_draw_of_visits_gives() -> None:
    again, held = work_out(parts=4, visits=1_000, stream=7), truths()
    assert list(held.value) == list(WORLDS)
    off = np.array([again.value[world] / held.value[world] - 1 for world in WORLDS])
    assert np.abs(off).max() < 0.06  # four thousand visits; a standard error is about 1 %
    assert max(np.max(held.error[world] / held.value[world]) for world in WORLDS) < 0.003


def test_the_default_estimator_is_near_and_the_mean_of_the_log_is_not() -> None:
    log = arena_log("W2", "even", 3)
    near = [ours("exposure_dr")(log, target) for target in log.targets]
    truth = truths().value["W2"]
    assert np.abs(np.array([answer.value for answer in near]) / truth - 1).max() < 0.1
    assert abs(log.reward.sum() / len(log) / truth[4] - 1) > 0.1


def outside(log: Log, target: Target) -> Answer:
    """Weights of single slots."""
    reward = marginal_weight(log.pages(target)) * log.reward
    each = reward.sum(axis=(1, 2))
    half = 1.96 * each.std() / np.sqrt(len(each))
    return Answer(each.mean(), each.mean() - half, each.mean() + half)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "WORLDS", {"W1": None})
    monkeypatch.setattr(runs, "LOGGING", {"even": None, "skewed": None})
    path, entry = tmp_path / "answers.jsonl", f"{__name__}:outside"
    whole = runs.run([entry], [1], path)
    assert len(whole) == 2 * len(TARGETS)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:20])  # killed in the middle of a line
    done: list[tuple[int, int]] = []
    again = runs.run([entry], [1], path, on_done=lambda *at: done.append(at))
    assert done == [(1, 1)]

    def without_time(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{key: value for key, value in row.items() if key != "cpu_s"} for row in rows]

    assert without_time(again) == without_time(whole)
    path.write_text(lines[0].replace(f'"version": "{VERSION}"', '"version": "0"'))
    with pytest.raises(ValueError, match="version 0; expected"):
        runs.run([entry], [1], path)


def test_answers_of_a_function_that_was_changed_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "WORLDS", {"W1": None})
    monkeypatch.setattr(runs, "LOGGING", {"even": None})
    path, file = tmp_path / "answers.jsonl", tmp_path / "mine.py"
    for value in (1.0, 2.0, 2.0):
        file.write_text(f"from simulator.arena import Answer\n\ndef mine(log, target):\n    return Answer({value})\n")
        rows = runs.run([f"{file}:mine"], [1], path)
        assert [row["value"] for row in rows] == [value] * len(TARGETS)
    assert len(path.read_text().splitlines()) == 2 * len(TARGETS)


def test_a_function_that_fails_is_told_with_its_log(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def mine(log, target):\n    return 1 / 0\n\ndef of(log, target):\n    return 1.5\n")
    with pytest.raises(ValueError, match="mine failed on A1, even, seed 1, target 0: ZeroDivisionError"):
        runs.answers(runs.Task(1, "A1", "even", (f"{file}:mine",)))
    with pytest.raises(ValueError, match="of gave float; expected simulator.arena.Answer"):
        runs.answers(runs.Task(1, "A1", "even", (f"{file}:of",)))
    file.write_text("def mine(log, target:\n")
    with pytest.raises(ValueError, match="mine.py cannot be imported .SyntaxError"):
        entry_named(f"{file}:mine")


def row(entry: str, seed: int, target: int, value: float, **more: object) -> dict[str, object]:
    truth = 1.0 + target / 10
    given = {"lower": value - 0.1, "upper": value + 0.1, "conclusive": True, "cpu_s": 1.0}
    where = {"version": VERSION, "world": "A1", "logging": "even"}
    return {"entry": entry, "seed": seed, "target": target, "truth": truth, "value": value, **where, **given, **more}


def test_the_table_by_hand() -> None:
    rows = [row("close", seed, target, (1 + target / 10) * 1.1) for seed in (1, 2) for target in (0, 1, 2)]
    rows += [row("far", seed, target, 3 - target, lower=None, upper=None) for seed in (1, 2) for target in (0, 1, 2)]
    found = summarise(rows)
    assert list(found) == ["close", "far"]
    close, far = found["close"], found["far"]
    assert close["rmse"] == pytest.approx(0.1)
    assert close["bias"] == pytest.approx(0.1)
    # 1.0 is held by 1.0 to 1.2 (its end), 1.1 by 1.11 to 1.31 and 1.2 by 1.22 to 1.42 are not.
    assert close["coverage"] == pytest.approx(1 / 3, abs=0.34)
    assert close["tau"] == 1
    assert close["false_conclusive"] == pytest.approx(1 - close["coverage"])
    assert far["tau"] == -1
    assert far["coverage"] is None
    assert order_tau(rows[:3] + rows[6:9], rows[3:6] + rows[9:]) == 1
    text = markdown(rows)
    assert "| close | 0.100 | +0.100 |" in text
    assert "Worlds on which nothing is tuned" in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("luck", "estimator is 'luck'; expected FILE.py:FUNCTION or one of"),
        ("absent.py:f", "absent.py: no such file; expected FILE.py:FUNCTION"),
        ("no_such_module:f", "no_such_module cannot be imported .ModuleNotFoundError"),
        ("simulator.arena.tasks:luck", "simulator.arena.tasks has no function 'luck'"),
    ],
)
def test_an_entry_that_is_none(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        entry_named(name)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (1.5, "gave float; expected simulator.arena.Answer"),
        (Answer(float("nan")), "gave the value nan; expected a finite number"),
        (Answer(1.0, 0.5), "gave one end of an interval; expected both or none"),
        (Answer(1.0, 2.0, 1.0), "expected lower <= upper"),
    ],
)
def test_an_answer_that_is_none(answer: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked("mine", answer)


def test_names_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="world is 'W9'; expected one of W1, W2"):
        arena_log("W9", "even", 1)
    with pytest.raises(ValueError, match="logging is 'odd'; expected one of even, skewed"):
        arena_log("W1", "odd", 1)
    with pytest.raises(ValueError, match="seed is -1; expected at least 0"):
        arena_log("W1", "even", -1)
    with pytest.raises(ValueError, match="world is 'W9'; expected some of W1, W2"):
        runs.run(["dm"], [1], Path("nowhere"), worlds=["W9"])


def test_truths_of_another_version_are_not_taken() -> None:
    held = json.loads((ROOT / "simulator" / "arena" / "truths.json").read_text())
    assert held["version"] == VERSION
    assert {len(values) for values in held["value"].values()} == {len(TARGETS)}


def test_the_command_says_what_is_wrong_before_it_writes(tmp_path: Path) -> None:
    for asked, told in (
        (["--no-ours"], "no estimator; expected --estimator FILE.py:FUNCTION, or --ours"),
        (["--seeds", "0"], "0 seeds from 1; expected at least one"),
        (["--jobs", "-1"], "jobs is -1; expected at least 0"),
        (["--worlds", "W1,W9"], "world is 'W9'; expected some of W1, W2"),
    ):
        done = CliRunner().invoke(app, ["arena", "run", "--out", str(tmp_path / "out"), *asked])
        assert told in str(done.exception)
    assert not (tmp_path / "out").exists()
