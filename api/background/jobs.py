"""Work that is too long for a request: one process of its own, at most one of a kind for all that serve a run.

    RUN/jobs/KIND/lock           held by the process that works; who holds it works
    RUN/jobs/KIND/events.jsonl   what it told, the first line what it was asked
    RUN/jobs/KIND/scratch/       its temporary files, removed when it ends
    RUN/jobs/KIND/result/        what it made, kept until the next one

The state stands in files, so that any of the processes that serve a run can tell of it and cancel it. The process ends
by itself when the one that started it is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FINAL = ("done", "failed", "cancelled")  # kinds of a last event
LOOKS = 10
ENDS_S = 10.0  # how long a cancelled process may take; it looks ten times a second


class Job:
    """One kind of work for the run at `root`."""

    def __init__(self, root: Path, kind: str) -> None:
        self.kind = kind
        self.directory = Path(root) / "jobs" / kind
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def result(self) -> Path:
        """Where the result of the last one stands."""
        return self.directory / "result"

    @property
    def running(self) -> bool:
        """Whether one works now."""
        if not self._lock.exists():
            return False
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def start(self, asked: Mapping[str, Any]) -> bool:
        """Begins the work; False where one works already."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._holding() as lock:
            if lock is None:
                return False
            self._clear()
            (self.directory / "scratch").mkdir()
            self._append({"kind": "asked", **asked})
            environment = {**os.environ, "TMPDIR": str((self.directory / "scratch").resolve()), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "api.background.worker", self.kind, str(self.directory.resolve())]
            with (self.directory / "stderr").open("wb") as errors:
                process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    env=environment,
                    pass_fds=(lock.fileno(),),  # the lock lives on in the process, and ends with it
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            self._process = process
        threading.Thread(target=self._wait, args=(process,), name=f"bart-{self.kind}", daemon=True).start()
        return True

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """What was told, from the event number `since` on."""
        try:
            lines = (self.directory / "events.jsonl").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[since:] if line.endswith("\n")]

    def state(self) -> dict[str, Any]:
        """All that is known: what was asked, whether it works, the events, and how it ended."""
        running = self.running  # before the events: what ends in between has told how
        events = self.events()
        ended = next((event for event in events if event["kind"] in FINAL), None)
        if events and not running and ended is None:
            ended = {"kind": "failed", "reason": f"the process ended; {self._last_error()}"}
        return {"running": running and ended is None, "events": events, "ended": ended}

    def cancel(self) -> bool:
        """Ends the work and removes what it wrote; whether one worked."""
        if not self.running:
            return False
        (self.directory / "cancel").touch()
        until = time.monotonic() + ENDS_S
        while self.running and time.monotonic() < until:
            time.sleep(0.02)
        with self._holding() as lock:
            if lock is not None:
                finished = any(event["kind"] in FINAL for event in self.events())
                shutil.rmtree(self.directory / "scratch", ignore_errors=True)
                (self.directory / "cancel").unlink(missing_ok=True)
                if not finished:
                    shutil.rmtree(self.result, ignore_errors=True)
                    self._append({"kind": "cancelled"})
        return True

    def close(self) -> None:
        """Ends what this process started; work of other processes goes on."""
        if self._process is not None and self._process.poll() is None:
            self.cancel()
            self._process.wait()

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    @contextmanager
    def _holding(self) -> Iterator[Any]:
        """The lock's file, locked; None where somebody works. Who only looks holds it for microseconds."""
        with self._lock.open("a") as file:
            for _ in range(LOOKS):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.005)
                else:
                    yield file
                    return
            yield None

    def _clear(self) -> None:
        for name in ("scratch", "result"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in ("events.jsonl", "cancel", "stderr"):
            (self.directory / name).unlink(missing_ok=True)

    def _append(self, event: Mapping[str, Any]) -> None:
        with (self.directory / "events.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        shutil.rmtree(self.directory / "scratch", ignore_errors=True)

    def _last_error(self) -> str:
        try:
            lines = (self.directory / "stderr").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return f"its last words: {lines[-1]:.200}" if lines else "it said nothing"
