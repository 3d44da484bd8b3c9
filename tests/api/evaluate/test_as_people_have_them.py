"""Logs of choices as other systems leave them: packed, without ids, with names for actions, times as numbers."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.evaluate.choice_input import ChoiceOptions
from api.evaluate.choices import evaluate_file
from api.options import moment
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError, SupportError
from bart.log.care.dsjson import import_dsjson
from bart.log.decision_log import DecisionLog
from bart.ope import LoggedChoices, estimate

NAMES = ("jazz", "rock", "folk")


def evaluated(path: Path, kind: str = "table", **options: Any) -> dict[str, Any]:
    since = options.pop("since", None)
    return evaluate_file(path, kind, ChoiceOptions(**options), load_settings({}), None, Quiet(), since=since)


def value(report: dict[str, Any], policy: str, estimator: str = "ips") -> float:
    row = next(row for row in report["policies"] if row["name"] == policy)
    return float(row["estimates"][estimator]["value"])


def line(action: int = 2, **changes: Any) -> dict[str, Any]:
    """A line as Vowpal Wabbit's own test files have them: no EventId, no Timestamp."""
    whole = {
        "_label_cost": -1.0,
        "_label_probability": 0.5,
        "_label_Action": action,
        "_labelIndex": action - 1,
        "a": [2, 1],
        "c": {"shared": {"f": "1"}, "_multi": [{"action": {"f": "1"}}, {"action": {"f": "2"}}]},
        "p": [0.5, 0.5],
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_lines_without_ids_and_times_are_decisions_each_of_its_own(tmp_path: Path) -> None:
    log = write(tmp_path / "l.dsjson", [line(), line(), line(1, _label_cost=0.0), line(1, _label_cost=0.0)])
    report = evaluated(log, "dsjson")
    assert (report["log"]["choices"], report["left_out"]) == (4, {})
    assert value(report, "first") == 0.0
    assert value(report, "uniform") == 0.5
    with pytest.raises(DataError, match="4 no Timestamp, to tell the time by"):
        evaluated(log, "dsjson", since=moment("2026-01-01", "--since"))


@pytest.mark.parametrize(
    "changes",
    [
        {"a": [0, 1]},  # as scripts write them, from 0
        {"a": None, "p": None},  # the label's own probability is all that is learnt from
        {"_labelIndex": None},
        {"_label_Action": None},
        {"pdrop": 0.9},
        {"EventId": "", "Timestamp": None, "Version": "1"},
    ],
)
def test_what_vowpal_wabbit_reads_of_a_line_is_read(changes: dict[str, Any], tmp_path: Path) -> None:
    report = evaluated(write(tmp_path / "l.dsjson", [line(**changes)]), "dsjson", policies=["uniform"])
    assert (report["log"]["choices"], report["left_out"]) == (1, {})
    assert value(report, "uniform") == 1.0


def test_lines_without_an_outcome_still_cap_the_verdict(tmp_path: Path) -> None:
    report = evaluated(write(tmp_path / "l.dsjson", [line(), line(1)] * 2500 + [line(_label_cost=None)]), "dsjson")
    assert "1 no _label_cost" in report["warnings"][0]


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (gzip.compress, "")])
def test_packed_logs_are_read(pack: Any, ending: str, tmp_path: Path) -> None:
    lines = "".join(json.dumps(line(action)) + "\n" for action in (1, 2, 1, 2)).encode()
    (tmp_path / f"l.dsjson{ending}").write_bytes(pack(lines[: len(lines) // 2]) + pack(lines[len(lines) // 2 :]))
    assert evaluated(tmp_path / f"l.dsjson{ending}", "dsjson")["log"]["choices"] == 4
    rows = b"reward,propensity,of\n1,0.5,0.25\n0,0.5,0.75\n"
    (tmp_path / f"l.csv{ending}").write_bytes(pack(rows))
    report = evaluated(tmp_path / f"l.csv{ending}", target_probability=["of"])
    assert value(report, "of") == 0.25


def test_lines_without_ids_are_imported_once_and_by_a_time_that_is_given(tmp_path: Path) -> None:
    lines = [json.dumps(line())] * 2 + [json.dumps(line(1))]
    with DecisionLog(tmp_path / "log.sqlite") as log:
        assert import_dsjson(log, lines).skipped == {"no Timestamp": 3}
        at = moment("2026-03-01", "--decided-at")
        assert import_dsjson(log, lines, decided_at=at).pages == 3
        import_dsjson(log, lines, decided_at=at)
        assert len(log) == 3


def test_a_propensity_that_float32_leaves_above_1_is_1(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("reward,propensity,of\n1,1.0000001,1\n0,0.5,0.5\n")
    assert value(evaluated(tmp_path / "l.csv", target_probability=["of"]), "of") == 0.5
    exact = LoggedChoices(np.ones(2), np.zeros(2, int), np.array([1.0, np.float32(1.0000001)]), np.full((2, 1), 1.0))
    assert exact.propensity.tolist() == [1.0, 1.0]
    assert estimate("ips", exact).value == 1.0
    log = write(tmp_path / "l.dsjson", [line(_label_probability=1.0000001, a=[2, 1], p=[1.0, 0.0])])
    assert value(evaluated(log, "dsjson", policies=["uniform"]), "logging") == 1.0
    with pytest.raises(SupportError, match=r"row 1 is 1\.00001; expected \(0, 1\]"):
        (tmp_path / "l.csv").write_text("reward,propensity,of\n1,1.00001,1\n")
        evaluated(tmp_path / "l.csv", target_probability=["of"])


def test_a_propensity_that_nobody_draws_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match=r"propensity\[1\] is 1e-160; expected at least 1e-60"):
        LoggedChoices(np.ones(2), np.zeros(2, int), np.array([1.0, 1e-160]), np.full((2, 1), 1.0))
    (tmp_path / "l.csv").write_text("reward,propensity,of\n1,0.5,1\n0,1e-160,0.5\n")
    with pytest.raises(SupportError, match=r"'propensity', row 2 is 1e-160; expected \(0, 1\], at least 1e-60"):
        evaluated(tmp_path / "l.csv", target_probability=["of"])
    log = write(tmp_path / "l.dsjson", [line(), line(_label_probability=1e-160, a=None, p=None)])
    with pytest.raises(SupportError, match=r"line 2 has _label_probability 1e-160; expected at least 1e-60"):
        evaluated(log, "dsjson")


def named(path: Path, columns: list[str], actions: list[str]) -> Path:
    """Three rows, one of each action; the policy always takes the last, which earned 1."""
    rows = [f"{float(i == 2)},0.5,{actions[i]},0,0,1" for i in range(3)]
    path.write_text("\n".join([f"reward,propensity,action,{','.join(columns)}", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("columns", "actions", "asked"),
    [
        (["jazz", "rock", "folk"], NAMES, "jazz,rock,folk"),
        (["p_jazz", "p_rock", "p_folk"], NAMES, "p_jazz,p_rock,p_folk"),
        (["pmf.jazz.v2", "pmf.rock.v2", "pmf.folk.v2"], NAMES, "pmf.jazz.v2,pmf.rock.v2,pmf.folk.v2"),
        (["x", "y", "z"], NAMES, "new=jazz:x,rock:y,folk:z"),
        (["p0", "p1", "p2"], ("0", "1", "2"), "p0,p1,p2"),
        (["p1", "p2", "p3"], ("1", "2", "3"), "p1,p2,p3"),
        (["p_7", "p_9", "p_30"], ("7", "9", "30"), "p_7,p_9,p_30"),
        (["x", "y", "z"], ("0", "1", "2"), "x,y,z"),
    ],
)
def test_actions_are_found_by_their_names(
    columns: list[str], actions: tuple[str, ...], asked: str, tmp_path: Path
) -> None:
    log = named(tmp_path / "l.csv", columns, list(actions))
    report = evaluated(log, target_pmf=[asked])
    assert value(report, "new" if "=" in asked else "target") == pytest.approx(2 / 3)


def test_numbers_that_may_mean_two_actions_are_refused(tmp_path: Path) -> None:
    log = named(tmp_path / "l.csv", ["p1", "p2", "p3"], ["0", "1", "2"])
    with pytest.raises(DataError, match=r"row 1 is '0'; expected the name of a pmf column .*ACTION:COLUMN"):
        evaluated(log, target_pmf=["p1,p2,p3"])
    assert value(evaluated(log, target_pmf=["0:p1,1:p2,2:p3"]), "target") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("reward", "action", "propensity"), [("click", "item_id", "propensity_score"), ("reward", "action", "pscore")]
)
def test_columns_of_the_open_bandit_pipeline_need_no_option(
    reward: str, action: str, propensity: str, tmp_path: Path
) -> None:
    rows = [f"{float(i == 2)},0.5,{i},0,0,1" for i in range(3)]
    (tmp_path / "l.csv").write_text("\n".join([f"{reward},{propensity},{action},p0,p1,p2", *rows]) + "\n")
    assert value(evaluated(tmp_path / "l.csv", target_pmf=["p0,p1,p2"]), "target") == pytest.approx(2 / 3)


def test_arrays_of_the_open_bandit_pipeline_are_read_by_its_names(tmp_path: Path) -> None:
    pmf = np.tile([0.0, 0.0, 1.0], (3, 1))
    reward, action = np.array([0.0, 0.0, 1.0]), np.arange(3)
    np.savez(tmp_path / "l.npz", reward=reward, action=action, pscore=np.full(3, 0.5), action_dist=pmf)
    assert value(evaluated(tmp_path / "l.npz", "npz"), "target") == pytest.approx(2 / 3)
    by_position = {"action_dist": pmf[:, :, None], "position": np.zeros(3, int)}
    by_position["estimated_rewards_by_reg_model"] = np.full((3, 3, 1), 0.5)
    np.savez(tmp_path / "p.npz", reward=reward, action=action, pscore=np.full(3, 0.5), **by_position)
    assert value(evaluated(tmp_path / "p.npz", "npz"), "target") == pytest.approx(2 / 3)
    assert value(evaluated(tmp_path / "p.npz", "npz"), "target", "dm") == pytest.approx(0.5)


def test_a_table_without_a_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("1,0.5,0.25\n0,0.5,0.75\n")
    with pytest.raises(DataError, match=r"has no header: its first line is data \(1, 0.5, 0.25\); expected a line of"):
        evaluated(tmp_path / "l.csv", target_probability=["of"])


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_times_may_be_unix_seconds_or_finer(scale: float, tmp_path: Path) -> None:
    times = [int(at * scale) for at in (1_700_000_000, 1_800_000_000)]
    (tmp_path / "l.csv").write_text(f"reward,propensity,of,at\n1,0.5,0.5,{times[0]}\n0,0.5,0.5,{times[1]}\n")
    for since in ("2025-01-01", "1750000000"):
        report = evaluated(
            tmp_path / "l.csv", target_probability=["of"], timestamp="at", since=moment(since, "--since")
        )
        assert (report["log"]["choices"], report["left_out"]) == (1, {"before the time asked for": 1})
