"""Which kind a file of logged decisions is.

`table` reads CSV and Parquet, `dsjson` decision logs of Vowpal Wabbit, `arrays` npz. The first two go through the file
batch by batch and keep a few numbers a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError

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
