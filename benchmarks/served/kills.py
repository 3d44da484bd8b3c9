"""SIGKILL of workers and of whole servers, while pages, reports, sessions and picks come."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.served.judge import judged
from benchmarks.served.load import Load, loaded
from benchmarks.served.server import running, serving, workers_of


def worker_kills(run: Path, users: list[str], times: int, durable: bool, seed: int) -> dict[str, Any]:
    """A worker is killed, many times; each time its supervisor starts another."""
    rng = random.Random(seed)
    with serving(run, 2, durable=durable) as (process, port), loaded(port, users, listening=True) as load:
        for _ in range(times):
            time.sleep(0.5 + rng.random())
            kill(rng.choice(workers_of(process)))
            until = time.monotonic() + 60
            while len(workers_of(process)) < 2 and time.monotonic() < until:
                time.sleep(0.1)
        time.sleep(2)
    return {"killed": {"worker": times}, "durable": durable, **judged(run, load)}


def server_kills(run: Path, users: list[str], times: int, durable: bool, seed: int) -> dict[str, Any]:
    """A server is killed and another one started, many times: every other time with all of its workers, else its
    supervisor alone, whose workers must end."""
    load, rng = Load(), random.Random(seed)
    left = 0
    for number in range(times):
        with serving(run, 2, durable=durable) as (process, port), loaded(port, users, load=load, listening=True):
            time.sleep(1.0 + rng.random())
            workers = workers_of(process)
            for pid in [process.pid, *(workers if number % 2 else ())]:
                kill(pid)
            until = time.monotonic() + 60
            while any(map(running, workers)) and time.monotonic() < until:
                time.sleep(0.1)
            left += sum(map(running, workers))
    with serving(run, 2, durable=durable) as (_, port), loaded(port, users, load=load, listening=True):
        time.sleep(2)  # what was under way at the last kill is reported again
    return {"killed": {"server": times}, "durable": durable, "workers_left": left, **judged(run, load, not left)}


def kill(pid: int) -> None:
    """SIGKILL, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
