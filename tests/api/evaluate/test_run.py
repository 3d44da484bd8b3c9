"""`bart evaluate RUN`: the log of a run brought up to date, its report where the operator's page finds it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from api.cli import main
from api.http.operate import newest_report


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    """A copy of the demonstration without its report and its exported log."""
    shutil.copytree(demo_run, tmp_path / "run", symlinks=True)
    for name in ("report.html", "report.json"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "log")
    return tmp_path / "run"


def test_a_run_is_evaluated_whole_and_its_report_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(run)])
    said = capsys.readouterr()
    assert (done.value.code, said.err) == (0, "")
    assert f"report in {run / 'report.html'}" in said.out
    report = json.loads((run / "report.json").read_text())
    assert report["log"]["pages"] > 1000
    assert newest_report(run) == run / "report.html"
    (run / "candidate").mkdir()
    later = run / "candidate" / "report.html"
    later.write_text("<p>later</p>")
    os.utime(later, ns=(2**62, 2**62))
    assert newest_report(run) == later
    os.utime(later, ns=(0, 0))
    assert newest_report(run) == run / "report.html"


def test_a_run_whose_windows_are_open_says_until_when(built_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(built_run)])
    assert done.value.code == 2
    assert "holds no closed page; expected pages shown more than 24 hours ago (reward.window_h)" in (
        capsys.readouterr().err
    )


def test_an_export_takes_the_rewards_of_its_run_and_warns_where_no_page_is_closed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bart.log.outcomes.pages import recorded_reward

    marker = json.loads((run / "run.json").read_text())
    marker["settings"]["reward"]["name"] = "clicked"
    (run / "run.json").write_text(json.dumps(marker))

    def export(*options: str) -> tuple[Path, str]:
        out = tmp_path / f"log{len(options)}"
        with pytest.raises(SystemExit) as done:
            main(["log", "export", str(run / "log.sqlite"), "--out", str(out), *options])
        assert done.value.code == 0
        return out, capsys.readouterr().err

    out, told = export()
    assert (recorded_reward(out), told) == ("clicked", "")
    (tmp_path / "bart.toml").write_text('[reward]\nname = "share_30s"\n')
    assert recorded_reward(export("--config", str(tmp_path / "bart.toml"))[0]) == "share_30s"
