"""A run that is served by `bart serve` in processes of its own, and how it is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

BART = [sys.executable, "-m", "api.cli"]
START_S = 300  # a worker takes seconds of CPU to start, which a busy machine may not give it
SMALL = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "300", "--seed", "3"]


def small_run(place: Path) -> Path:
    """A run of `bart demo` at a small size."""
    subprocess.run([*BART, "demo", "--out", str(place), *SMALL], check=True, stdout=subprocess.DEVNULL)
    return place


def listeners_of(run: Path) -> list[str]:
    """Some of the listeners that a run knows."""
    with closing(sqlite3.connect(run / "listeners.sqlite")) as connection:
        return [u for (u,) in connection.execute("SELECT DISTINCT user_id FROM listeners LIMIT 200")]


def bart(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    command = [*BART, *map(str, arguments)]
    given = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=given)


def ask(
    port: int, method: str, path: str, body: Any = None, timeout: float = 30, run: Path | None = None
) -> tuple[int, Any]:
    """Status and document of a call. run: with the administrator's key of this run."""
    key = {} if run is None else {"X-API-Key": (run / "admin.key").read_text().strip()}
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **key})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextmanager
def serving(
    run: Path, workers: int, more: str = "", environment: Mapping[str, str] | None = None, **serve: Any
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server on a free port, once it answers. serve: settings of [serve]; more: lines of other sections."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    settings = run.parent / f"{run.name}.toml"
    lines = ["[page]", "rows = 6", "columns = 6", "[serve]", *(f"{key} = {json.dumps(v)}" for key, v in serve.items())]
    settings.write_text("\n".join([*lines, more]) + "\n")
    command = [*BART, "serve", "--run", str(run), "--port", str(port), "--config", str(settings)]
    told = tempfile.NamedTemporaryFile(prefix="bart-served-")  # noqa: SIM115 - not on the disk of the run, which may fail
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.DEVNULL, stderr=told, env=given)
    try:
        until = time.monotonic() + START_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > until:
                how = "has not answered in time" if process.poll() is None else f"ended with {process.returncode}"
                raise RuntimeError(f"the server {how}:\n{_content(told.name).decode(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        told.close()


def answers(port: int) -> bool:
    """Whether a server is ready."""
    try:
        return ask(port, "GET", "/ready", timeout=2)[0] == 200
    except (OSError, HTTPException, ValueError):
        return False


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the supervisor's workers: those of its children that listen."""
    found = []
    for child in _content(f"/proc/{process.pid}/task/{process.pid}/children").split():
        if b"spawn_main" in _content(f"/proc/{int(child)}/cmdline"):
            found.append(int(child))
    return found


def running(pid: int) -> bool:
    """Whether a process has not ended."""
    return b"spawn_main" in _content(f"/proc/{pid}/cmdline")


def _content(path: str) -> bytes:
    """Of a file that may be gone by now: a process ends when it likes."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def redis_server() -> tuple[Any, str]:
    """What starts a redis-server of one's own, and why it cannot; "" where it can."""
    file = Path(__file__).resolve().parents[2] / "tests" / "support" / "redis_server.py"
    spec = importlib.util.spec_from_file_location("redis_server", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RedisServer, module.why_absent()
