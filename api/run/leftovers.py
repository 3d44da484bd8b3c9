"""What killed processes leave in a run: drafts and links under names that begin with a dot and end in their number."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

_DAY_S = 86_400


def remove_leftovers(root: Path, directory: Path) -> None:
    """Removes them from the run `root` and its `directory` of bundles; what a living process writes stays."""
    found = [p for p in directory.glob(".*") if p.is_dir()] + list(directory.glob(".*.new-*"))
    for path in (*found, *root.glob(".bundle.*"), *root.glob(".events.parquet.new-*")):
        if _in_use(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_use(path: Path) -> bool:
    """Whether another process works here and wrote within a day (numbers come again)."""
    gone = path.name.startswith(".gone-")
    return not gone and of_living(path) and time.time() - os.lstat(path).st_mtime < _DAY_S


def of_living(path: Path) -> bool:
    """Whether another process than this lives, of the number that ends the name."""
    number = path.name.rpartition("-")[2]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except PermissionError:  # it lives, and is another user's
        pass
    except (ProcessLookupError, OverflowError):
        return False
    return int(number) != os.getpid()
