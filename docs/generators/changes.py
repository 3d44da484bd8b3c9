"""The usual changes: which file, which line, and the tests that then hold for what was added."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from generators.tables import table

ROOT = Path(__file__).resolve().parents[2]
# what is added, where it stands, (name, file of the line), what its line does, tests
CHANGES = (
    (
        "a ranking policy",
        "a class with the methods of `RankingPolicy`, in a file of `bart/ranking/`",
        (("POLICIES", "bart/ranking/policies.py"), ("POLICIES", "bart/log/care/replay.py")),
        "its name; by the second, `bart log verify` draws again the pages that name it",
        "tests/bart/page/test_policy.py",
    ),
    (
        "an estimator",
        "a function of the logged record to `Terms` (of pages: `PageTerms`), in a file of `bart/ope/estimators/`",
        (
            ("ESTIMATORS", "bart/ope/estimators/choices.py"),
            ("SLATE_ESTIMATORS", "bart/ope/estimators/slates.py"),
            ("PAGE_ESTIMATORS", "bart/ope/estimators/pages.py"),
        ),
        "its name, for `estimate(...)` and `bart evaluate --estimator`; one of the three, by its record",
        "tests/bart/ope/estimators/test_extremes.py",
    ),
    (
        "a shelf rule",
        "a function of `ShelfInputs` that yields shelves with rows of items",
        (("SHELF_RULES", "recommender/shelves/rules.py"),),
        "its name and how specific it is",
        "tests/recommender/shelves/test_rules.py",
    ),
    (
        "an importer",
        "a function of files to blocks of rows, and how to tell them, in a file of `recommender/events/importers/`",
        (("IMPORTERS", "recommender/events/importers/__init__.py"),),
        "its name, for `load_events(path, kind)`",
        "tests/recommender/events/test_importers.py",
    ),
    (
        "a candidate source",
        "a class with the method of `CandidateSource` (`bart/types/candidates.py`)",
        (("open_run", "api/run/runs.py"),),
        "`source=`, what a run is served from; in code, the first argument of `HomeRanker`",
        "tests/bart/test_home.py",
    ),
)


def changes(root: str = "") -> str:
    """The table of them; root: the way from the page to the checkout. AttributeError where a name is not there."""
    rows = []
    for what, where, lines, does, tests in CHANGES:
        for name, file in lines:
            getattr(import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")), name)
        if not (ROOT / tests).is_file():
            raise AttributeError(f"{tests} is not there")
        line = "; ".join(f"`{name}` in [{file}]({root}{file})" for name, file in lines)
        rows.append((what, where, line, does, f"[{tests.rsplit('/')[-1]}]({root}{tests})"))
    return "\n".join(table(("what", "one file", "one line", "which is", "tests"), rows))
