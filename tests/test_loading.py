"""What a command does not need it does not import: names of modules, never times."""

from __future__ import annotations

import subprocess
import sys

from places import ROOT

HEAVY = {
    "torch",
    "faiss",
    "sklearn",
    "matplotlib",
    "jinja2",
    "fastapi",
    "pydantic",
    "duckdb",
    "vowpal_wabbit_next",
}


def loaded(statement: str) -> set[str]:
    """The modules that a new process holds after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    return set(done.stdout.split())


def test_help_loads_the_command_line_only() -> None:
    assert not loaded("import api.cli") & (HEAVY | {"numpy", "scipy", "pyarrow", "numba", "sqlite3", "rich.table"})


def test_settings_and_scoring_load_no_learner() -> None:
    assert not loaded("import api.run.settings") & (HEAVY | {"numpy"})
    assert not loaded("import bart.reward.scorer, bart.bundle, bart.log.decision_log") & HEAVY


def test_off_policy_evaluation_loads_neither_statistics_nor_machine_code_nor_pages() -> None:
    found = loaded("import bart.ope")
    assert not found & {"scipy.stats", "scipy.special", "scipy.optimize", "numba", "pyarrow", "bart.page.policy"}
    assert not found & HEAVY
