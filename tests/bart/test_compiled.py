"""Machine code is compiled once where it can be kept, and read where it may not be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

LOOP = """
from bart.compiled import compiled

@compiled()
def total(n: int) -> int:
    sum_ = 0
    for i in range(n):
        sum_ += i
    return sum_
"""

RUN = """
import sys, tempfile

def refuse(dir=None, **_):
    if any(str(dir).startswith(folder) for folder in sys.argv[1:]):
        raise PermissionError(dir)
    return kept(dir=dir)

kept, tempfile.TemporaryFile = tempfile.TemporaryFile, refuse
import loop
assert loop.total(5) == 10
print("read" if loop.total.stats.cache_hits else "compiled")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder of a module with one compiled function."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "loop.py").write_text(LOOP)
    return tmp_path / "source"


def process(source: Path, given: Path | None = None, *read_only: Path) -> str:
    """How a new process comes by its machine code."""
    env = {**os.environ, "PYTHONPATH": f"{source}:{ROOT}", "HOME": str(source.parent / "home")}
    env |= {"NUMBA_CACHE_DIR": str(given)} if given else {}
    command = [sys.executable, "-c", RUN, *map(str, read_only)]
    return subprocess.run(command, check=True, env=env, capture_output=True, text=True, cwd=source).stdout.strip()


def test_code_in_a_given_folder_is_read_where_it_may_not_be_written(source: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    assert process(source, given) == "compiled"
    kept = sorted(given.rglob("*"))
    assert process(source, given, given) == "read"
    assert sorted(given.rglob("*")) == kept
    (source / "loop.py").write_text(LOOP + "\n# another version\n")
    assert process(source, given, given) == "compiled"


def test_code_beside_the_source_is_read_where_it_may_not_be_written(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert process(source, None, source, home) == "compiled"  # nothing to read, nowhere to write
    assert process(source, None, source, home) == "compiled"
    assert process(source) == "compiled"
    assert process(source, None, source, home) == "read"


def test_without_code_to_read_the_first_folder_that_may_be_written_is_used(source: Path) -> None:
    assert process(source, None, source) == "compiled"
    assert process(source, None, source) == "read"
    assert not list(source.rglob("*.nbi"))
