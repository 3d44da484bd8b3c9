"""What memory a worker has for itself with a run open, beside what imports take, and how it grows with items.

    python benchmarks/worker_memory.py RUN [RUN ...]

Each run is opened as a service, warm, in a process of its own; what is counted are its own dirty bytes (Linux), so what
workers share, or could read again, counts for none. Two or more runs give the bytes an item, as the slope between them.
Beside another commit: python -m benchmarks against REV -- python benchmarks/worker_memory.py RUN
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np

_EARLIER = ["api.service", "api.settings"]


def private_bytes() -> int:
    """Of this process."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def opened(run: str) -> tuple[int, int]:
    """Items of a run, and the private bytes that it takes to serve it."""
    for name in ("faiss", "numba", "pyarrow.parquet", "pyarrow.compute", "bart.bundle"):
        importlib.import_module(name)
    # where they stand, here and in an earlier commit
    names = ["api.service.service", "api.run.settings"] if importlib.util.find_spec("api.run") else _EARLIER
    service, settings = (importlib.import_module(name) for name in names)
    before = private_bytes()
    with service.open_service(Path(run), settings.load_settings({})) as served:
        return len(served.run.items), private_bytes() - before


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(*opened(sys.argv[2]))
        return
    found = []
    for run in sys.argv[1:]:
        asked = [sys.executable, __file__, "--one", run]
        items, size = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        found.append((int(items), int(size)))
        print(
            f"{items} items {int(size) / 1e6:10.1f} MB private, {int(size) / int(items):8.0f} B an item with all else"
        )
    if len(found) > 1:
        items, size = np.array(found, dtype=float).T
        print(f"{np.polyfit(items, size, 1)[0]:.0f} B more an item")
        print(f"grows with items to the power of {np.polyfit(np.log(items), np.log(size), 1)[0]:.2f}")


if __name__ == "__main__":
    main()
