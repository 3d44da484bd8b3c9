"""The core alone, in an environment of its own: what `pip install bart-home` brings evaluates choices and pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from importlib.metadata import distribution, distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from page_export import export_pages
from places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_MB = 700
NO_NETWORK = ("No matching distribution", "Temporary failure in name resolution", "Could not fetch", "ConnectionError")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment: the core installed, and what it requires linked from where the tests run.

    Editable, for the sake of machine code that was compiled before: that a wheel holds everything is seen elsewhere."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in required(project["dependencies"]):
        link(name, site)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--editable", str(ROOT)], capture_output=True, text=True
    )
    if done.returncode and any(text in done.stderr for text in NO_NETWORK):
        pytest.skip(f"no package index to build the core with: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*pip, "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # pip finds every requirement met
    return folder


def required(requirements: list[str]) -> set[str]:
    """The packages that pip would install for these requirements and theirs, here and now."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        one, extra = waiting.pop()
        if (one.marker is None or one.marker.evaluate({"extra": extra})) and one.name not in found:
            found.add(one.name)
            theirs = [Requirement(text) for text in distribution(one.name).requires or ()]
            waiting += [(each, own) for own in ("", *one.extras) for each in theirs]
    return found


def link(name: str, site: Path) -> None:
    """The files of an installed package, as links where the file system has them."""
    one = distribution(name)
    for file in one.files or ():
        source, target = Path(str(one.locate_file(file))), site / file
        if ".." not in file.parts and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)


def bart(core: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, with nothing of the tests' own environment."""
    command = [str(core / "bin" / "bart"), *map(str, arguments)]
    return subprocess.run(command, cwd=core.parent, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)


def test_the_core_is_small_and_has_none_of_the_extras(core: Path) -> None:
    size: Counter[str] = Counter()
    for file in core.rglob("*"):
        size[file.suffix] += file.lstat().st_size
    source, compiled = size[".py"], size.pop(".pyc", 0)
    assert compiled <= 1.5 * source  # pip compiles all that it installs, whatever was compiled here
    assert size.total() + 1.5 * source <= MOST_MB * 1e6
    site = next(core.glob("lib/python*/site-packages"))
    listed = {one.metadata["Name"] for one in distributions(path=[str(site)])}
    assert {"bart-home", "numpy", "scipy", "pyarrow", "numba", "typer", "rich"} <= listed
    assert not {"torch", "faiss-cpu", "fastapi", "vowpal-wabbit-next", "matplotlib"} & listed


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
