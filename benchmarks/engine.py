"""Sums over large logs: growth with rows, flat memory, local against Spark, a Spark worker killed.

python -m benchmarks engine; python benchmarks/engine.py [growth | big | spark | pages | blocks | kill | rank]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.ope.engine.choices import ChoiceKernel
from bart.ope.engine.estimates import ChoiceSums
from bart.ope.engine.run import HERE, Engine, run_kernel
from bart.ope.engine.sums import Statistics
from bart.ope.inputs.table import Columns, Target

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROWS_A_FILE = 500_000
CLUSTER = "local-cluster[2,1,1024]"
ESTIMATORS = {"ips": {}, "snips": {}, "clipped_ips": {"cap": 10.0}, "ncis": {"cap": 10.0}}
COLUMNS = Columns("reward", "propensity", {"new": Target("probability", ("target",))})
BY_USER = Columns("reward", "propensity", {"new": Target("probability", ("target",))}, user="user")


def generate(folder: Path, rows: int, seed: int = 1) -> Path:
    """A log in files of 500,000 rows: epsilon-greedy logging among 50 actions, a target that agrees in half of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, rows, ROWS_A_FILE)):
        n = min(ROWS_A_FILE, rows - start)
        rng = np.random.default_rng([seed, number])
        epsilon = rng.uniform(0.1, 0.3, n)
        greedy = rng.random(n) < 1 - epsilon * 49 / 50
        agrees = rng.random(n) < np.where(greedy, 0.5, 0.5 / 49)
        table = pa.table(
            {
                "reward": (rng.random(n) < np.where(agrees, 0.25, 0.15)).astype(np.float64),
                "propensity": np.where(greedy, 1 - epsilon * 49 / 50, epsilon / 50),
                "target": np.where(agrees, 0.95 + 0.05 / 50, 0.05 / 50),
                "user": rng.integers(0, max(rows // 50, 1), n),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return folder


def timed(kernel: ChoiceKernel, log: Path, engine: Engine = HERE) -> tuple[Statistics, float, float]:
    """Statistics, wall-clock seconds, CPU seconds of this process and its children."""
    wall, cpu = time.perf_counter(), _cpu()
    found = run_kernel(kernel, log, engine)
    return found, time.perf_counter() - wall, _cpu() - cpu


def growth(folder: Path, sizes: tuple[int, ...] = (500_000, 1_000_000, 2_000_000, 5_000_000)) -> None:
    """Time and memory by rows, each size in a process of its own."""
    print(
        "rows        CPU s   rows a CPU second   peak MB   (one process: ips, snips, clipped_ips, ncis, two policies)"
    )
    for rows in sizes:
        log = folder / f"log-{rows}"
        if not log.exists():
            generate(log, rows)
        out = subprocess.run(
            [sys.executable, __file__, "one", "--folder", str(log)], capture_output=True, text=True, check=True
        ).stdout.split()
        cpu, peak = float(out[0]), float(out[1])
        print(f"{rows:<11,} {cpu:<7.2f} {rows / cpu:<19,.0f} {peak:.0f}", flush=True)


def one(log: Path) -> None:
    """CPU seconds and peak memory of one evaluation in this process."""
    run_kernel(ChoiceKernel(COLUMNS, ESTIMATORS), sorted(log.glob("*.parquet"))[0])  # imports, first pages
    found, _, cpu = timed(ChoiceKernel(COLUMNS, ESTIMATORS), log)
    for name in ESTIMATORS:
        ChoiceSums(found, "new").estimate(name)
    print(cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def spark(folder: Path, rows: int) -> None:
    """Local against Spark on the same log, sums and estimates."""
    for label, size, kernel in (
        ("sums and cells", rows, ChoiceKernel(COLUMNS, ESTIMATORS)),
        ("with 200 replicates by user", rows // 10, ChoiceKernel(BY_USER, ESTIMATORS, replicates=200)),
    ):
        log = folder / f"log-{size}"
        if not log.exists():
            generate(log, size)
        local, local_s, local_cpu = timed(kernel, log, Engine("local", 2))
        cluster, spark_s, _ = timed(kernel, log, Engine("spark", master=CLUSTER))
        print(
            f"{size:,} rows, {label}: local {local_s:.1f} s ({local_cpu:.1f} s of CPU), Spark {spark_s:.1f} s "
            f"with its start; largest relative difference {difference(local, cluster):.1e}",
            flush=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class KillsItsExecutor(ChoiceKernel):
    """A kernel that kills the Spark executor that runs it, once, in the middle of a file."""

    marker: Path = Path("/nonexistent")

    def __call__(self, batch: Any) -> Any:
        first = int(batch.schema.metadata[b"bart.first_row"])
        if first > 0 and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            daemon = os.getppid()
            executor = int(Path(f"/proc/{daemon}/stat").read_text().rsplit(")", 1)[1].split()[1])
            os.kill(executor, signal.SIGKILL)
        return ChoiceKernel.__call__(self, batch)


def kill(folder: Path, rows: int) -> None:
    """The same log with an executor killed in the middle of a task."""
    log = folder / f"log-{rows}"
    if not log.exists():
        generate(log, rows)
    marker = folder / "killed"
    marker.unlink(missing_ok=True)
    kernel = KillsItsExecutor(COLUMNS, ESTIMATORS, marker=marker)
    killed, seconds, _ = timed(kernel, log, Engine("spark", master=CLUSTER))
    if not marker.exists():
        raise RuntimeError("no executor was killed")
    local = run_kernel(ChoiceKernel(COLUMNS, ESTIMATORS), log)
    print(f"{rows:,} rows, an executor killed in a task: {seconds:.1f} s, difference {difference(local, killed):.1e}")
    marker.unlink()


def difference(one: Statistics, other: Statistics) -> float:
    """The largest relative difference of any statistic; infinite where they hold different ones."""
    worst = 0.0
    if one.names() != other.names():
        return np.inf
    for name in one.names():
        if not np.array_equal(one.keys(name), other.keys(name)):
            return np.inf
        a, b = one.values(name), other.values(name)
        scale = np.maximum(np.abs(a), 1e-300)
        worst = max(worst, float((np.abs(a - b) / scale).max(initial=0.0)))
    return worst


def big(folder: Path, rows: int) -> None:
    """A log that is larger than memory should be: rows a second and peak memory; written in chunks, removed after."""
    log = generate(folder / "big", rows)
    size = sum(file.stat().st_size for file in log.iterdir())
    start = time.perf_counter()
    out = subprocess.run(
        [sys.executable, __file__, "one", "--folder", str(log)], capture_output=True, text=True, check=True
    ).stdout.split()
    seconds, cpu, peak = time.perf_counter() - start, float(out[0]), float(out[1])
    print(
        f"{rows:,} rows ({size / 1e9:.2f} GB in {len(list(log.iterdir()))} files), one process: {seconds:.0f} s, "
        f"{cpu:.0f} s of CPU, {rows / cpu:,.0f} rows a CPU second, peak {peak:.0f} MB",
        flush=True,
    )
    shutil.rmtree(log)


def rank(folder: Path, run: Path, listeners: int) -> None:
    """`rank-all` on a run: pages a CPU second, bytes a page."""
    from datetime import datetime, timezone

    from api.jobs.rank_all import rank_all

    names = [f"listener {i}" for i in range(listeners)]
    try:
        import sqlite3

        with sqlite3.connect(run / "listeners.sqlite") as connection:
            names = [user for (user,) in connection.execute("SELECT user_id FROM listeners LIMIT ?", (listeners,))]
    except sqlite3.Error:
        pass
    listeners = len(names)
    at = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    for label, some in (("first, with imports and the bundle", names[:20]), ("then", names)):
        pq.write_table(pa.table({"user_id": some}), folder / "listeners.parquet")
        cpu = _cpu()
        rank_all(run, folder / "listeners.parquet", folder / "pages", at=at, workers=1)
        cpu = _cpu() - cpu
        print(f"{label}: {len(some):,} pages, {cpu:.2f} s of CPU, {cpu / len(some) * 1e3:.2f} ms a page", flush=True)
    size = sum(file.stat().st_size for file in (folder / "pages").rglob("*.parquet"))
    print(f"{size / listeners / 1e3:.1f} kB a page")


def _cpu() -> float:
    return sum(
        r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _parts(asked: str, folder: Path, rows: int | None, run: Path | None, pages: int) -> Iterator[None]:
    if asked == "one":
        yield one(folder)
    if asked in ("growth", "all"):
        yield growth(folder)
    if asked in ("spark", "all"):
        yield spark(folder, rows or 5_000_000)
    if asked in ("pages", "all"):
        from benchmarks.engine_pages import compare

        yield compare(folder, pages, CLUSTER)
    if asked in ("blocks", "all"):
        from benchmarks.engine_pages import blocks

        yield blocks(folder, min(pages, 20_000))
    if asked in ("kill", "all"):
        yield kill(folder, rows or 1_000_000)
    if asked in ("big", "all"):
        yield big(folder, rows or 20_000_000)
    if asked == "rank" and run is not None:
        yield rank(folder, run, rows or 1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", default="all")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--pages", type=int, default=200_000, help="of pages: how many")
    parser.add_argument("--folder", type=Path, help="where logs are written; by default a temporary directory")
    parser.add_argument("--run", type=Path, help="of rank: a run directory")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        list(_parts(given.part, given.folder, given.rows, given.run, given.pages))
        return
    with tempfile.TemporaryDirectory() as folder:
        list(_parts(given.part, Path(folder), given.rows, given.run, given.pages))


if __name__ == "__main__":
    main()
