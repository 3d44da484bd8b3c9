"""A run is scored from the files that a build leaves in it, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from api.cli import app
from api.jobs.build import build_run
from api.run.progress import Quiet
from api.run.settings import load_settings


def test_the_command_prints_the_tables_and_writes_them_and_says_that_they_are_not_causal(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plays = [
        (f"u{u}", day, n, 30 * (u % 2) + int(rng.integers(30))) for u in range(8) for day in range(30) for n in range(4)
    ]
    rows = [
        {"user_id": user, "item_id": f"s{song}", "started_at": 1_714_500_000 + day * 86_400 + n * 200}
        for user, day, n, song in plays
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "plays.parquet")
    run = tmp_path / "run"
    build_run(tmp_path / "plays.parquet", None, None, run, {}, load_settings({}), Quiet())
    done = CliRunner().invoke(app, ["score", str(run), "--cuts", "2", "--cards", "4"])
    assert done.exit_code == 0, done.output
    assert "no causal value" in done.output
    told = json.loads((run / "score.json").read_text())
    assert len(told["cuts"]) == 2
    assert {line["kind"] for line in told["lists"]} == {"repeats", "first plays", "page"}
    for line in told["lists"]:
        assert 0 <= line["recall"][0] <= 1
        assert line["listeners"] <= 8
    (run / "events.parquet").unlink()
    missing = CliRunner().invoke(app, ["score", str(run)])
    assert missing.exit_code != 0  # its events are what is scored
