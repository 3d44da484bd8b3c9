"""Malformed requests over real sockets: every answer is a page or a problem of the 400s, never a failure.

Valid requests of every route are altered: one odd value anywhere, bytes cut or changed, other methods, content types
and paths. Where schemathesis is installed (in an environment of its own) it also tests the service against its OpenAPI
document:  SCHEMATHESIS=/path/to/bin/schemathesis python -m benchmarks malformed

    python -m benchmarks malformed [--run RUN] [--requests 100000]

Half of them come without the key or with a wrong one. The memory of the process is printed after each tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bart.log.care.verify import verify
from benchmarks.faults import serving

REQUESTS = 10_000
ODD: tuple[Any, ...] = (
    None, True, -1, 2**70, 1e308, float("nan"), float("inf"), "", "\x00", "\ud800", "x" * 5000, "../../etc/passwd",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "'; DROP TABLE decision; --", [], {}, [[]], [1] * 600,
    {"a": {"b": 1}},
)  # fmt: skip
VALID: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/home", {"user_id": "u000001", "device": "mobile", "tz": "Europe/Stockholm", "rows": 3, "columns": 4,
                          "country": "SE", "idempotency_key": "k", "onboarding": {"genres": ["folk"]}}),
    ("POST", "/v1/rank", {"user_id": "u", "shelves": [{"title": "A", "items": ["t1", "t2"], "scores": [0.5, 0.2]}]}),
    ("POST", "/v1/feedback", {"request_id": "r", "events": [{"event_id": "1", "row": 0, "column": 0, "seen": True,
                                                           "listened_s": 3.5, "occurred_at": "2026-02-03T04:05:06Z"}]}),
    ("POST", "/v1/sessions", {"user_id": "u", "session_id": "s", "final": False, "plays": [{"item_id": "t1"}]}),
    ("POST", "/v1/models", {"activate": "20260101T000000Z-01234567", "why": "no"}),
    ("POST", "/v1/control", {"switch": "boost", "state": "on", "why": ""}),
    ("PUT", "/v1/items/new", {"title": "T", "type": "song", "artists": ["a"], "released_at": "2026-01-01"}),
    ("DELETE", "/v1/items/none", None),
    ("GET", "/v1/listeners/none", None),
    ("GET", "/v1/decisions/none", None),
    ("GET", "/metrics", None),
)  # fmt: skip


def altered(value: Any, rng: random.Random) -> Any:
    """The value with something odd at one place, a key more or a key less."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        copy = dict(value)
        key = rng.choice(sorted(copy))
        chance = rng.random()
        if chance < 0.1:
            del copy[key]
        elif chance < 0.2:
            copy[rng.choice(["extra", "", "__class__", "user_id "])] = rng.choice(ODD)
        else:
            copy[key] = altered(copy[key], rng)
        return copy
    if isinstance(value, list) and value and rng.random() < 0.7:
        copy_list = list(value)
        place = rng.randrange(len(copy_list))
        copy_list[place] = altered(copy_list[place], rng)
        return copy_list
    return rng.choice(ODD)


def malformed(rng: random.Random, key: str) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Method, path, body and headers of one request."""
    method, path, body = rng.choice(VALID)
    content = None if body is None else json.dumps(altered(body, rng)).encode()
    headers = {"Content-Type": "application/json"}
    if rng.random() < 0.55:
        headers["X-API-Key"] = key if rng.random() < 0.9 else "guess"
    chance = rng.random()
    if chance < 0.15 and content:
        raw = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        content = bytes(raw[: rng.randint(0, len(raw))])
    elif chance < 0.2:
        headers["Content-Type"] = rng.choice(["text/plain", "", "application/xml", "application/json; charset=utf-16"])
    elif chance < 0.25:
        method = rng.choice(["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
    elif chance < 0.35:
        odd = "".join(rng.choice("aZ0/.%-_~é☃\x01 ?#&") for _ in range(rng.randint(1, 40)))
        path = path.rsplit("/", 1)[0] + "/" + quote(odd, safe="/")
    return method, path, content, headers


def send(port: int, requests: int, key: str, pid: int) -> tuple[Counter[int], list[str], list[int]]:
    """Answers by status, what failed, and the resident memory of a process after each tenth, MB."""
    memory: list[int] = []
    rng, statuses, failed = random.Random(7), Counter[int](), []
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(requests):
        if number % max(requests // 10, 1) == 0:
            memory.append(resident_mb(pid))
        method, path, content, headers = malformed(rng, key)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (HTTPException, OSError):  # the server ends a connection whose request it could not read to the end
            connection.close()
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            statuses[0] += 1
            continue
        statuses[answer.status] += 1
        if answer.status >= 500:
            failed.append(f"{method} {path} {content!r:.200}: {answer.status} {text!r:.200}")
    connection.close()
    return statuses, failed, [*memory, resident_mb(pid)]


def resident_mb(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> int:
    """Exit code 1 where a request made the service fail."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bart-malformed-") as folder:
        run = Path(folder) / "run"
        if asked.run is None:
            size = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "300", "--seed", "3"]
            subprocess.run([sys.executable, "-m", "api.cli", "demo", "--out", str(run), *size], check=True)
        else:
            shutil.copytree(asked.run, run, symlinks=True)
        with serving(run, 1) as (process, port):
            key = (run / "admin.key").read_text().strip()
            statuses, failed, memory = send(port, asked.requests, key, process.pid)
            tested = schemathesis(port)
        found = verify(run / "log.sqlite")
    print(
        json.dumps(
            {
                "requests": asked.requests,
                "memory_mb": memory,
                "by_status": dict(sorted(statuses.items())),
                "failures": len(failed),
            }
        )
    )
    print(json.dumps({"log_verifies": found.ok, "records": found.records, "schemathesis": tested}))
    for line in failed[:10]:
        print(line)
    return 1 if failed or not found.ok or tested == "failed" else 0


def schemathesis(port: int) -> str:
    """What it found: passed, failed, or why it was not run."""
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if not program:
        return "skipped: not installed"
    command = [program, "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error"]
    done = subprocess.run(
        [*command, "--max-examples", "200", "--seed", "1"], capture_output=True, text=True, check=False
    )
    print(done.stdout[-1500:])
    return "passed" if done.returncode == 0 else "failed"


if __name__ == "__main__":
    sys.exit(main())
