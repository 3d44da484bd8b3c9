"""The main job at a small size: everything is written, agrees with itself, and follows from the seed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from api.evaluate.pages_log import evaluate_log
from api.jobs.demo import run_demo
from api.jobs.train import train_bundle
from api.run.progress import Quiet
from api.run.settings import Settings
from bart.bundle import open_bundle
from bart.errors import BundleError
from bart.log.care.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(
    demo_run: Path, demo_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same demonstration twice; the second was made in the place of a smaller one with another seed."""
    run = tmp_path_factory.mktemp("demo") / "run"
    run_demo(run, demo_settings(seed=5, listeners=40, tracks=500, visits=200), Quiet())
    other = pq.read_table(run / "events.parquet")
    assert report(run)["seed"] == 5
    assert verify(run / "log.sqlite").verified == 200
    run_demo(run, demo_settings(), Quiet())
    assert not pq.read_table(run / "events.parquet").equals(other)
    return demo_run, run


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def test_everything_promised_is_there(runs: tuple[Path, Path]) -> None:
    run = runs[0]
    for name in ("events.parquet", "items.parquet", "log.sqlite", "report.html", "report.json", "run.json"):
        assert (run / name).stat().st_size > 0, name
    assert list(run.glob("log/date=*/*.parquet"))
    bundle = open_bundle(run / "bundle")
    assert {name.split("/")[0] for name in bundle.files} == {"items", "reward", "listener", "index"}
    assert not list(run.parent.glob(".*"))


def test_the_report_has_the_promised_form(runs: tuple[Path, Path]) -> None:
    found = report(runs[0])
    assert set(found) >= {"seed", "policies", "log", "replay"}
    assert set(found["log"]) == {"pages", "seen", "streams"}
    assert set(found["replay"]) == {"checked", "mismatches"}
    names = [policy["name"] for policy in found["policies"]]
    assert names == ["popularity", "logging", *(f"new model, epsilon {e}" for e in ("0", "0.05", "0.2"))]
    for policy in found["policies"]:
        assert {"ips", "snips", "dm", "dr"} <= set(policy["estimates"])
        for estimate in policy["estimates"].values():
            assert {"value", "lower", "upper", "verdict"} <= set(estimate)
            assert estimate["verdict"] in {"conclusive", "weak", "unusable"}


def test_the_log_replays_to_the_last_bit(runs: tuple[Path, Path]) -> None:
    assert report(runs[0])["replay"] == {"checked": 1200, "mismatches": 0}
    found = verify(runs[0] / "log.sqlite")
    assert found.problem_count == 0
    assert found.verified == 1200


def test_the_report_counts_what_the_log_holds(runs: tuple[Path, Path]) -> None:
    pages = seen = streams = 0
    for file in runs[0].glob("log/date=*/*.parquet"):
        table = pq.read_table(file).to_pylist()
        pages += len(table)
        for row in table:
            for s, r in zip(_flat(row["seen"]), _flat(row["reward"]), strict=True):
                seen += bool(s)
                streams += int(r or 0)
    assert report(runs[0])["log"] == {"pages": pages, "seen": seen, "streams": streams}


def test_the_logging_policy_is_estimated_as_it_was(runs: tuple[Path, Path]) -> None:
    logging = next(p for p in report(runs[0])["policies"] if p["name"] == "logging")
    ips, snips = logging["estimates"]["ips"], logging["estimates"]["snips"]
    assert ips["value"] == pytest.approx(snips["value"], rel=1e-9)
    assert ips["max_weight"] == pytest.approx(1.0, rel=1e-9)


def test_the_same_seed_gives_the_same_log_and_numbers_also_in_the_place_of_another(
    runs: tuple[Path, Path],
) -> None:
    one, two = (report(run) for run in runs)
    assert one == two
    assert records(runs[0]) == records(runs[1])
    first, second = (sorted(run.glob("log/date=*/*.parquet")) for run in runs)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert pq.read_table(a).equals(pq.read_table(b))


def records(run: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(run / "log.sqlite") as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        ]
        assert "decision" in tables
        return [row for table in tables for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]


def _flat(value: Any) -> list[Any]:
    return [x for part in value for x in _flat(part)] if isinstance(value, list) else [value]


def test_a_bundle_of_another_batch_is_refused(
    runs: tuple[Path, Path], demo_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    foreign = tmp_path / "bundle"
    shutil.copytree(runs[0] / "bundle", foreign)
    manifest = json.loads((foreign / "manifest.json").read_text())
    (foreign / "manifest.json").write_text(json.dumps({**manifest, "batch_id": "0" * 16}))
    with pytest.raises(BundleError, match="different batches cannot be compared"):
        evaluate_log(runs[0] / "log", [f"{foreign}:0.05"], demo_settings(), None, Quiet())
    with pytest.raises(BundleError, match="different batches cannot be compared"):
        train_bundle(runs[0] / "log", foreign, tmp_path / "new", demo_settings(), Quiet())
    with pytest.raises(BundleError, match="holds something other than a bundle"):
        train_bundle(runs[0] / "log", runs[0] / "bundle", runs[0], demo_settings(), Quiet())
