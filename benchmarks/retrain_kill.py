"""Kills a real `bart retrain` at ten random moments; each time the serving bundle and the log must still verify.

    python -m benchmarks retrain_kill          makes a small run first
    python benchmarks/retrain_kill.py --run DIR --only 0 1 2     on copies of that run, and these of the ten alone

Each time on a fresh copy, with new plays to take in and pages to learn from, every other copy in the older layout
(RUN/bundle a directory). Moments are drawn one from each tenth of the time that an uninterrupted run takes. After the
kill: `bart bundle verify`, `bart log verify`; then an uninterrupted `bart retrain` must come to the same outcome as on
the copy that was never killed (a new bundle is active: the gates are set wide), with the same listeners to the last
bit, and leave nothing unfinished behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KILLS = 10
SEED = 1
LENIENT = "[retrain]\nmin_pages = 50\ntolerance = 1.0\nmax_bias = 10.0\n"  # so that a candidate is activated
DEMO = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "1500", "--seed", "3"]


def bart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


COMMAND = [sys.executable, "-c", "import sys; from api.cli import main; main(sys.argv[1:])"]


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
    connection = sqlite3.connect(run / "listeners.sqlite")
    try:
        return connection.execute("SELECT * FROM listeners ORDER BY batch_id, user_id").fetchall()
    finally:
        connection.close()


def outcome(run: Path) -> tuple[str, list[tuple[object, ...]]]:
    """Model that serves, and the listeners."""
    from bart.bundle import open_bundle

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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--only", type=int, nargs="*", default=range(KILLS))
    asked = parser.parse_args()
    rng = np.random.default_rng(SEED)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        if asked.run is not None:
            shutil.copytree(asked.run, base, symlinks=True)
        else:
            made = bart("demo", "--out", base, *DEMO)
            if made.returncode:
                print(made.stderr)
                return 1
        plays = new_plays(base, Path(folder) / "new.parquet", rng)
        (Path(folder) / "bart.toml").write_text(LENIENT)
        arguments = ("--events", Path(folder) / "new.parquet", "--config", Path(folder) / "bart.toml")
        whole = Path(folder) / "whole"
        shutil.copytree(base, whole, symlinks=True)
        begun = time.monotonic()
        done = bart("retrain", whole, *arguments)
        took = time.monotonic() - begun
        expected = outcome(whole)
        print(
            f"uninterrupted: {took:.1f} s, exit {done.returncode}, {plays:,} new plays; {done.stdout.splitlines()[-1]}"
        )
        if done.returncode:
            print(done.stderr)
            return 1
        print(f"{'killed after':>12}  layout  bundle  log   serving   then  same outcome  left")
        moments = (np.arange(KILLS) + rng.random(KILLS)) / KILLS
        for kill in asked.only:
            run = Path(folder) / f"run-{kill}"
            wait = took * moments[kill]
            while True:
                shutil.copytree(base, run, symlinks=True)
                if kill % 2:
                    older_layout(run)
                serving = outcome(run)[0]
                if killed([*COMMAND, "retrain", str(run), *map(str, arguments)], wait):
                    break
                shutil.rmtree(run)  # it had ended before: the machine was less busy
                wait *= 0.9
            bundle, log = bart("bundle", "verify", run / "bundle"), bart("log", "verify", run / "log.sqlite")
            now = "as before" if outcome(run)[0] == serving else "new"
            again = bart("retrain", run, *arguments)
            same, left = outcome(run) == expected, unfinished(run)
            good = bundle.returncode == log.returncode == again.returncode == 0 and same and not left
            failures += not good
            print(
                f"{wait:>10.2f} s  {'older' if kill % 2 else 'present':<8}{_word(bundle):<8}{_word(log):<6}{now:<10}"
                f"{_word(again):<6}{'yes' if same else 'NO':<14}{', '.join(left) or 'nothing'}",
                flush=True,
            )
            shutil.rmtree(run)
    print(f"{len(asked.only) - failures} of {len(asked.only)} kills survived (seed {SEED})")
    return 1 if failures else 0


def _word(done: subprocess.CompletedProcess[str]) -> str:
    return "ok" if done.returncode == 0 else f"EXIT {done.returncode}: {done.stderr.strip()}"


if __name__ == "__main__":
    sys.exit(main())
