"""What a pipeline requires of a report, why a verdict is what it is, and what would change it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.cli import main


def log(path: Path, n: int, lift: float = 0.2, propensity: float = 0.5) -> Path:
    rng = np.random.default_rng(1)
    action = np.arange(n) % 2
    columns = {
        "reward": (rng.random(n) < 0.3 + lift * action).astype(float),
        "propensity": np.full(n, propensity),
        "target": np.where(action == 1, 0.9, 0.1),
    }
    pq.write_table(pa.table(columns), path)
    return path


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments, "--target-probability", "new=target"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_what_is_required_has_an_exit_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better, same, few = (log(tmp_path / f"{i}.parquet", n, lift) for i, (n, lift) in enumerate(
        [(3_000, 0.2), (3_000, 0.0), (12, 0.2)]
    ))  # fmt: skip
    assert code(str(better), "--require", "better") == 0
    assert code(str(better), "--require", "conclusive") == 0
    assert code(str(same), "--require", "conclusive") == 0
    assert code(str(same), "--require", "better") == 4
    assert "not better: new is undecided against logging" in capsys.readouterr().out
    assert code(str(few), "--require", "conclusive") == 4
    out = capsys.readouterr().out
    assert "not conclusive: new is unusable: " in out
    assert "new is unusable: " in out.split("not conclusive")[0]  # the reason stands with the verdict, too
    assert code(str(few)) == 0
    assert code(str(better), "--require", "worse") == 2


def test_a_log_without_chance_is_never_conclusive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = log(tmp_path / "a.parquet", 3_000, propensity=1.0)
    assert code(str(fixed), "--require", "conclusive") == 4
    assert "every choice has propensity 1" in capsys.readouterr().out


def test_a_report_is_explained_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(str(log(tmp_path / "a.parquet", 60)), "--out", str(tmp_path / "out")) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["explain", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "new: " in out
    assert "What would change it: log more, explore more" in out
    assert "adding one cannot" in out
    assert "the state in which the logging policy left" in out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    new = next(policy for policy in found["policies"] if policy["name"] == "new")
    assert new["sensitivity"]["factor"] > 1
    assert f"wrong by a factor of {new['sensitivity']['factor']:.2f}" in out
    with pytest.raises(SystemExit, match="2"):
        main(["explain", str(tmp_path / "nowhere")])


def test_which_policies_may_be_the_best_is_told_where_intervals_hold_at_every_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = str(log(tmp_path / "a.parquet", 3_000, lift=0.6)), str(tmp_path / "out")
    assert code(table, "--estimator", "ips", "--interval", "anytime", "--out", out) == 0
    assert "At every look" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "report.json").read_text())["elimination"]
    assert found["left"] == ["new"]
    assert "<h2>At every look</h2>" in (tmp_path / "out" / "report.html").read_text()
    assert code(table, "--out", out) == 0
    assert "elimination" not in json.loads((tmp_path / "out" / "report.json").read_text())
