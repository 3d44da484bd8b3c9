"""Who enters the arena: an estimator is one function of a log and a target."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np

from bart.ope.estimators.page_estimate import estimate_pages
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from simulator.arena.logs import Log, Target
from simulator.arena.tasks import SEED

# Of the reference library (obp) the slate estimators; the direct method; capped and pseudo-inverse weights; ours.
OURS = (
    "exposure_dr", "exposure_ips", "dm", "page_ncis", "slate_ips", "slate_snips", "independent_ips",
    "sn_independent_ips", "cascade_ips", "sn_cascade_ips", "cascade_dr", "pseudo_inverse",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What an estimator says of a target: its expected rewards a displayed page over all listeners, a 95 % interval
    where it gives one, and whether it stands by it ("conclusive")."""

    value: float
    lower: float | None = None
    upper: float | None = None
    conclusive: bool = True


Entry: TypeAlias = "Callable[[Log, Target], Answer]"


def ours(name: str) -> Entry:
    """An estimator of `PAGE_ESTIMATORS` as it is by default."""
    if name not in PAGE_ESTIMATORS:
        raise ValueError(f"estimator is {name!r}; expected FILE.py:FUNCTION or one of {', '.join(PAGE_ESTIMATORS)}")

    def entry(log: Log, target: Target) -> Answer:
        found = estimate_pages(name, log.pages(target), rng=np.random.default_rng([SEED, target.number]))
        return Answer(found.value, found.lower, found.upper, found.verdict == "conclusive")

    return entry


def entry_named(name: str) -> Entry:
    """An entry by what was asked for: a name of ours, FILE.py:FUNCTION, or MODULE:FUNCTION.

    Raises ValueError where there is no such function.
    """
    where, colon, function = name.rpartition(":")
    if not colon:
        return ours(name)
    if where.endswith(".py") and not Path(where).is_file():
        raise ValueError(f"{where}: no such file; expected FILE.py:FUNCTION")
    try:
        module = _of_file(Path(where)) if where.endswith(".py") else import_module(where)
    except Exception as error:  # it is somebody else's code
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where} cannot be imported ({why}); expected FILE.py:FUNCTION or MODULE:FUNCTION") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{where} has no function {function!r}")
    entry: Entry = found
    return entry


def _of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"arena_entry_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("it cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for classes that look up the module that they are of
    spec.loader.exec_module(module)
    return module


def version_of(name: str) -> str:
    """What tells two functions of one name apart: a hash of the file that holds an entry, this package's version for
    ours."""
    where, colon, _ = name.rpartition(":")
    if not colon:
        return version("bart-home")
    path = where if where.endswith(".py") else import_module(where).__file__
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def checked(name: str, answer: object) -> Answer:
    """The answer; ValueError where it is none."""
    if not isinstance(answer, Answer):
        raise ValueError(f"{name} gave {type(answer).__name__}; expected simulator.arena.Answer")
    if not np.isfinite(answer.value):
        raise ValueError(f"{name} gave the value {answer.value}; expected a finite number")
    if (answer.lower is None) != (answer.upper is None):
        raise ValueError(f"{name} gave one end of an interval; expected both or none")
    if answer.lower is not None and answer.upper is not None and not answer.lower <= answer.upper:
        raise ValueError(f"{name} gave the interval {answer.lower} to {answer.upper}; expected lower <= upper")
    return answer
