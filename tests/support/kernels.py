"""Inner loops compiled in a fresh checkout: each by one of the test processes, while the others compile the rest."""

from __future__ import annotations

import fcntl
from importlib import import_module
from pathlib import Path

from places import ROOT

PACKAGES = ("bart", "recommender", "simulator", "api")


def kernel_files() -> list[Path]:
    """The modules with inner loops, by their sources."""
    sources = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return [file for file in sources if "\nfrom bart.compiled import compiled" in file.read_text()]


def compile_together() -> None:
    """Imports those modules, which compiles what is not kept on disk yet. The first who comes to one holds its source;
    whoever finds it held takes another first and reads what was kept later."""
    files = kernel_files()
    for wait in (fcntl.LOCK_NB, 0):
        for file in list(files):
            with file.open() as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | wait)
                except BlockingIOError:
                    continue
                import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
                files.remove(file)
