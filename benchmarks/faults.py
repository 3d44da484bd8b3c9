"""What a served run survives, over real sockets: kills, clocks, disks, files, Redis, half requests, changes under load.

    python -m benchmarks faults [--kills 100]                       the suite on a run that it makes
    python -m benchmarks faults --rows FILE --minutes 9             begins no part after nine minutes; goes on next time
    python -m benchmarks faults --only NAME ... | --quick           some scenarios, or a few kills and the quick ones

Each part starts `bart serve` on a copy of a run (--run: one of `bart demo`) and asks it from threads; afterwards all
that was acknowledged must be there once, the log must verify, and no record may mix two bundles. Kills are SIGKILL,
shared out over workers, whole servers, jobs on the log and retraining, with and without `durable`, in parts of ten at
most. One line of JSON a part, kept in FILE; parts that passed there are not run again. Exits with 1 where a part fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.served.changes import flips, takedown
from benchmarks.served.clocks import clocks
from benchmarks.served.crowds import half_requests, slow_requests
from benchmarks.served.disks import full_disk, locked_stores, read_only_disk, removed_files
from benchmarks.served.jobs import job_kills
from benchmarks.served.kills import server_kills, worker_kills
from benchmarks.served.redis_emptied import redis_emptied
from benchmarks.served.redis_kills import redis_kills
from benchmarks.served.retrain import MOMENTS, retrain_kills
from benchmarks.served.server import listeners_of, small_run

Scenario = Callable[[Path, list[str]], dict[str, Any]]
KILLS: dict[str, tuple[float, Callable[..., dict[str, Any]], bool]] = {  # share of all, scenario, durable
    "worker_kills": (0.3, worker_kills, False),
    "worker_kills_durable": (0.2, worker_kills, True),
    "server_kills": (0.1, server_kills, False),
    "server_kills_durable": (0.1, server_kills, True),
    "job_kills": (0.1, job_kills, False),
    "job_kills_durable": (0.1, job_kills, True),
}
A_PART = 10  # kills, at most
OTHERS: dict[str, Scenario] = {
    "redis_kills": partial(redis_kills, times=10),
    "redis_emptied": redis_emptied,
    "clocks": clocks,
    "full_disk": full_disk,
    "read_only_disk": read_only_disk,
    "locked_stores": locked_stores,
    "removed_files": removed_files,
    "flips": flips,
    "takedown": takedown,
    "half_requests": half_requests,
    "slow_requests": slow_requests,
}
NAMES = [*KILLS, "retrain_kills", *OTHERS]
QUICK = ("worker_kills", "server_kills", "locked_stores", "removed_files", "half_requests")
QUICK_KILLS = 10


def parts(times: int, names: list[str] | tuple[str, ...]) -> Iterator[tuple[str, Scenario]]:
    """The parts of some scenarios by name. times: kills that all of them share out."""
    for name in names:
        if name in OTHERS:
            yield name, OTHERS[name]
        elif name == "retrain_kills":
            share = min(max(round(0.1 * times), 1), MOMENTS)
            for first in range(0, share, MOMENTS // 2):
                moments = range(first, min(first + MOMENTS // 2, share))
                yield f"{name} {first}", partial(retrain_kills, moments=moments)
        else:
            share, scenario, durable = KILLS[name]
            left = max(round(share * times), 1)
            for number in range(-(-left // A_PART)):
                part = min(A_PART, left - number * A_PART)
                yield f"{name} {number}", partial(scenario, times=part, durable=durable, seed=number)


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Kills by what was killed, and what was acknowledged, lost, double, mixed or accused in all parts together."""
    killed: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for row in rows:
        killed.update(row.get("killed", {}))
        counts.update(
            {
                name: count
                for name, count in row.items()
                if isinstance(count, int) and name.startswith(("acknowledged_", "lost_", "double_", "mixed_"))
            }
        )
    unverified = sum(not row.get("log_verifies", True) or not row.get("verifies_with_key", True) for row in rows)
    accused = sum(len(row.get("accused", ())) for row in rows)
    failed = [row["part"] for row in rows if not row["passed"]]
    skipped = {row["part"]: row["skipped"] for row in rows if "skipped" in row}
    whole = {"logs_that_do_not_verify": unverified, "accused": accused, "skipped": skipped, "failed": failed}
    return {"parts": len(rows), "killed": killed, "kills": killed.total(), **counts, **whole}


def main() -> int:
    """Exit code 1 where a part fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=None)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked = parser.parse_args()
    begun = time.monotonic()
    names = asked.only or (QUICK if asked.quick else NAMES)
    kept = (
        [json.loads(line) for line in asked.rows.read_text().splitlines()] if asked.rows and asked.rows.exists() else []
    )
    rows = {row["part"]: row for row in kept if row["passed"]}
    with tempfile.TemporaryDirectory(prefix="bart-faults-") as folder:
        source = asked.run
        for part, scenario in parts(QUICK_KILLS if asked.quick else asked.kills, names):
            if part in rows:
                continue
            if time.monotonic() - begun > 60 * asked.minutes:
                print(f"to be continued with {part}", flush=True)
                break
            source = source or small_run(Path(folder) / "made")
            run = Path(shutil.copytree(source, Path(folder) / part.replace(" ", "-"), symlinks=True))
            started = time.monotonic()
            try:
                found = scenario(run, listeners_of(run))
            except (RuntimeError, OSError, HTTPException) as error:  # the others are still to be looked at
                found = {"passed": False, "error": f"{type(error).__name__}: {error}"}
            rows[part] = {"part": part, "s": round(time.monotonic() - started), **found}
            line = json.dumps(rows[part], default=str)
            print(line, flush=True)
            if asked.rows:
                with asked.rows.open("a") as file:
                    file.write(line + "\n")
            shutil.rmtree(run)
    found = totals(list(rows.values()))
    print(json.dumps(found))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
