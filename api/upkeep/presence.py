"""Which processes serve a run, and what each has taken up: so that an answer can say that a change holds.

Each process keeps a file of its own in RUN/.workers under a lock that ends with it, and writes there the number of the
latest change of switches and the bundle that its pages are decided by.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

FOLDER = ".workers"
LOOK_S = 0.03
_BYTES = 256  # a file is written in one piece, so that nobody reads half of one


class Held(NamedTuple):
    """What a process serves. changes: number of the latest change of switches. bundle: the name of its folder."""

    changes: int
    bundle: str


class Presence:
    """This process among those that serve a run, until `close`."""

    def __init__(self, root: Path) -> None:
        self._path = root / FOLDER / f"{os.getpid()}-{time.monotonic_ns()}"
        self._file = self._begin()
        self._told: Held | None = None

    def _begin(self) -> BinaryIO:
        folder = self._path.parent
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():  # of processes that were killed
            if _of_nobody(path):
                path.unlink(missing_ok=True)
        file = self._path.open("wb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def tell(self, held: Held) -> None:
        """Writes what this process serves, where that is another thing than before, or where its file was removed."""
        if not self._path.exists():
            self._file.close()
            self._file, self._told = self._begin(), None
        if held != self._told:
            os.pwrite(self._file.fileno(), json.dumps(held).encode().ljust(_BYTES), 0)
            self._told = held

    def close(self) -> None:
        """Serves no more."""
        with suppress(OSError):  # on a disk that is read-only by now it stays, and is nobody's
            self._path.unlink(missing_ok=True)
        self._file.close()


def serving(root: Path) -> list[Held]:
    """What each process that serves the run holds; (0, "") for one that has not told yet."""
    folder = root / FOLDER
    paths = folder.iterdir() if folder.is_dir() else ()
    return [_read(path) for path in paths if not _of_nobody(path)]


async def taken_up(root: Path, holds: Callable[[Held], bool], within_s: float) -> tuple[int, int]:
    """How many processes serve, and how many of them hold a change; returns when all do, or after `within_s`.

    Who asks serves: where nobody is to be seen, the files were removed, and are soon written again.
    """
    until = time.monotonic() + within_s
    while True:
        found = serving(root)
        done = sum(map(holds, found))
        if (found and done == len(found)) or time.monotonic() >= until:
            return len(found), done
        await asyncio.sleep(LOOK_S)


def _of_nobody(path: Path) -> bool:
    """Whether no process holds the file; one that is gone meanwhile is nobody's."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _read(path: Path) -> Held:
    try:
        changes, bundle = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return Held(0, "")
    return Held(int(changes), str(bundle))
