"""The house: rooms on floors, who may import whom, and nothing heavy where it is not wanted."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from code_lines import code_lines
from places import ROOT

MAY_IMPORT = {
    "bart": {"bart"},
    "recommender": {"recommender", "bart"},
    "simulator": {"simulator", "recommender", "bart"},
    "api": {"api", "simulator", "recommender", "bart"},
}

# Every room from the ground up: one imports from rooms before it in this list, never from one behind it. A file that
# stands beside rooms (bart/home.py) is a room of its own, and so is the face of rooms (bart/ope/__init__.py).
ROOMS = """
bart.errors bart.types bart.compiled bart.directories bart.tensors
bart.ranking bart.reward bart.page bart.item_store
bart.log.record bart.log.store bart.log.outcomes bart.log.proof bart.log.decision_log bart.log.care
bart.ope.records bart.ope.intervals bart.ope.weights bart.ope.models bart.ope.exposure bart.ope.verdict
bart.ope.estimators bart.ope.estimate bart.ope.policies bart.ope.inputs bart.ope.engine bart.ope.comparison
bart.ope.report bart.ope
bart.learning bart.bundle bart.home bart.live
recommender.sessions recommender.events recommender.events.importers recommender.importers recommender.vectors
recommender.containers recommender.listener recommender.features recommender.users recommender.states
recommender.shelves recommender.study recommender.transfer
simulator.world simulator.reading simulator.loop simulator.study simulator.arena simulator.search
simulator.datasets simulator.datasets.carousel simulator.datasets.kuairand simulator.datasets.open_bandit
api.extras api.run api.wire api.options api.hosts api.background api.evaluate api.metrics api.service api.users api.jobs
api.upkeep api.browse api.http api.console api.commands api.cli
"""
FLOOR = {room: floor for floor, room in enumerate(ROOMS.split())}
MOST_FILES = 14  # of a room, its __init__.py apart
ONE_FILE_A_COMMAND = "api.commands"  # of any size, and none of its files imports another
# What can be imported by a short path, whatever the rooms below do.
FACES = {
    "bart.ope": "ESTIMATORS INTERVALS PAGE_ESTIMATORS Diagnostics Estimate Gates LoggedChoices LoggedPages LoggedSlates"
    " Tuned diagnose estimate tune",
    "bart.ranking": "POLICIES EpsilonGreedy MarginalEstimate PlackettLuce Ranking RankingPolicy Uniform batch_rank"
    " choose conditional_propensity marginal_of_rank marginal_table min_rank propensity_of_rank",
    "bart.types": "DEVICES ITEM_TYPES OTHER_DEVICE Bools CandidateSource Candidates Context Dates Decision DecisionSink"
    " Floats Floats32 Ints ItemTable Labels Listener ListenerStore ListenerTraits Page PageBatch PageScorer Shelf"
    " Strings device_code",
    "bart.home": "HomeRanker epsilon_greedy_page",
    "recommender.importers": "IMPORTERS Importer load_events",
}


def imported(file: Path) -> set[str]:
    """The dotted names that a file imports anywhere, in functions and for types too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
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


@cache
def graph() -> dict[str, set[str]]:
    """Of every module of the four packages, those that it imports."""
    files = {module_of(file): file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}
    return {
        module: {next((n for n in (name, name.rpartition(".")[0]) if n in files), "") for name in imported(file)}
        - {module, ""}
        for module, file in files.items()
    }


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room in which a module stands, "" where it stands in none."""
    return next((name for name in (module, module.rpartition(".")[0]) if name in FLOOR), "")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_file_stands_in_a_room(package: str) -> None:
    houses = {m.rpartition(".")[0] for m in graph()}  # a face that imports nothing needs no floor
    homeless = {m for m in graph() if m.split(".")[0] == package and not room_of(m) and (m not in houses or graph()[m])}
    assert not homeless


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_rooms_import_from_rooms_below_them(package: str) -> None:
    arrows = [(m, n) for m in graph() if m.split(".")[0] == package and room_of(m) for n in graph()[m]]
    assert [(m, n) for m, n in arrows if FLOOR[room_of(n)] > FLOOR[room_of(m)]] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_room_holds_few_files_and_says_its_idea_in_one_sentence() -> None:
    for folder in {file.parent for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}:
        face = folder / "__init__.py"
        files = [file for file in folder.glob("*.py") if file != face]
        assert len(files) <= MOST_FILES or module_of(face) == ONE_FILE_A_COMMAND, folder
        idea = (ast.get_docstring(ast.parse(face.read_text())) or "").partition("\n\n")[0]
        assert idea[-1:] == "." and ". " not in idea, face  # noqa: PT018


def test_no_command_imports_another() -> None:
    commands = {module for module in graph() if room_of(module) == ONE_FILE_A_COMMAND}
    assert {m: graph()[m] & commands for m in commands if graph()[m] & commands} == {}


def test_no_file_repeats_in_its_name_what_its_room_says() -> None:
    for module in graph():
        *rooms, name = module.split(".")
        said = {word for room in rooms for word in (room, room.removesuffix("s"))}
        first, _, rest = name.partition("_")
        assert not rest or first not in said, module


def test_tests_mirror_the_rooms() -> None:
    for folder in (f for f in (ROOT / "tests").rglob("*") if f.is_dir() and f.name != "__pycache__"):
        place = folder.relative_to(ROOT / "tests")
        assert not (folder / "__init__.py").exists(), folder
        assert place.parts[0] in ("support", "data") or (ROOT / place).is_dir(), folder


@pytest.mark.parametrize("face", FACES)
def test_public_names_keep_their_short_paths(face: str) -> None:
    assert [name for name in FACES[face].split() if not hasattr(import_module(face), name)] == []


def test_what_benchmarks_import_is_there() -> None:
    for file in (ROOT / "benchmarks").rglob("*.py"):
        for name in (n for n in imported(file) if n.split(".")[0] in MAY_IMPORT and n not in graph()):
            module = name.rpartition(".")[0]
            assert module in graph(), f"{file}: {name}"
            assert name.rpartition(".")[2] in bound(module), f"{file}: {name}"


@cache
def bound(module: str) -> set[str]:
    """The names that a module binds at its top level."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_to_their_right(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imported(file)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], file


def test_the_recommender_takes_only_types_errors_and_compilation_of_bart() -> None:
    for file in (ROOT / "recommender").rglob("*.py"):
        modules = {".".join(name.split(".")[:2]) for name in imported(file) if name.split(".")[0] == "bart"}
        assert modules <= {"bart.types", "bart.errors", "bart.compiled", "bart.tensors"}, file


def test_vowpal_wabbit_is_known_to_the_reward_model_only() -> None:
    users = {
        file.name for p in MAY_IMPORT for file in (ROOT / p).rglob("*.py") if "vowpal_wabbit_next" in file.read_text()
    }
    assert users <= {"vowpal.py", "extras.py"}  # extras.py says what to install


@pytest.mark.parametrize("name", ["torch", "faiss"])
def test_models_and_indexes_stay_in_the_recommender(name: str) -> None:
    for package in ("bart", "simulator", "api"):
        for file in (ROOT / package).rglob("*.py"):
            assert name not in {n.split(".")[0] for n in imported(file)}, file


def test_importing_evaluation_loads_no_model_no_kernel_and_no_statistics() -> None:
    code = (
        "import sys, bart.ope\n"
        "heavy = ('bart.ranking', 'bart.reward', 'bart.page', 'bart.log', 'bart.learning', 'numba', 'pyarrow',"
        " 'sklearn', 'scipy.stats')\n"
        "found = [name for name in sys.modules if name.startswith(heavy)]\n"
        "import bart.ope.report.report, bart.ope.comparison.evaluation\n"  # what `bart evaluate` does with a log
        "sys.exit(', '.join([*found, *({'scipy.stats'} & set(sys.modules))]) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_evaluation_needs_only_numpy_scipy_and_pyarrow_when_imported() -> None:
    allowed = {"numpy", "scipy", "pyarrow", "bart"} | set(sys.stdlib_module_names)
    for file in (ROOT / "bart" / "ope").rglob("*.py"):
        assert top_level(file) <= allowed, file


def test_bart_works_without_torch_faiss_and_fastapi() -> None:
    code = (
        "import importlib.abc, sys\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'faiss', 'fastapi'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import bart.home, bart.bundle, bart.log.decision_log, bart.ope\n"
        "import bart.learning.training, bart.reward.scorer\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_command_line_does_not_load_what_help_does_not_need() -> None:
    code = (
        "import sys, api.cli\n"
        "heavy = {'torch', 'faiss', 'numba', 'fastapi', 'matplotlib', 'sklearn', 'duckdb', 'scipy', 'numpy',"
        " 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_blank_lines_comments_and_docstrings_are_no_code() -> None:
    code = ["import os", "def f(x):  # what", "    return (", "        x", "    )"]
    other = ['"""About."""', "", "# why", '    """Says.\n\n    More."""']
    assert code_lines("\n".join([*other[:3], *code[:2], other[3], *code[2:]])) == len(code)
