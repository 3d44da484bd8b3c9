"""Rows that are missing because of what they earned, rows that stand for several, events that were delivered twice."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from page_export import export_pages

from api.cli import main
from api.evaluate.choice_input import ChoiceOptions
from api.evaluate.choices import evaluate_file
from api.evaluate.pages_log import evaluate_log
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError
from bart.item_store import load_items
from bart.log.care.dsjson import import_dsjson
from bart.log.care.dsjson_export import export_dsjson
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import read_pages


def line(event: str, reward: float | None, action: int = 0, **changes: Any) -> str:
    """A decision between two actions, each with probability one half."""
    whole: dict[str, Any] = {
        "EventId": event,
        "Timestamp": "2026-03-01T12:00:00Z",
        "c": {"_multi": [{"_tag": "a"}, {"_tag": "b"}]},
        "a": [action + 1, 2 - action],
        "p": [0.5, 0.5],
        "_label_Action": action + 1,
        "_labelIndex": action,
        "_label_probability": 0.5,
        "_label_cost": None if reward is None else -reward,
    }
    return json.dumps({**whole, **changes})


def evaluated(path: Path, lines: list[str], **options: Any) -> dict[str, Any]:
    path.write_text("\n".join(lines) + "\n")
    settings = load_settings({"seed": 1})
    return evaluate_file(path, "dsjson", ChoiceOptions(policies=["uniform"], **options), settings, None, Quiet())


def log(rewards: list[float | None], **changes: Any) -> list[str]:
    return [line(f"e{i}", reward, i % 2, **changes) for i, reward in enumerate(rewards)]


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for policy in report["policies"] for found in policy["estimates"].values()]


def test_rewards_of_any_range_count_as_they_are(tmp_path: Path) -> None:
    mixed = evaluated(tmp_path / "a.dsjson", log([1.0] * 100 + [0.0] * 200 + [-1.0] * 100))
    assert mixed["log"]["mean reward"] == 0.0
    assert all(found["value"] == pytest.approx(0.0, abs=1e-12) for found in rows(mixed))
    large = evaluated(tmp_path / "b.dsjson", log(([43.0] + [0.1] * 9) * 40))
    assert all(found["value"] == pytest.approx(4.39) for found in rows(large))
    assert large["left_out"] == {}


def test_a_reward_outside_a_range_that_was_given_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 has reward 43 \(-_label_cost\), outside \[0, 1\]"):
        evaluated(tmp_path / "a.dsjson", log([0.0, 1.0, 43.0]), reward_range=(0.0, 1.0))


@pytest.mark.parametrize("lacking", [{"_label_cost": None}, {"_label_cost": "x"}, {"_label_cost": float("nan")}])
def test_lines_without_a_reward_keep_the_rest_from_being_conclusive(tmp_path: Path, lacking: dict[str, Any]) -> None:
    lines = log([1.0] * 300) + [line(f"n{i}", None, **lacking) for i in range(100)]
    report = evaluated(tmp_path / "a.dsjson", lines)
    assert report["left_out"] == {"no _label_cost": 100}
    for found in rows(report):
        assert found["verdict"] != "conclusive"
        assert found["warnings"][0].startswith("100 of 400 rows are left out for a reason that may depend on what")
    assert report["warnings"][0] == rows(report)[0]["warnings"][0]
    for policy in report["selection"]["policies"]:
        assert policy.get("verdict", "weak") != "conclusive"


def test_lines_that_cannot_be_read_count_where_they_are_many(tmp_path: Path) -> None:
    whole = log([float(i % 3 == 0) for i in range(1_500)])
    one = evaluated(tmp_path / "a.dsjson", [*whole, whole[0][:40]])
    assert one["left_out"] == {"not JSON": 1}
    assert {found["verdict"] for found in rows(one)} == {"conclusive"}
    many = evaluated(tmp_path / "b.dsjson", [*whole, *[text[:40] for text in whole[:50]]])
    assert {found["verdict"] for found in rows(many)} == {"weak"}
    slots = evaluated(tmp_path / "c.dsjson", [*whole, *[line(f"s{i}", 1.0, _outcomes=[]) for i in range(50)]])
    assert {found["verdict"] for found in rows(slots)} == {"conclusive"}


def test_a_subsampled_line_stands_for_those_that_were_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth, values, covered = 0.1, [], 0
    for _ in range(16):
        reward = (rng.random(2_000) < truth).astype(float)
        kept = (reward > 0) | (rng.random(2_000) < 0.2)
        lines = [
            line(f"e{j}", float(reward[j]), int(j) % 2, pdrop=0.0 if reward[j] else 0.8) for j in np.flatnonzero(kept)
        ]
        report = evaluated(tmp_path / "a.dsjson", lines)
        snips = next(p for p in report["policies"] if p["name"] == "logging")["estimates"]["snips"]
        values.append(snips["value"])
        covered += snips["lower"] <= truth <= snips["upper"]
        assert report["left_out"] == {}
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(len(values)))
    assert covered >= 13
    assert "lines stand for" in report["note"]


def test_an_event_is_one_decision_however_often_it_was_delivered(tmp_path: Path) -> None:
    lines = log([float(i % 3 == 0) for i in range(400)])
    once = evaluated(tmp_path / "a.dsjson", lines)
    twice = evaluated(tmp_path / "b.dsjson", [text for text in lines for _ in range(2)])
    assert twice["left_out"] == {"EventId repeats": 400}
    assert twice["policies"] == once["policies"]
    # a first delivery without its reward is no loss where a later one has it
    late = evaluated(tmp_path / "c.dsjson", [line("e0", None), *lines])
    assert late["policies"] == once["policies"]
    other = evaluated(tmp_path / "d.dsjson", [*lines, *log([1.0] * 400)])
    assert other["policies"][0]["estimates"]["snips"]["verdict"] == "weak"
    assert "another outcome" in other["warnings"][0]


def test_the_terminal_says_first_what_caps_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.dsjson"
    path.write_text("\n".join(log([1.0] * 300 + [None] * 100)) + "\n")
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", str(path), "--policy", "uniform"])
    out = [text for text in capsys.readouterr().out.splitlines() if not text.startswith("✓")]
    assert out[0].startswith("warning: 100 of 400 rows are left out")


def test_an_import_refuses_rewards_outside_its_range_before_it_takes_any(tmp_path: Path) -> None:
    path = tmp_path / "a.dsjson"
    path.write_text("\n".join(log([1.0, 0.0, -1.0])) + "\n")
    command = ["log", "import-dsjson", str(tmp_path / "log.sqlite"), str(path)]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert not (tmp_path / "log.sqlite").exists()
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--reward-range=-1,1"])


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([line("e0", 1.0, 0), line("e1", 0.0, 0, pdrop=0.8)], "1 lines: subsampled"),
        ([line("e0", 1.0, 0), line("e1", None, 0)], "1 lines: no _label_cost"),
    ],
)
def test_an_import_refuses_what_would_leave_no_sample_of_the_log(
    lines: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.dsjson"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit, match="2"):
        main(["log", "import-dsjson", str(tmp_path / "log.sqlite"), str(path)])
    said = capsys.readouterr().err
    assert why in said
    assert f"expected bart evaluate {path}" in said.replace("\n", " ")
    assert not (tmp_path / "log.sqlite").exists()
    late = [*lines, line("e1", 0.0, 0)] if "_label_cost" in why else lines[:1]  # the outcome came after all
    path.write_text("\n".join(late) + "\n")
    with pytest.raises(SystemExit, match="0"):
        main(["log", "import-dsjson", str(tmp_path / "log.sqlite"), str(path)])


def table(path: Path, event: bool = True, times: int = 1, **changes: Any) -> Path:
    rng = np.random.default_rng(2)
    action = np.arange(600) % 2
    columns: dict[str, Any] = {
        "reward": (rng.random(600) < 0.3 + 0.2 * action).astype(float),
        "propensity": np.full(600, 0.5),
        "target": np.where(action == 1, 0.8, 0.2),
        **({"event_id": [f"e{i}" for i in range(600)]} if event else {}),
        **changes,
    }
    whole = pa.concat_tables([pa.table(columns)] * times)
    (csv.write_csv if path.suffix == ".csv" else pq.write_table)(whole, path)
    return path


def of_table(path: Path, **options: Any) -> dict[str, Any]:
    asked = ChoiceOptions(target_probability=["target"], **options)
    return evaluate_file(path, "table", asked, load_settings({"seed": 1}), None, Quiet())


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_whose_events_come_twice_is_that_of_each_once(tmp_path: Path, name: str) -> None:
    once = of_table(table(tmp_path / f"once-{name}"))
    twice = of_table(table(tmp_path / f"twice-{name}", times=2))
    assert twice["left_out"] == {"event id repeats": 600}
    assert twice["policies"] == once["policies"]
    rows_alike = of_table(table(tmp_path / f"rows-{name}", event=False, times=2))
    assert rows_alike["log"]["choices"] == 1_200
    assert of_table(tmp_path / f"twice-{name}", event_id="none")["log"]["choices"] == 1_200


def test_rows_of_one_event_that_differ_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", event=False, event_id=[f"e{i // 2}" for i in range(600)])
    with pytest.raises(DataError, match="rows 1 and 2 are one event and differ in reward|rows .* differ in reward"):
        of_table(path)


def test_arrays_whose_events_come_twice_are_those_of_each_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {
        "reward": rng.random(400),
        "action": np.arange(400) % 2,
        "propensity": np.full(400, 0.5),
        "target_pmf": np.tile([0.3, 0.7], (400, 1)),
        "event_id": np.arange(400),
    }
    np.savez(tmp_path / "once.npz", **arrays)
    np.savez(tmp_path / "twice.npz", **{name: np.concatenate([a, a]) for name, a in arrays.items()})
    found = [
        evaluate_file(tmp_path / name, "npz", ChoiceOptions(), load_settings({"seed": 1}), None, Quiet())
        for name in ("once.npz", "twice.npz")
    ]
    assert found[0]["policies"] == found[1]["policies"]
    assert found[1]["left_out"] == {"event id repeats": 400}


def test_rows_of_a_subsampled_table_stand_for_what_their_weight_says(tmp_path: Path) -> None:
    rewarded = np.arange(600) < 300
    path = table(tmp_path / "a.csv", reward=rewarded.astype(float), stands_for=np.where(rewarded, 1.0, 9.0))
    report = of_table(path, weight="stands_for")
    assert report["log"]["mean reward"] == pytest.approx(0.1)
    logging = next(p for p in report["policies"] if p["name"] == "logging")
    for found in logging["estimates"].values():
        assert found["value"] == pytest.approx(0.1)
        assert found["interval"] == "student"


def test_a_long_log_whose_events_come_twice_is_that_of_each_once(tmp_path: Path) -> None:
    asked, settings = ChoiceOptions(target_probability=["target"]), load_settings({"seed": 1})
    found = [
        evaluate_file(
            table(tmp_path / f"{times}.parquet", times=times), "table", asked, settings, None, Quiet(), at_once=n
        )
        for times, n in ((1, 1_000), (2, 100))
    ]
    assert found[1]["left_out"] == {"event id repeats": 600}
    assert found[1]["policies"] == found[0]["policies"]


def test_a_page_that_an_export_holds_twice_counts_once(built_run: Path, tmp_path: Path) -> None:
    log = export_pages(built_run, tmp_path, pages=40)
    items = load_items(built_run / "bundle" / "items")
    once = [request_id for batch in read_pages(log, items) for request_id in batch.request_id]
    for file in sorted(log.glob("date=*/part-00000.parquet")):
        shutil.copy(file, file.with_name("part-00001.parquet"))
    repeated: list[int] = []
    again = [
        request_id for batch in read_pages(log, items, on_repeat=repeated.append) for request_id in batch.request_id
    ]
    assert again == once
    assert sum(repeated) == 40
    # however the log is cut
    reports = [
        evaluate_log(log, [], load_settings({}), None, Quiet(), estimators=["ips"], block_candidates=block)
        for block in (None, 300)
    ]
    assert [report["blocks"] > 1 for report in reports] == [False, True]
    assert [report["log"]["pages"] for report in reports] == [40, 40]


def imported(built_run: Path, folder: Path, broken: int) -> dict[str, Any]:
    """The report of a log that was made of the lines of another and of `broken` lines that cannot be read."""
    export_pages(built_run, folder, pages=40)
    folder = folder / "other"
    folder.mkdir()
    with DecisionLog(folder.parent / "log.sqlite") as found:
        export_dsjson(found, folder / "a.dsjson")
    lines = (folder / "a.dsjson").read_text().splitlines()
    lines += [lines[0].replace('"EventId":"', f'"EventId":"{n}-')[:-40] for n in range(broken)]
    with DecisionLog(folder / "log.sqlite") as found:
        for _ in range(2):  # importing again changes nothing
            import_dsjson(found, lines)
        export_log(found, folder / "log", now=datetime(2027, 1, 1, tzinfo=timezone.utc))
    (folder / "bundle").symlink_to((built_run / "bundle").resolve())
    return evaluate_log(folder / "log", [], load_settings({}), None, Quiet(), estimators=["snips"])


def test_what_an_import_could_not_read_is_said_where_its_log_is_judged(built_run: Path, tmp_path: Path) -> None:
    report = imported(built_run, tmp_path, broken=3)
    assert report["left_out"]["not JSON"] == 3
    assert "rows are left out for a reason that may depend on what they earned (3 not JSON)" in report["warnings"][0]
    assert report["warnings"][0].startswith("3 of ")
    for found in rows(report):
        assert found["verdict"] != "conclusive"
        assert report["warnings"][0] in found["warnings"]


def test_a_whole_import_is_judged_as_a_log_is(built_run: Path, tmp_path: Path) -> None:
    report = imported(built_run, tmp_path, broken=0)
    assert report["warnings"] == []
    assert not any("may depend" in words for found in rows(report) for words in found["warnings"])
