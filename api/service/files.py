"""The files that a service holds open, and whether they are still those that their names stand for.

A file that is removed or replaced while it is open goes on taking what is written to it, and nobody finds it again. So
names are looked up again, at most every `EVERY_S`, before anything is written or answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from bart.errors import StoreError

EVERY_S = 0.25


class Files:
    """Files by what they were when they were opened. Threads may share it."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._opened = [(path, _identity(path)) for path in paths]
        self._looked_at = float("-inf")
        self._wrong = ""

    def check(self, at_once: bool = False) -> None:
        """Raises StoreError, with the name of the file, where one is not there any more. at_once: looks whatever."""
        if at_once or time.monotonic() - self._looked_at >= EVERY_S:
            self._looked_at = time.monotonic()
            self._wrong = next((path.name for path, known in self._opened if _identity(path) != known), "")
        if self._wrong:
            raise StoreError(
                f"{self._wrong} was removed or replaced while it was served from; put it back, or restart the service"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
