"""Every notebook runs from top to bottom without an error, shows plots, and is kept without its outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import places
import pytest

NOTEBOOKS = sorted((places.ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "01_a_page_and_its_propensities",
    "02_evaluation_you_can_trust",
    "03_cosernn_against_its_baselines",
    "04_a_closed_loop_from_cold_start",
    "05_the_carousel_benchmark",
]
EVERY = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
MINUTES = 10  # each takes well under one; this is for a machine that does much else


def test_the_notebooks_that_are_described_are_there() -> None:
    assert [file.stem for file in NOTEBOOKS] == NAMES


@EVERY
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert not cell.get("attachments")


@pytest.mark.slow
@EVERY
def test_a_notebook_starts_with_its_number_and_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)  # the same figures wherever the tests run
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("IPYTHONDIR", os.fspath(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path / "runtime"))
    notebook = nbformat.read(file, as_version=4)
    assert notebook.cells[0].source.startswith(f"# {int(file.stem[:2])}. ")
    client = NotebookClient(
        notebook, timeout=60 * MINUTES, kernel_name="python3", resources={"metadata": {"path": os.fspath(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    complaints = [output.text for output in outputs if output.get("name") == "stderr"]
    assert complaints == []
