"""The core installs alone: what is imported is declared, what is missing is one line that says what to type."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

from api.extras import OF_COMMAND, OF_MODULE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("bart", "recommender", "simulator", "api")
# Names under which packages are imported, where that is another than the package's own.
IMPORTED_AS = {"faiss-cpu": "faiss"}
# Found by another package where they are installed, or data: (what for)
NOT_IMPORTED = {"uvloop": "uvicorn", "httptools": "uvicorn", "tzdata": "zoneinfo", "pandas": "pyspark"}
# Imported by their names, one of several packages that do the same: (where)
CHOSEN = {"vowpal_wabbit_next": "bart/reward/vowpal.py"}
ABSENT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
absent = set(sys.argv[1].split(','))
sys.meta_path.insert(0, Absent())
from api.cli import main
main(sys.argv[2:])
"""


def modules(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w.-]+", one)[0].lower() for one in requirements}  # type: ignore[index]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names if name != "bart-home"}


def imports() -> Iterator[str]:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    yield node.module.split(".")[0]


def without(absent: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-c", ABSENT, ",".join(sorted(absent)), *arguments]
    return subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=False)


def of_extra(extra: str) -> set[str]:
    return {module for module, brings in OF_MODULE.items() if brings == extra}


def test_every_dependency_is_imported_and_every_import_is_declared() -> None:
    runtime = modules(PROJECT["dependencies"]).union(
        *(modules(EXTRAS[extra]) for extra in ("serve", "listeners", "spark", "redis", "plots"))
    )
    used = set(imports()) - set(sys.stdlib_module_names) - set(PACKAGES) | {"tomli"}
    assert runtime - set(NOT_IMPORTED) - set(CHOSEN) == used
    assert all(f'"{name}"' in (ROOT / file).read_text() for name, file in CHOSEN.items())


def test_the_core_is_what_evaluation_needs() -> None:
    assert modules(PROJECT["dependencies"]) == {
        "numpy", "scipy", "pyarrow", "numba", "typer", "rich", "tomli", "tzdata"
    }  # fmt: skip


def test_every_module_outside_the_core_is_known_with_an_extra_that_brings_it() -> None:
    for module, extra in OF_MODULE.items():
        assert module in modules(EXTRAS[extra]), module
    outside = set().union(*(modules(EXTRAS[extra]) for extra in set(OF_MODULE.values())))
    assert outside == set(OF_MODULE)
    assert all(module in modules(EXTRAS[extra]) for needs in OF_COMMAND.values() for module, extra in needs.items())


def test_all_is_every_extra_of_the_program() -> None:
    assert set(re.findall(r"[a-z]+", EXTRAS["all"][0].partition("[")[2])) == set(OF_MODULE.values())


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("serve", ["serve", "--run", "nowhere"]),
        ("listeners", ["build", "--events", "nowhere.csv", "--out", "nowhere"]),
        ("listeners", ["demo", "--out", "nowhere"]),
        ("plots", ["demo", "--out", "nowhere"]),
        ("redis", ["log", "consume", "--redis", "redis://localhost:1/0", "--log", "nowhere.sqlite"]),
    ],
)
def test_a_command_without_its_extra_says_the_one_line_to_type(extra: str, arguments: list[str]) -> None:
    absent = of_extra(extra) - {"pydantic"}  # which newer releases of typer bring
    done = without(absent, *arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search(rf"pip install 'bart-home\[[\w,]*{extra}[\w,]*\]'", done.stderr)


def test_help_and_evaluation_need_no_extra(tmp_path: Path) -> None:
    file = tmp_path / "choices.csv"
    rows = "\n".join(f"{k % 2},{k % 3 % 2},0.5,{0.7 if k % 3 % 2 else 0.3}" for k in range(400))
    file.write_text(f"reward,action,propensity,p\n{rows}\n")
    absent = set(OF_MODULE) - {"pydantic"}
    assert without(absent, "--help").returncode == 0
    assert without(absent, "serve", "--help").returncode == 0
    table = ["evaluate", str(file), "--target-probability", "p", "--reward-range", "0,1"]
    done = without(absent, *table, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.json").is_file()
    assert not (tmp_path / "out" / "report.html").exists()
    assert "pip install 'bart-home[plots]'" in " ".join(done.stdout.split())
    assert "conclusive" in done.stdout or "weak" in done.stdout
