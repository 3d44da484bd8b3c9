"""Every code block of the README and of docs/ is run, or says why not; links lead somewhere; commands exist."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening_exports import write_exports
from once import made_once
from places import ROOT

TUTORIAL = "docs/tutorial.md"
PAGES = [
    file.relative_to(ROOT).as_posix()
    for file in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in file.parts
]
CODE = re.compile(r"^\s*(bart|curl|pip|python|make) |^(import|from) \w|^\[[\w.]+\]$", re.MULTILINE)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


BLOCKS = _module(ROOT / "docs/blocks.py")


def blocks(name: str) -> list[Any]:
    return list(BLOCKS.blocks((ROOT / name).read_text()))


def has_code(name: str) -> bool:
    return any(block.mark in ("run", "serve") for block in blocks(name))


@pytest.fixture(scope="module")
def run_page() -> Iterator[Callable[[str, Path], dict[str, Any]]]:
    """Runs the blocks of a page in a folder; one process serves all pages."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "COLUMNS": "150"}
    command = [sys.executable, str(ROOT / "tests/support/docs_runner.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:

        def run(name: str, folder: Path) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"page": str(ROOT / name), "folder": str(folder)}) + "\n")
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))

        yield run


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, run_page: Callable[[str, Path], dict[str, Any]]) -> Path:
    """An empty folder but for plays.csv, 40 listeners of two tastes, a few songs an evening, and one day more; in it
    what the tutorial made, and what became of its blocks in outcome.json."""

    def learn(folder: Path) -> None:
        write_plays(folder / "plays.csv", range(1, 21))
        write_plays(folder / "new_plays.csv", range(21, 22))
        (folder / "outcome.json").write_text(json.dumps(run_page(TUTORIAL, folder)))

    return made_once(tmp_path_factory, "newcomer", learn)


def write_plays(file: Path, days: range) -> None:
    rng = np.random.default_rng(days.start)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["listener", "song", "time"])
        for listener in range(40):
            for day in days:
                for n in range(6):
                    song = int(rng.integers(0, 60)) + 60 * (listener % 2)
                    writer.writerow([f"listener {listener}", f"song {song}", f"2024-05-{day:02d}T20:{n * 4:02d}:00Z"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [TUTORIAL, *(name for name in PAGES if name != TUTORIAL and has_code(name))])
def test_every_marked_block_of_a_page_does_what_it_says(
    name: str, newcomer: Path, run_page: Callable[[str, Path], dict[str, Any]], tmp_path: Path
) -> None:
    """The run that the tutorial made, in an empty folder, is the one that the other pages speak of as RUN."""
    found = json.loads((newcomer / "outcome.json").read_text())
    if name != TUTORIAL:
        assert (newcomer / "runs/small").exists(), "the tutorial did not come so far as to make RUN"
        for file in ("plays.csv", "new_plays.csv"):
            shutil.copy(newcomer / file, tmp_path)
        shutil.copytree(newcomer / "runs/small", tmp_path / "RUN", symlinks=True)
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs/demo").symlink_to(tmp_path / "RUN")
        if name.startswith("docs/exports/"):
            write_exports(tmp_path)
        found = run_page(name, tmp_path)
    assert "error" not in found, found["error"]
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["done"] == sum(one.mark in ("run", "serve", "file", "output") for one in blocks(name))


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_what_becomes_of_it(name: str) -> None:
    for block in blocks(name):
        where = f"{name}:{block.line}"
        assert block.mark, f"{where} has no mark (docs/blocks.py lists them)\n{block.text}"
        if block.mark == "shown":
            assert block.note, f"{where} does not say what is shown"
            assert block.language in ("", "text", "mermaid", "json"), where
            assert not CODE.search(block.text), f"{where} looks like code: it is run or says why not\n{block.text}"
        if block.mark == "not run":
            assert len(block.note) > 10, f"{where} does not say why"
        if block.mark == "run" and block.note:
            assert re.fullmatch(r"exits [0-3]( or [0-3])?", block.note), f"{where}: {block.note}"


def test_few_blocks_are_left_out_and_most_are_run() -> None:
    marks = [block.mark for name in PAGES for block in blocks(name)]
    assert marks.count("not run") <= 29
    assert marks.count("run") + marks.count("serve") >= 3 * marks.count("not run")


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("text\n\n    bart x\n\ntext\n", [("", "sh", "bart x\n")]),
        ("<!-- run -->\n    bart x\n    bart y\n", [("run", "sh", "bart x\nbart y\n")]),
        ("<!-- not run: a cluster -->\n```sh\nbart x\n```\n", [("not run", "sh", "bart x\n")]),
        ("<!-- output -->\n```text\n1\n\n2\n```\n", [("output", "text", "1\n\n2\n")]),
        ("```sh\nbart x\n```\n\n    [page]\n", [("", "sh", "bart x\n"), ("", "toml", "[page]\n")]),
        ("1. a list\n\n    that goes on\n", []),
        ("```{toctree}\nnot code\n```\n", []),
    ],
)  # fmt: skip
def test_blocks_are_found_with_their_marks(page: str, found: list[tuple[str, str, str]]) -> None:
    assert [(one.mark, one.language, one.text) for one in BLOCKS.blocks(page)] == found


def test_the_runner_sees_what_fails(tmp_path: Path, run_page: Callable[[str, Path], dict[str, Any]]) -> None:
    page = tmp_path / "page.md"
    wrong = {
        "<!-- run -->\n    bart bundle verify nowhere\n": "exit 2; expected 0",
        "<!-- run -->\n```python\nassert 1 == 2\n```\n": "AssertionError",
        "<!-- run -->\n```python\nprint(3)\n```\n\n<!-- output -->\n    4\n": "the page says",
        "<!-- file: bart.toml -->\n    [page]\n    rowz = 3\n": "setting page.rowz is 3",
        "<!-- run -->\n    false | cat\n": "exit 1; expected 0",
    }
    for text, complaint in wrong.items():
        page.write_text(text)
        assert complaint in run_page(os.path.relpath(page, ROOT), tmp_path)["error"]
    page.write_text("<!-- run -->\n```python\nprint('one', 2)\n```\n\n<!-- output -->\n    one ...\n")
    assert run_page(os.path.relpath(page, ROOT), tmp_path) == {"done": 2}


def test_every_bart_command_shown_exists() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "api.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in PAGES:
        for block in blocks(name):
            for command in re.findall(r"^bart ([a-z][\w-]+)", block.text, flags=re.MULTILINE):
                assert f"  {command} " in known, f"{name}: bart {command}"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text()):
        assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
