"""Whether a service serves a run: it holds a lock file of the run for as long as it lives."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bart.directories import exclusive

SERVED = ".served.lock"


@contextmanager
def served(root: Path) -> Iterator[None]:
    """The run is served while the block runs; services that serve it at the same time do not mind each other."""
    with (Path(root) / SERVED).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def unserved(root: Path) -> Iterator[None]:
    """No service begins to serve the run while the block runs. Raises BundleError where one serves it already."""
    refuse = f"a service serves {root}; expected it to be stopped first, or another --out"
    with exclusive(Path(root) / SERVED, refuse):
        yield
