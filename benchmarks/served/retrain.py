"""Kills a real `bart retrain` at random moments; each time the serving bundle and the log must still verify.

Each time on a fresh copy, with new plays to take in and pages to learn from, every other copy in the older layout
(RUN/bundle a directory). Moments are drawn one from each tenth of the time that an uninterrupted run takes. After the
kill: `bart bundle verify`, `bart log verify`; then an uninterrupted `bart retrain` must come to the same outcome as on
the copy that was never killed (a new bundle is active: the gates are set wide), with the same listeners to the last
bit, and leave nothing unfinished behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.bundle import open_bundle
from benchmarks.served.server import BART, bart

MOMENTS = 10
# So that a candidate is activated, on as few pages as the small run has.
LENIENT = "[retrain]\nmin_pages = 50\nholdout = 0.85\ntolerance = 1.0\nmax_bias = 10.0\n"


def retrain_kills(run: Path, users: list[str], moments: range) -> dict[str, Any]:  # noqa: ARG001
    """Kills at some of the ten moments. run: is copied."""
    rng = np.random.default_rng(1)
    folder = run.parent / f"{run.name}-retrained"
    folder.mkdir()
    plays, settings = folder / "new.parquet", folder / "bart.toml"
    new_plays(run, plays, rng)
    settings.write_text(LENIENT)
    options = ("--events", str(plays), "--config", str(settings))
    whole = Path(shutil.copytree(run, folder / "whole", symlinks=True))
    begun = time.monotonic()
    done = bart("retrain", whole, *options)
    took_s = time.monotonic() - begun
    if done.returncode:
        raise RuntimeError(f"an uninterrupted retraining exited with {done.returncode}: {done.stdout}{done.stderr}")
    drawn = took_s * (np.arange(MOMENTS) + rng.random(MOMENTS)) / MOMENTS
    tries = [one_kill(run, folder, options, drawn[moment], moment % 2 == 1, outcome(whole)) for moment in moments]
    failed = [one for one in tries if not one["passed"]]
    shutil.rmtree(folder)
    times = [one["after_s"] for one in tries]
    return {
        "killed": {"retrain": len(tries)},
        "took_s": round(took_s, 1),
        "after_s": times,
        "failed": failed,
        "passed": not failed,
    }


def one_kill(
    run: Path, folder: Path, options: tuple[str, ...], wait_s: float, older: bool, expected: tuple[str, Any]
) -> dict[str, Any]:
    """What was found after one kill. older: the run is of the older layout. expected: what it must come to at last."""
    copy = folder / "killed"
    while True:
        shutil.copytree(run, copy, symlinks=True)
        if older:
            older_layout(copy)
        if killed([*BART, "retrain", str(copy), *options], wait_s):
            break
        shutil.rmtree(copy)  # it had ended before: the machine was less busy
        wait_s *= 0.9
    commands = (
        ("bundle", "verify", copy / "bundle"),
        ("log", "verify", copy / "log.sqlite"),
        ("retrain", copy, *options),
    )
    codes = [bart(*command).returncode for command in commands]
    same, left = outcome(copy) == expected, unfinished(copy)
    shutil.rmtree(copy)
    passed = not any(codes) and same and not left
    return {"after_s": round(wait_s, 2), "exit_codes": codes, "same_outcome": same, "left": left, "passed": passed}


def new_plays(run: Path, file: Path, rng: np.random.Generator) -> int:
    """Writes plays of some days after the last ones: those of a third of the listeners, later by as much."""
    events = pq.read_table(run / "events.parquet")
    at = events["started_at"].to_numpy().astype("datetime64[us]")
    users = np.unique(events["user_id"].to_numpy(zero_copy_only=False).astype(str))
    some = rng.choice(users, len(users) // 3, replace=False)
    late = at > at.max() - np.timedelta64(timedelta(days=2))
    kept = events.filter(pa.array(np.isin(events["user_id"].to_numpy(zero_copy_only=False).astype(str), some) & late))
    moved = pa.array(kept["started_at"].to_numpy().astype("datetime64[us]") + np.timedelta64(2, "D")).cast(
        pa.timestamp("us", "UTC")
    )
    pq.write_table(kept.set_column(kept.schema.get_field_index("started_at"), "started_at", moved), file)
    return len(kept)


def older_layout(run: Path) -> None:
    """RUN/bundle as a directory, as runs were made before bundles had names."""
    target = (run / "bundle").resolve()
    (run / "bundle").unlink()
    target.rename(run / "bundle")
    shutil.rmtree(run / "bundles")


def listeners(run: Path) -> list[tuple[object, ...]]:
    """Every stored listener."""
    with closing(sqlite3.connect(run / "listeners.sqlite")) as connection:
        return connection.execute("SELECT * FROM listeners ORDER BY batch_id, user_id").fetchall()


def outcome(run: Path) -> tuple[str, list[tuple[object, ...]]]:
    """Model that serves, and the listeners."""
    return open_bundle(run / "bundle").model_id, listeners(run)


def unfinished(run: Path) -> list[str]:
    """What a killed process would leave and nobody needs."""
    found = [*run.glob(".bundle*"), *run.glob(".rebuild*"), *run.glob(".retrain.json*"), *run.glob(".events*")]
    found += [p for p in (run / "bundles").glob(".*") if p.name != ".lock"]
    return [str(p.relative_to(run)) for p in (*found, *(run / "log").rglob(".*"))]


def killed(command: list[str], after_s: float) -> bool:
    """Runs a command and kills it; False where it had ended by itself."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        child.wait(timeout=after_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return True
