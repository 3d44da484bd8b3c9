"""What a page of `bart rank-all` costs at some numbers of listeners, and how that grows: CPU once the bundle is open.

    python benchmarks/rank_all.py RUN [--listeners 250 500 1000 2000]

The command runs in this process, so the first call opens the bundle and loads machine code and is not counted. Beside
another commit: python -m benchmarks against REV -- python benchmarks/rank_all.py RUN --listeners 500
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2026, 5, 1, 8, tzinfo=timezone.utc)


def write_listeners(run: Path, n: int, file: Path) -> None:
    """A table of n rows: the run's listeners, again at a later hour where they are too few."""
    users = pq.read_table(run / "events.parquet", columns=["user_id"]).column(0).unique().sort().to_pylist()
    at = [(START + timedelta(hours=i // len(users))).isoformat() for i in range(n)]
    pq.write_table(pa.table({"user_id": [users[i % len(users)] for i in range(n)], "at": at}), file)


def rank(run: Path, listeners: Path, out: Path) -> float:
    """CPU seconds of one call."""
    from api.cli import app

    asked = ["rank-all", str(run), "--listeners", str(listeners), "--out", str(out), "--seed", "1", "--workers", "1"]
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(asked)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--listeners", type=int, nargs="+", default=[250, 500, 1000, 2000])
    chosen = parser.parse_args()
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in [min(chosen.listeners), *chosen.listeners]:
            write_listeners(chosen.run, n, folder / "listeners.parquet")
            seconds.append(rank(chosen.run, folder / "listeners.parquet", folder / "pages"))
            pages = sum(pq.read_metadata(file).num_rows for file in (folder / "pages").rglob("*.parquet"))
            if pages != n:
                raise SystemExit(f"{pages} pages were decided; expected {n}")
    for n, taken in zip(chosen.listeners, seconds[1:], strict=True):
        print(f"page, {n} listeners {1e3 * taken / n:12.3f} ms CPU")
    if len(chosen.listeners) > 1:
        slope = np.polyfit(np.log(chosen.listeners), np.log(seconds[1:]), 1)[0]
        print(f"CPU grows with listeners to the power of {slope:.2f}")


if __name__ == "__main__":
    main()
