"""Disks that fill up or become read-only under load, and files that others lock or take away."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bart.bundle import open_bundle
from bart.item_store import load_items
from benchmarks.served.judge import judged
from benchmarks.served.load import Load, loaded
from benchmarks.served.server import ask, serving

LIMIT_S = 5.0  # within which what is wrong must be noticed, and what is well again
FILES = ("log.sqlite", "listeners.sqlite", "sessions.sqlite", "control.sqlite")


def full_disk(run: Path, users: list[str]) -> dict[str, Any]:
    """A file system that fills up under load: 503, nothing half-written, and it recovers by itself."""
    size = sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) + (192 << 20)  # what fills it is the file below
    with mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]) as place:
        if place is None:
            return {"skipped": "a tmpfs cannot be mounted here", "passed": True}
        copy = Path(shutil.copytree(run, place / "run", symlinks=True))
        with serving(copy, 2) as (_, port), loaded(port, users) as load:
            time.sleep(2)
            filler = place / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 65536)
                except OSError:
                    pass
            time.sleep(4)
            told = refused(port, users[0])
            before = pages_of(load)
            filler.unlink()
            time.sleep(4)
            status = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
        well = told.pop("right") and status == 200 and len(load.pages) > before
        return {"full": told, "recovered": status, **judged(copy, load, well)}


def read_only_disk(run: Path, users: list[str]) -> dict[str, Any]:
    """A disk with an error, which its system makes read-only under load: 503; what was acknowledged as durable is there
    when it is mounted again."""
    size = sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) + (256 << 20)
    with tempfile.TemporaryDirectory(prefix="bart-disk-") as folder:
        image = Path(folder) / "disk"
        with image.open("wb") as file:
            file.truncate(size)
        made = subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, check=False).returncode == 0
        with mounted(["-o", "loop", str(image)] if made else None) as place:
            if place is None:
                return {"skipped": "a file with a file system cannot be mounted here", "passed": True}
            copy = Path(shutil.copytree(run, place / "run", symlinks=True))
            os.sync()
            with serving(copy, 2, durable=True) as (_, port), loaded(port, users, listening=True) as load:
                time.sleep(3)
                subprocess.run(["mount", "-o", "remount,abort", str(place)], check=True, capture_output=True)
                time.sleep(2)
                told = refused(port, users[0])
        with mounted(["-o", "loop", str(image)]) as place:
            assert place is not None
            well = told.pop("right") and len(load.pages) > 0
            return {"read_only": told, **judged(place / "run", load, well)}


@contextmanager
def mounted(what: list[str] | None) -> Iterator[Path | None]:
    """A folder in which a file system is mounted; None where that is not allowed."""
    place = Path(tempfile.mkdtemp(prefix="bart-mounted-"))
    allowed = (
        what is not None
        and not subprocess.run(["mount", *what, str(place)], capture_output=True, check=False).returncode
    )
    try:
        yield place if allowed else None
    finally:
        if allowed:
            subprocess.run(["umount", str(place)], check=False)
        place.rmdir()


def pages_of(load: Load) -> int:
    """How many pages were acknowledged up to now."""
    with load.lock:
        return len(load.pages)


def refused(port: int, user: str) -> dict[str, Any]:
    """What is told where nothing can be recorded; right: as it should be."""
    status, problem = ask(port, "POST", "/v1/home", {"user_id": user})
    ready, health = ask(port, "GET", "/ready")[0], ask(port, "GET", "/health")[0]
    right = status == 503 and ready == 503 and health == 200
    return {"status": status, "said": problem.get("detail"), "ready": ready, "health": health, "right": right}


def locked_stores(run: Path, users: list[str]) -> dict[str, Any]:
    """Another process holds the write lock of one store after another for longer than a client waits: what asks for it
    gets 503, and all is well again by itself."""
    item = str(load_items(open_bundle(run / "bundle").folder("items")).item_id[0])
    switch, play = {"switch": "explore", "state": "on"}, [{"item_id": item}]
    writes: dict[str, tuple[str, Any]] = {
        "log.sqlite": ("/v1/home", {"user_id": users[0]}),
        "listeners.sqlite": ("/v1/home", {"user_id": "new", "onboarding": {"items": [item]}}),
        "sessions.sqlite": ("/v1/sessions", {"user_id": users[0], "session_id": "s", "final": True, "plays": play}),
        "control.sqlite": ("/v1/control", switch),
    }
    told: dict[str, int] = {}
    well = True
    with serving(run, 2) as (_, port), loaded(port, users, listening=True) as load:
        for name, (path, body) in writes.items():
            time.sleep(1)
            holder = sqlite3.connect(run / name, isolation_level=None, timeout=30)
            holder.execute("BEGIN IMMEDIATE")
            told[name] = ask(port, "POST", path, body, run=run)[0]
            holder.execute("ROLLBACK")
            holder.close()
            time.sleep(1)
            well &= ask(port, "POST", "/v1/home", {"user_id": users[0]})[0] == 200
        time.sleep(1)
    return {"locked": told, **judged(run, load, well and set(told.values()) == {503})}


def removed_files(run: Path, users: list[str]) -> dict[str, Any]:
    """The files of a run taken away one by one while it serves: what is sent a second later is refused, by name; then
    all is well again."""
    taken: dict[str, float] = {}  # when the last request was sent that was answered as if the file were there
    unnamed: list[str] = []
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        for name in FILES:
            time.sleep(1)
            os.rename(run / name, run / "away")
            began, taken[name] = time.monotonic(), 0.0
            for method, path, body in (("GET", "/ready", None), ("POST", "/v1/home", {"user_id": users[0]})):
                while (sent := time.monotonic() - began) < LIMIT_S:
                    status, problem = ask(port, method, path, body, timeout=5)
                    if status == 503:
                        break
                    taken[name] = max(taken[name], round(sent, 3))
            if status != 503 or name not in problem["detail"]:
                unnamed.append(name)
            os.replace(run / "away", run / name)
            until = time.monotonic() + LIMIT_S
            while ask(port, "GET", "/ready", timeout=5)[0] != 200 and time.monotonic() < until:
                time.sleep(0.05)
        time.sleep(1)
        recovered = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
    well = not unnamed and recovered == 200 and max(taken.values()) < 1.0
    return {"last_taken_s": taken, "unnamed": unnamed, "recovered": recovered, **judged(run, load, well)}
