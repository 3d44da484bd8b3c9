"""Jobs on the log of a run that serves, killed at random moments: nothing acknowledged is lost, nobody is accused.

    python -m benchmarks job_kills [--run RUN] [--kills 20]     RUN: of bart demo; a small one is made without

Beside two workers under load, `bart log export`, `prune`, `erase`, `migrate` and `bart items publish` are started and
killed by SIGKILL within seconds, with a proof key. After each kill: the log and its export verify with the
key. At the end: every acknowledged page and report of a user who was not erased is in the log once, no user who was
erased is, no record names two batches, and the jobs run through. Exits with 1 where one of that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bart.bundle import open_bundle
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.proof.check import check_log
from bart.log.proof.key import read_key
from benchmarks.faults import ask, loaded, serving

COMMAND = [sys.executable, "-m", "api.cli"]


def jobs(run: Path, key: Path, erased: list[str]) -> dict[str, list[str]]:
    """The jobs that are killed, by name; erased: whom the next erasure is of."""
    log, export, proof = str(run / "log.sqlite"), str(run / "log"), ["--proof-key", str(key)]
    return {
        "export": ["log", "export", log, "--out", export, "--bundle", str(run / "bundle"), *proof],
        "erase": ["log", "erase", log, "--user", erased[0], "--export", export, *proof],
        "prune": ["log", "prune", log, "--older-than", "1d", *proof],
        "migrate": ["log", "migrate", export, *proof],
        "publish": ["items", "publish", "--run", str(run)],
    }


def job_kills(run: Path, users: list[str], times: int = 20) -> dict[str, Any]:
    """One scenario of `faults`: what was killed, and what was lost or accused."""
    rng = random.Random(1)
    key = run.parent / f"{run.name}.key"
    key.write_text("a proof key of more than thirty-two bytes")
    os.environ["BART_LOG__PROOF_KEY"] = str(key)  # of the server
    asking, waiting = users[::2], users[1::2]
    killed: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    gone: list[str] = []
    accused: list[str] = []
    try:
        with serving(run, 2) as (_, port), loaded(port, asking, clients=3, pause_s=0.05) as load:
            while sum(killed.values()) < times:
                one = rng.choice(asking) if rng.random() < 0.3 else waiting.pop()
                name = rng.choice(["export", "erase", "prune", "migrate", "publish"])
                command = jobs(run, key, [one])[name]
                if name == "publish":
                    item = {"title": "New", "genres": ["soul"]}
                    ask(port, "PUT", f"/v1/items/new-{len(killed)}-{rng.random()}", item, run=run)
                if name == "erase":
                    gone.append(one)
                process = subprocess.Popen([*COMMAND, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(1.0 + 2.5 * rng.random())  # half of it is Python's start
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    killed[name] += 1
                else:
                    ended[name] += 1
                process.wait()
                accused += [f"after {name}: {text}" for text in _accused(run, read_key(key))]
        after = {name: _through(command) for name, command in jobs(run, key, [gone[0] if gone else asking[0]]).items()}
        for user in gone:  # an erasure that was killed is asked for again
            _through(jobs(run, key, [user])["erase"])
    finally:
        del os.environ["BART_LOG__PROOF_KEY"]
    return {
        "killed": dict(killed),
        "ended_before": dict(ended),
        **_found(run, load, gone, accused, after, read_key(key)),
    }


def _accused(run: Path, key: bytes) -> list[str]:
    """What the chain says of the log, and everything of its export, which is short; all of the log at the end."""
    with DecisionLog(run / "log.sqlite", create=False) as log:
        flaws = list(check_log(log.reading, key).flaws)
    found = verify(run / "log", proof_key=key)
    flaws += [] if found.proof is None else found.proof.flaws
    return [*map(str, flaws[:3]), *map(str, found.problems[:3])]


def _through(command: list[str]) -> int:
    return subprocess.run([*COMMAND, *command], capture_output=True, check=False).returncode


def _found(
    run: Path, load: Any, gone: list[str], accused: list[str], after: dict[str, int], key: bytes
) -> dict[str, Any]:
    """What is lost, doubled, mixed or left, and whether all of that is nothing."""
    with DecisionLog(run / "log.sqlite", create=False) as log, log.reading() as connection:
        rows = connection.execute("SELECT request_id, user_id FROM decision").fetchall()
        erased = {name for (name,) in connection.execute("SELECT request_id FROM tombstone")}
        batches = {decision.batch_id for decision in log.decisions()}
    there = {request_id for request_id, _ in rows}
    told = set(load.pages)
    # Pages that were on their way when their user was erased are refused: their client got an error and no page.
    lost_pages = told - there - erased
    events = {one for one in load.events if one[0] in there}
    with sqlite3.connect(run / "log.sqlite") as connection:
        query = "SELECT request_id, event_id FROM event JOIN decision USING (seq)"
        kept = connection.execute(query).fetchall()
    mixed = [r for r in told & there if load.pages[r] not in batches]
    whole = verify(run / "log.sqlite", proof_key=key).ok and verify(run / "log", proof_key=key).ok
    open_bundle(run / "bundle")
    found = {
        "acknowledged_pages": len(told),
        "acknowledged_events": len(load.events),
        "lost_pages": len(lost_pages),
        "lost_events": len(events - set(kept)),
        "double": len(rows) - len(there) + len(kept) - len(set(kept)),
        "mixed_batches": len(mixed),
        "erased_users": len(set(gone)),
        "accused": accused,
        "jobs_after": after,
        "verifies": whole,
    }
    bad = found["lost_pages"] or found["lost_events"] or found["double"] or mixed or accused or any(after.values())
    return {**found, "passed": whole and not bad}


def main() -> int:
    """Exit code 1 where something is lost or accused."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--run", type=Path)
    asked.add_argument("--kills", type=int, default=20)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="bart-jobs-") as folder:
        source = options.run
        if source is None:
            source = Path(folder) / "made"
            size = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "300", "--seed", "3"]
            subprocess.run([*COMMAND, "demo", "--out", str(source), *size], check=True, stdout=subprocess.DEVNULL)
        run = Path(shutil.copytree(source, Path(folder) / "run", symlinks=True))
        with sqlite3.connect(run / "listeners.sqlite") as connection:
            users = [u for (u,) in connection.execute("SELECT DISTINCT user_id FROM listeners LIMIT 200")]
        found = job_kills(run, users, options.kills)
        print(json.dumps({"scenario": "job_kills", **found}, default=str), flush=True)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
