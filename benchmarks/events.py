"""Reading listening events from CSV: CPU seconds, and memory at the peak beyond what the imports take, an event.

    python -m benchmarks events [--events 8000000] [--users 100000] [--items 200000]

The file has the columns of a usual export: user_id, item_id, started_at (ISO text), listened_s, skipped and device, in
order of time. It is read in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CPU_S = 60.0  # to reach for 8 million events
BYTES = 250.0


def main() -> int:
    options = _options()
    if options.read is not None:
        return _read(options.read)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plays.csv"
        _write(path, options.events, options.users, options.items)
        print(
            f"{options.events:,} events, {path.stat().st_size / options.events:.0f} bytes an event of CSV", flush=True
        )
        return subprocess.run([sys.executable, __file__, "--read", str(path)], check=False).returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=8_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--read", type=Path, default=None)
    return parser.parse_args()


def _write(path: Path, n: int, users: int, items: int) -> None:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    rng = np.random.default_rng(1)
    at_s = np.sort(rng.integers(1_700_000_000, 1_715_000_000, n))
    names = [pa.array([f"u{k:06d}" for k in range(users)]), pa.array([f"track-{k:07d}" for k in range(items)])]
    device = pa.array(["mobile", "desktop", "web", "speaker"])
    with path.open("wb") as file:
        for first in range(0, n, 500_000):
            m = min(500_000, n - first)
            table = pa.table(
                {
                    "user_id": names[0].take(pa.array(rng.integers(0, users, m))),
                    "item_id": names[1].take(pa.array((items * rng.random(m) ** 3).astype(np.int64))),
                    "started_at": [f"{t}Z" for t in at_s[first : first + m].astype("datetime64[s]").astype(str)],
                    "listened_s": rng.integers(1, 400, m),
                    "skipped": pa.array(rng.random(m) < 0.3),
                    "device": device.take(pa.array(rng.integers(0, 4, m))),
                }
            )
            pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=first == 0, quoting_style="none"))


def _read(path: Path) -> int:
    from recommender.events.importers import load_events

    with tempfile.TemporaryDirectory() as folder:  # what is imported and allocated once
        small = Path(folder) / "plays.csv"
        small.write_text("user_id,item_id,started_at\nu,i,2024-01-01T00:00:00Z\n")
        load_events(small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun = time.process_time()
    loaded = load_events(path)
    cpu_s = time.process_time() - begun
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / loaded.check.rows
    print(f"{loaded.check.kept:,} kept, {loaded.check.sessions:,} sessions")
    print(f"CPU {cpu_s:.1f} s (to reach for 8 million: {CPU_S:.0f})")
    print(f"peak {taken:.0f} bytes an event beyond the imports (to reach: {BYTES:.0f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
