"""What is long in the making is made by the first of the test processes that asks for it, and by no other."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this process with what `make` writes into the one that it is given: a copy, links as links."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    first = shared / f"made-{name}"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not first.exists():
            draft = factory.mktemp(name)
            make(draft)
            draft.rename(first)
    return Path(shutil.copytree(first, factory.mktemp(name) / name, symlinks=True))
