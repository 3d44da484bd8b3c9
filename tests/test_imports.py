"""Who may import whom: api -> simulator -> recommender -> bart, and nothing heavy where it is not wanted."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

MAY_IMPORT = {
    "bart": {"bart"},
    "recommender": {"recommender", "bart"},
    "simulator": {"simulator", "recommender", "bart"},
    "api": {"api", "simulator", "recommender", "bart"},
}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top_level(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_to_their_right(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imported(file)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], file


def test_the_recommender_takes_only_types_errors_and_compilation_of_bart() -> None:
    for file in (ROOT / "recommender").rglob("*.py"):
        modules = {".".join(name.split(".")[:2]) for name in imported(file) if name.split(".")[0] == "bart"}
        assert modules <= {"bart.types", "bart.errors", "bart.compiled"}, file


def test_vowpal_wabbit_is_known_to_the_reward_model_only() -> None:
    users = {
        file.name for p in MAY_IMPORT for file in (ROOT / p).rglob("*.py") if "vowpal_wabbit_next" in file.read_text()
    }
    assert users <= {"model.py", "scorer.py", "bundle.py"}


@pytest.mark.parametrize("name", ["torch", "faiss", "gensim"])
def test_models_and_indexes_stay_in_the_recommender(name: str) -> None:
    for package in ("bart", "simulator", "api"):
        for file in (ROOT / package).rglob("*.py"):
            assert name not in {n.split(".")[0] for n in imported(file)}, file


def test_evaluation_needs_only_numpy_scipy_and_pyarrow_when_imported() -> None:
    allowed = {"numpy", "scipy", "pyarrow", "bart"} | set(sys.stdlib_module_names)
    for file in (ROOT / "bart" / "ope").rglob("*.py"):
        assert top_level(file) <= allowed, file


def test_bart_works_without_torch_faiss_and_fastapi() -> None:
    code = (
        "import importlib.abc, sys\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'faiss', 'fastapi', 'gensim'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import bart.home, bart.bundle, bart.log.decision_log, bart.ope\n"
        "import bart.learning.training, bart.reward.scorer\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_command_line_does_not_load_what_help_does_not_need() -> None:
    code = (
        "import sys, api.cli\n"
        "heavy = {'torch', 'faiss', 'gensim', 'numba', 'fastapi', 'matplotlib', 'sklearn', 'duckdb', 'scipy', 'numpy',"
        " 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
