"""Peak memory and CPU time of `bart evaluate` by the length of the log.

    python benchmarks/evaluate_memory.py --run RUN [--pages 6000 20000 100000]     # the pages of RUN/log, repeated
    python benchmarks/evaluate_memory.py [--rows 1000000 5000000]                  # synthetic choices, a Parquet file

Each size runs in a process of its own; its largest resident set is what is printed. Repeated pages are hard links to
the same files, so that listeners and candidates are those of the run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np

ACTIONS = 10
_RUN = """
import resource, sys, time
from api.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code, done.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(f"{peak:.0f} MB, {time.process_time():.1f} s of CPU", file=sys.stderr)
"""


def measured(arguments: list[str]) -> str:
    """Memory and CPU time of one command, in words."""
    done = subprocess.run([sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr.strip().splitlines()[-1]


def repeat(log: Path, out: Path, pages: int) -> int:
    """A log of at least so many pages from the files of another, each on a day of its own; how many it has."""
    import pyarrow.parquet as pq

    files = sorted(log.glob("date=*/*.parquet"))
    counts = [pq.ParquetFile(file).metadata.num_rows for file in files]
    total, day = 0, date(2001, 1, 1)
    while total < pages:
        for file, count in zip(files, counts, strict=True):
            if total >= pages:
                break
            folder = out / f"date={day.isoformat()}"
            folder.mkdir(parents=True)
            os.link(file, folder / file.name)
            total += count
            day += timedelta(days=1)
    return total


def choices(path: Path, rows: int) -> None:
    """A Parquet file of single choices with the pmf of a policy and a model's predictions, written in parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    writer = None
    for first in range(0, rows, 250_000):
        n = min(250_000, rows - first)
        logging, target = (rng.dirichlet(np.full(ACTIONS, 2.0), n) for _ in range(2))
        action = np.minimum((np.cumsum(logging, axis=1) < rng.random((n, 1))).sum(axis=1), ACTIONS - 1)
        columns = {
            "reward": (rng.random(n) < 0.1).astype(np.float64),
            "action": action,
            "propensity": logging[np.arange(n), action],
            **{f"p{a}": target[:, a] for a in range(ACTIONS)},
            **{f"q{a}": rng.random(n) for a in range(ACTIONS)},
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run with an exported log; without it, single choices")
    parser.add_argument("--pages", type=int, nargs="+", default=[6_000, 20_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="evaluate_memory"))
    try:
        if options.run is not None:
            (folder / "bundle").symlink_to((options.run / "bundle").resolve())
            for pages in options.pages:
                log = folder / "log"
                found = repeat(options.run / "log", log, pages)
                print(f"{found:,} pages, two policies: {measured(['evaluate', str(log)])}", flush=True)
                shutil.rmtree(log)
            return
        columns = [",".join(f"{kind}{a}" for a in range(ACTIONS)) for kind in "pq"]
        for rows in options.rows:
            file = folder / "choices.parquet"
            choices(file, rows)
            arguments = ["evaluate", str(file), "--target-pmf", columns[0], "--q-hat", columns[1]]
            print(f"{rows:,} choices x {ACTIONS} actions: {measured(arguments)}", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
