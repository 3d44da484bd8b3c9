"""Jobs on the log of a run that serves, killed at random moments: nothing acknowledged is lost, nobody is accused.

Beside two workers under load, `bart log export`, `prune`, `erase`, `migrate` and `bart items publish` are started, with
a proof key, and killed by SIGKILL at a moment of the time that they take undisturbed. After each kill the log and its
export verify with the key. At the end: every acknowledged page and report of a user who was not erased is in the log
once, no user who was erased is, and the jobs run through.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.proof.check import check_log
from bart.log.proof.key import read_key
from benchmarks.served.judge import recorded
from benchmarks.served.load import Load, loaded
from benchmarks.served.server import BART, ask, bart, serving

JOBS = ("export", "erase", "prune", "migrate", "publish")


@dataclass(frozen=True)
class Jobs:
    """The jobs on one run. key: file of its proof key."""

    run: Path
    key: Path

    def command(self, name: str, user: str) -> list[str]:
        """A job as it is called; user: whom an erasure is of."""
        log, export, proof = str(self.run / "log.sqlite"), str(self.run / "log"), ["--proof-key", str(self.key)]
        return {
            "export": ["log", "export", log, "--out", export, "--bundle", str(self.run / "bundle"), *proof],
            "erase": ["log", "erase", log, "--user", user, "--export", export, *proof],
            "prune": ["log", "prune", log, "--older-than", f"{self._oldest_d()}d", *proof],
            "migrate": ["log", "migrate", export, *proof],
            "publish": ["items", "publish", "--run", str(self.run)],
        }[name]

    def _oldest_d(self) -> int:
        """Age at which one day of the log, the oldest, is pruned; at least 1."""
        with closing(sqlite3.connect(self.run / "log.sqlite")) as connection:
            (first,) = connection.execute("SELECT min(decided_us) FROM decision").fetchone()
        return max(int((datetime.now(timezone.utc).timestamp() - first / 1e6) // 86400) - 1, 1)

    def accused(self) -> list[str]:
        """What the chain says of the log, and everything of its export, which is short."""
        key = read_key(self.key)
        with DecisionLog(self.run / "log.sqlite", create=False) as log:
            flaws = list(check_log(log.reading, key).flaws)
        found = verify(self.run / "log", proof_key=key)
        flaws += [] if found.proof is None else found.proof.flaws
        return [*map(str, flaws[:3]), *map(str, found.problems[:3])]


def job_kills(run: Path, users: list[str], times: int, durable: bool, seed: int) -> dict[str, Any]:
    """What was killed, and what was lost or accused."""
    rng = random.Random(seed)
    key = run.parent / f"{run.name}.key"
    key.write_text("a proof key of more than thirty-two bytes")
    jobs = Jobs(run, key)
    waiting = users[1::2]
    killed: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    gone: list[str] = []
    accused: list[str] = []
    took_s: dict[str, float] = {}
    sealed = f'[log]\nproof_key = "{key}"\n'
    with (
        serving(run, 2, sealed, durable=durable) as (_, port),
        loaded(port, users[::2], clients=2, pause_s=0.1) as load,
    ):
        while killed.total() < times:
            name = JOBS[killed.total() % len(JOBS)]
            user = rng.choice(users[::2]) if rng.random() < 0.3 or not waiting else waiting.pop()
            if name == "publish":
                item = {"title": "New", "genres": ["soul"]}
                ask(port, "PUT", f"/v1/items/new-{rng.random()}", item, run=run)
            if name == "erase":
                gone.append(user)
            command = [*BART, *jobs.command(name, user)]
            begun = time.monotonic()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:  # the first of each kind is not disturbed: it tells how long one takes
                process.wait(None if name not in took_s else took_s[name] * rng.uniform(0.4, 1.0))
                took_s[name] = time.monotonic() - begun
                ended[name] += 1
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed[name] += 1
                accused += [f"after {name}: {text}" for text in jobs.accused()]
    after = {name: bart(*jobs.command(name, user)).returncode for name in JOBS}
    for user in set(gone):  # an erasure that was killed is asked for again
        bart(*jobs.command("erase", user))
    found = judged_jobs(run, load, set(gone), read_key(key))
    passed = found.pop("passed") and not accused and not any(after.values())
    told = {"killed": dict(killed), "ended_before": dict(ended), "accused": accused, "jobs_after": after}
    return {**told, "durable": durable, **found, "passed": passed}


def judged_jobs(run: Path, load: Load, gone: set[str], key: bytes) -> dict[str, Any]:
    """As `judged`, without the pages of those who were erased: `gone`."""
    with closing(sqlite3.connect(run / "log.sqlite")) as connection:
        erased = {name for (name,) in connection.execute("SELECT request_id FROM tombstone")}
        places = ",".join("?" * len(gone))
        query = f"SELECT count(*) FROM decision WHERE user_id IN ({places})"
        (left,) = connection.execute(query, sorted(gone)).fetchone()
    # Pages that were on their way when their user was erased are refused: their client got an error and no page.
    kept = {name: batch for name, batch in load.pages.items() if name not in erased}
    events = {one for one in load.events if one[0] in kept}
    found = recorded(run, Load(kept, events, load.refused, load.broken))
    whole = verify(run / "log.sqlite", proof_key=key).ok and verify(run / "log", proof_key=key).ok
    bad = [count for name, count in found.items() if name.startswith(("lost_", "double_", "mixed_"))]
    counts = {"erased_users": len(gone), "erased_pages_told": len(load.pages) - len(kept), "left_of_erased": left}
    return {**found, **counts, "verifies_with_key": whole, "passed": whole and not left and not any(bad)}
