"""The core alone, in an environment of its own: what `pip install bart-home` brings evaluates choices and pages."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from page_export import export_pages
from places import ROOT

MOST_MB = 700
NO_NETWORK = ("No matching distribution", "Temporary failure in name resolution", "Could not fetch", "ConnectionError")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment, with the core installed."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    done = subprocess.run([*map(str, install), str(ROOT)], capture_output=True, text=True, check=False)
    if done.returncode and any(text in done.stderr for text in NO_NETWORK):
        pytest.skip(f"no package index to install the core from: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder


def bart(core: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, away from the checkout."""
    command = [str(core / "bin" / "bart"), *map(str, arguments)]
    return subprocess.run(command, cwd=core.parent, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)


def test_the_core_is_small_and_has_none_of_the_extras(core: Path) -> None:
    size_mb = sum(file.lstat().st_size for file in core.rglob("*")) / 1e6
    assert size_mb <= MOST_MB
    listed = subprocess.run([str(core / "bin" / "pip"), "list"], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "faiss-cpu", "fastapi", "vowpal-wabbit-next", "matplotlib"} & set(listed.split())


def test_the_core_evaluates_a_table_of_choices_with_predicted_rewards(core: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, action = rng.normal(size=2000), rng.integers(0, 2, 2000)
    reward = rng.random(2000) < 0.2 + 0.3 * (action == (x > 0))
    p = np.where(action == (x > 0), 0.9, 0.1)
    pmf = np.where(x > 0, 0.1, 0.9)
    lines = [
        f"{int(r)},{a},0.5,{one},{zero},{1 - zero},{c}"
        for r, a, one, zero, c in zip(reward, action, p, pmf, x, strict=True)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["reward,action,propensity,p,p0,p1,x", *lines]) + "\n")
    for target in (["--target-probability", "p"], ["--target-pmf", "p0,p1", "--context", "x"]):
        done = bart(core, "evaluate", tmp_path / "log.csv", *target, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert "conclusive" in done.stdout
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["policies"]


def test_the_core_evaluates_pages_beside_their_bundle_as_everything_does(
    core: Path, built_run: Path, tmp_path: Path
) -> None:
    log = export_pages(built_run, tmp_path)
    command = ["evaluate", log, "--policy", f"{tmp_path / 'bundle'}:0.1", "--policy", "popularity:0.2"]
    here = [sys.executable, "-m", "api.cli", *map(str, command), "--out", str(tmp_path / "here")]
    subprocess.run(here, cwd=ROOT, check=True, capture_output=True)
    done = bart(core, *command, "--out", tmp_path / "there")
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / place / "report.json").read_text())["policies"] for place in ("here", "there")]
    assert told[0] == told[1]


def test_the_core_says_what_a_command_needs(core: Path) -> None:
    done = bart(core, "serve", "--run", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "bart: fastapi not installed; expected pip install 'bart-home[serve]'\n"
