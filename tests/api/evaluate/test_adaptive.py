"""Logs of policies that learnt, policies that learnt from the pages they are judged on, and what a value is one of."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_export import AT, export_pages

from api.cli import main
from api.evaluate.adaptive import undecided
from api.evaluate.pages_log import evaluate_log
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.bundle import MANIFEST
from bart.ope.report.estimand import NEXT_PAGE, PAGES, beyond_verdict
from bart.ope.report.report import write_report


@pytest.fixture(scope="module")
def log(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_pages(built_run, tmp_path_factory.mktemp("adaptive"), pages=60)


def taught(built_run: Path, folder: Path, until: datetime, online: datetime | None = None) -> Path:
    """The run's bundle, that learnt until some moment."""
    import shutil

    bundle = folder / "bundle"
    shutil.copytree((built_run / "bundle").resolve(), bundle)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["learnt_until_s"] = int(until.timestamp())
    if online is not None:
        manifest["metrics"]["online"] = {"until_s": int(online.timestamp())}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle


def evaluated(log: Path, *policies: str, out: Path | None = None, since: datetime | None = None) -> dict[str, Any]:
    return evaluate_log(log, policies, load_settings({"seed": 3}), out, Quiet(), since)


def test_a_policy_is_not_judged_by_the_pages_it_learnt_from(built_run: Path, log: Path, tmp_path: Path) -> None:
    half = AT + timedelta(hours=30)
    bundle = taught(built_run, tmp_path, half)
    report = evaluated(log, f"{bundle}:0.2", "popularity:0.2")
    rows = {row["name"]: row["estimates"]["dr"] for row in report["policies"]}
    mine = rows[f"{bundle}, epsilon 0.2"]
    assert mine["verdict"] != "conclusive"
    assert mine["warnings"][0].startswith("it learnt from 50% of the pages")
    assert half.isoformat(timespec="seconds") in mine["warnings"][0]
    assert not any("learnt from" in words for words in rows["popularity, epsilon 0.2"]["warnings"])
    assert any(str(bundle) in words for words in report["selection"]["warnings"])
    later = evaluated(log, f"{bundle}:0.2", since=half)
    assert not any("learnt from" in w for row in later["policies"] for w in row["estimates"]["dr"]["warnings"])


def test_what_was_learnt_online_counts_too(built_run: Path, log: Path, tmp_path: Path) -> None:
    bundle = taught(built_run, tmp_path, AT, online=AT + timedelta(hours=45))
    report = evaluated(log, f"{bundle}:0.2")
    assert report["policies"][1]["estimates"]["dr"]["warnings"][0].startswith("it learnt from 75% of the pages")


def test_only_what_speaks_for_such_a_policy_is_taken_back() -> None:
    def row(policy: str, against: str, decision: str) -> dict[str, str]:
        return {"policy": policy, "against": against, "decision": decision}

    rows = [row("mine", "old", "better"), row("mine", "old", "worse"), row("old", "mine", "worse"),
            row("old", "mine", "better"), row("other", "old", "better"), row("mine", "old", "unusable")]  # fmt: skip
    found = undecided({"selection": {"versus_baseline": rows, "pairwise": [], "warnings": []}}, {"mine": "it learnt"})
    told = [each["decision"] for each in found["selection"]["versus_baseline"]]
    assert told == ["undecided", "worse", "undecided", "better", "better", "unusable"]


def test_every_form_of_a_report_says_what_its_values_are_and_whether_the_log_is_adaptive(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(log), "--policy", "popularity:0.2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "report.html").read_text()
    saved = json.loads((tmp_path / "report.json").read_text())
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path)])
    explained = " ".join(capsys.readouterr().out.split())
    for text in (printed, page, explained, saved["note"] + saved["adaptive"]["line"]):
        assert NEXT_PAGE in text
        assert "Not an adaptive log: one model served its 60 pages." in text


def test_a_policy_without_the_pins_is_judged_on_the_pages_that_hold_none(log: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(log, tmp_path / "log")
    (tmp_path / "bundle").symlink_to((log.parent / "bundle").resolve())
    pinned = 0
    for file in sorted(copy.glob("date=*/*.parquet"))[::3]:
        table = pq.read_table(file, partitioning=None)
        held, shelf = table["pinned"].to_pylist(), table["shelf"].to_pylist()
        held[0][0][0], shelf[0][table["card"][0].as_py()[0][0]] = True, -1  # a pinned card is held out of the draw
        for name, values in (("pinned", held), ("shelf", shelf)):
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
        pq.write_table(table, file)
        pinned += 1
    settings = load_settings({"seed": 3})
    kept = evaluate_log(copy, ["popularity:0.2"], settings, None, Quiet())
    found = evaluate_log(copy, ["popularity:0.2"], settings, None, Quiet(), pins=False)
    assert not any("pins" in reason for reason in kept["left_out"])
    assert found["left_out"]["hold pins, of which a policy without them has no support"] == pinned
    assert found["log"]["pages"] == 60
    for row in found["policies"]:
        one = row["estimates"]["dr"]
        assert one["n"] == 60 - pinned
        assert one["verdict"] != "conclusive"
        assert any("has no support" in words for words in one["warnings"])


def estimate(value: float, half: float, verdict: str = "conclusive") -> dict[str, Any]:
    return {"dr": {"value": value, "lower": value - half, "upper": value + half, "verdict": verdict, "warnings": []}}


def test_conclusive_says_what_it_does_not_speak_of_where_carry_over_could_exceed_the_interval(tmp_path: Path) -> None:
    def report(half: float, verdict: str = "conclusive") -> dict[str, Any]:
        rows = [
            {"name": "logging", "estimates": estimate(1.0, 0.01)},
            {"name": "new", "estimates": estimate(2.0, half, verdict)},
        ]
        return {"seed": 1, "policies": rows, "log": {}, "replay": None, "note": PAGES}

    assert "± 5% of the value" in beyond_verdict(report(0.1))
    assert not beyond_verdict(report(0.8))
    assert not beyond_verdict(report(0.1, "weak"))
    page = write_report(report(0.1), tmp_path, plots=())
    assert "Conclusive speaks of the next page alone" in page.read_text()


def test_a_log_of_choices_tells_its_models(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(1), 400
    columns = {"reward": rng.integers(0, 2, n).astype(float), "propensity": np.full(n, 0.5), "target": rng.random(n)}

    def adaptive(**more: Any) -> Any:
        pq.write_table(pa.table({**columns, **more}), tmp_path / "log.parquet")
        with pytest.raises(SystemExit):
            main(["evaluate", str(tmp_path / "log.parquet"), "--target-probability", "target", "--out", str(tmp_path)])
        return json.loads((tmp_path / "report.json").read_text())["adaptive"]

    assert adaptive()["adaptive"] is None
    assert adaptive(model_id=["a"] * n)["adaptive"] is False
    found = adaptive(model_id=["a"] * 100 + ["b"] * 300)
    assert found["line"].startswith("An adaptive log: 2 models served its 400 rows")
    assert AT.tzinfo is timezone.utc


def test_dsjson_names_the_model_of_each_line(tmp_path: Path) -> None:
    lines = []
    for i in range(60):
        line = {"EventId": f"e{i}", "Timestamp": "2026-03-01T12:00:00Z", "a": [1, 2], "p": [0.5, 0.5], "_labelIndex": 0,
                "_label_cost": -float(i % 2), "_label_probability": 0.5, "_label_Action": 1,
                "c": {"_multi": [{}, {}]}, "VWState": {"m": "first" if i < 20 else "second"}}  # fmt: skip
        lines.append(json.dumps(line))
    (tmp_path / "log.dsjson").write_text("\n".join(lines))
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "log.dsjson"), "--out", str(tmp_path)])
    found = json.loads((tmp_path / "report.json").read_text())["adaptive"]
    assert (found["adaptive"], found["models"]) == (True, 2)
