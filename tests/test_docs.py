"""What the README and the tutorial tell a newcomer to type works, block by block, in an empty folder."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- run -->\n(?:```(?P<language>\w+)\n(?P<fenced>[\s\S]*?)```|(?P<indented>(?:    .*\n|\n)+))")


def blocks(name: str) -> list[tuple[str, str]]:
    """(language, text) of each block marked to be run."""
    found = []
    for match in BLOCK.finditer((ROOT / name).read_text()):
        if match["fenced"] is not None:
            found.append((match["language"], match["fenced"]))
        else:
            found.append(("sh", "\n".join(line.strip() for line in match["indented"].strip().splitlines())))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plays.csv: 40 listeners of two tastes, a few songs an evening."""
    path = tmp_path_factory.mktemp("newcomer")
    rng = np.random.default_rng(0)
    with (path / "plays.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["listener", "song", "time"])
        for listener in range(40):
            for day in range(1, 21):
                for n in range(6):
                    song = int(rng.integers(0, 60)) + 60 * (listener % 2)
                    writer.writerow([f"listener {listener}", f"song {song}", f"2024-05-{day:02d}T20:{n * 4:02d}:00Z"])
    return path


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", "docs/evaluation.md", "docs/selection.md"])
def test_marked_blocks_run_in_order(name: str, folder: Path) -> None:
    found = blocks(name)
    assert len(found) >= 3
    for language, text in found:
        commands = (
            [[sys.executable, "-c", text]]
            if language == "python"
            else [[sys.executable, "-m", "api.cli", *shlex.split(line)[1:]] for line in text.splitlines()]
        )
        for command in commands:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_bart_command_shown_exists() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "api.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for command in re.findall(r"^    bart ([\w-]+)", file.read_text(), flags=re.MULTILINE):
            assert f"  {command} " in known, f"{file.name}: bart {command}"


def test_links_between_documents_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"
