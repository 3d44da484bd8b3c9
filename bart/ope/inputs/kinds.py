"""Logs of single choices and slates as files: which kind a file is, and what every reader of them returns.

`inputs_table` reads CSV and Parquet, `inputs_dsjson` decision logs of Vowpal Wabbit, `inputs_arrays` npz. The first two
go through the file batch by batch and keep a few numbers a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.types import Floats, Ints

FORMATS = ("pages", "table", "dsjson", "npz")
_ENDINGS = {
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "table",
    ".npz": "npz",
    ".dsjson": "dsjson",
    ".json": "dsjson",
    ".jsonl": "dsjson",
    ".ndjson": "dsjson",
}


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceInput:
    """A log of single choices or slates with the policies to evaluate on it.

    policies: the record of each, by name; all of the same rows. user: [n] code of each row's user, where known.
    left_out: rows of the file that are in no record, by reason. warnings: what holds for the whole log, to be said
    first. model_only: there are no propensities, so only the direct method means anything. parameters: arrays that some
    estimators need beside the record (`context`, `embedding`, `cluster`, `logging_pmf`, `behaviour`, ...); full: the
    records with every action, by name, where a policy's record is a reduced one and they were kept.
    """

    policies: Mapping[str, LoggedChoices | LoggedSlates]
    user: Ints | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    model_only: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, LoggedChoices] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "choices" or "slates"."""
        return "slates" if isinstance(next(iter(self.policies.values())), LoggedSlates) else "choices"

    @property
    def reward(self) -> Floats:
        """Of each row: [n], or [n, positions]."""
        return np.asarray(next(iter(self.policies.values())).reward)


def format_of(path: Path, given: str | None = None) -> str:
    """One of `FORMATS`: the one given, or told by the name's ending or what the directory holds.

    Raises DataError for a path that does not exist or whose kind cannot be told.
    """
    if given is not None and given not in FORMATS:
        raise DataError(f"--format is {given!r}; expected one of {', '.join(FORMATS)}")
    if not path.exists():
        if _ending(path) in _ENDINGS:
            raise DataError(f"{path} does not exist; expected a file of single choices or slates")
        raise DataError(f"{path} is not a directory; expected an exported log (bart log export) or a file of choices")
    if given is not None:
        return given
    if path.is_dir():
        return "table" if not any(path.glob("date=*")) and any(path.glob("*.parquet")) else "pages"
    found = _ENDINGS.get(_ending(path))
    if found is None:
        raise DataError(
            f"{path} does not tell by its name what it holds; expected a name in {', '.join(_ENDINGS)} or --format"
        )
    return found


def _ending(path: Path) -> str:
    """The last ending of a name that does not stand for compression."""
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in (".gz", ".bz2")]
    return endings[-1] if endings else ""


def file_size(path: Path) -> int:
    """Bytes of a file, or of the Parquet files of a directory: for progress."""
    return sum(f.stat().st_size for f in path.glob("*.parquet")) if path.is_dir() else path.stat().st_size


def first_bad(bad: Any) -> int:
    """Index of the first true entry."""
    return int(np.argmax(bad))
