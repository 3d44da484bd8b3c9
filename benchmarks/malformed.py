"""Malformed and generated requests over real sockets, each answer held against the service's OpenAPI document.

    python -m benchmarks malformed [--run RUN] [--requests 100000] [--ordinary 100000] [--schemathesis PROGRAM]

Half of the requests are valid ones of every route altered: one odd value anywhere, bytes cut or changed, other methods,
content types and paths. Half are made from the document, administration included. Two fifths come without the key or
with a wrong one. An answer fails that is of the 500s, whose status the document does not declare, whose body is not of
the declared shape, or that tells of success to an administrator's call without the key. 503 with Retry-After is none of
the service's failures where it is told to wait: it is counted apart. Among them come ordinary visits: a page, a report
on it, a session. The memory of the one process is printed after each tenth; it may be `GROWTH_MB` above its plateau,
taken after two tenths. Where schemathesis is installed (in an environment of its own) it tests the service too.
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
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bart.log.care.verify import verify
from benchmarks.served.document import Document
from benchmarks.served.server import ask, listeners_of, serving, small_run

REQUESTS = 10_000
GROWTH_MB = 60
IDLE_S = 5.0
KEPT = 200  # request ids that later requests may ask for
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
# Of the calls that cost seconds (a job of its own, the files of a run rewritten) so many in a hundred are sent.
SELDOM = {"POST /v1/simulation": 1, "POST /v1/operate/verification": 1, "DELETE /v1/listeners/{user_id}": 4}


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


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    content: bytes | None
    headers: dict[str, str]


def malformed(rng: random.Random) -> Sent:
    """A valid request with something wrong."""
    method, path, body = rng.choice(VALID)
    content = None if body is None else json.dumps(altered(body, rng)).encode()
    headers = {"Content-Type": "application/json"}
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
    return Sent(method, path, content, headers)


def generated(rng: random.Random, document: Document) -> Sent:
    """A request that the document allows, now and then with something odd in its body."""
    while True:
        operation = rng.choice(document.operations)
        if rng.random() < SELDOM.get(f"{operation.method} {operation.path}", 100) / 100:
            break
    path, body = document.request(operation, rng)
    if body is not None and rng.random() < 0.2:
        body = altered(body, rng)
    content = None if body is None else json.dumps(body).encode()
    typed = body is not None or (operation.method == "POST" and rng.random() < 0.9)
    return Sent(operation.method, path, content, {"Content-Type": "application/json"} if typed else {})


@dataclass
class Found:
    """What was answered. by_status: 0 where the server ended the connection. waits: 503 that say when to come again.
    failures: of the service. memory_mb: after each tenth."""

    by_status: Counter[int] = field(default_factory=Counter)
    by_call: dict[str, Counter[int]] = field(default_factory=dict)
    ordinary: int = 0
    waits: int = 0
    failures: list[str] = field(default_factory=list)
    memory_mb: list[int] = field(default_factory=list)

    def judge(self, sent: Sent, keyed: bool, document: Document, answer: tuple[int, str, str, bytes]) -> None:
        """Counts an answer, and what is wrong with it."""
        status, media_type, retry, body = answer
        self.by_status[status] += 1
        operation = document.operation(sent.method, sent.path)
        if operation is not None:
            self.by_call.setdefault(f"{operation.method} {operation.path}", Counter())[status] += 1
        wrong = "" if sent.method == "HEAD" else document.against(operation, status, media_type, body)
        self.waits += status == 503 and bool(retry)
        if status >= 500 and not (status == 503 and retry):
            wrong = wrong or "failed"
        if operation is not None and operation.admin and not keyed and status < 400:
            wrong = "administration without the key"
        if wrong:
            self.failures.append(f"{sent.method} {sent.path} {sent.content!r:.300}: {status} {body!r:.200}: {wrong}")


def send(port: int, requests: int, ordinary: int, run: Path, pid: int) -> Found:
    """Sends them one after another, ordinary ones among them."""
    key = (run / "admin.key").read_text().strip()
    document = Document(ask(port, "GET", "/openapi.json")[1])
    users = listeners_of(run)
    document.known = {"user_id": users[:], "request_id": [], "item_id": []}
    rng, found, left = random.Random(7), Found(), [requests, ordinary]
    link = Link(port)
    tenth, number = max((requests + ordinary) // 10, 1), 0
    while sum(left) > 0:
        if number // tenth >= len(found.memory_mb):
            found.memory_mb.append(resident_mb(pid))
            print(f"{number:,} requests: {found.memory_mb[-1]} MB", file=sys.stderr, flush=True)
        if rng.randrange(sum(left)) < left[1]:
            done = visit(link, document, rng, users, found)
            left[1] = max(left[1] - done, 0)
            number += done
            continue
        sent = malformed(rng) if rng.random() < 0.5 else generated(rng, document)
        chance = rng.random()
        headers = {**sent.headers, **({"X-API-Key": key if chance < 0.6 else "guess"} if chance < 0.65 else {})}
        answer = link.ask(sent, headers)
        found.judge(sent, chance < 0.6, document, answer) if answer else found.by_status.update([0])
        left[0] -= 1
        number += 1
    link.close()
    found.memory_mb.append(resident_mb(pid))
    return found


def visit(link: Link, document: Document, rng: random.Random, users: list[str], found: Found) -> int:
    """A page, a report on it and a session, as a client sends them; how many requests that was."""
    user, at = rng.choice(users), {"Content-Type": "application/json"}
    answers = [post(link, "/v1/home", {"user_id": user}, at)]
    page = answers[0][1]
    if page.get("shelves"):
        card = page["shelves"][0]["cards"][0]["item_id"]
        for name, one in (("request_id", page["request_id"]), ("item_id", card)):
            document.known[name] = [*document.known[name][-KEPT:], one]
        events = [{"event_id": "1", "row": 0, "column": 0, "seen": True, "listened_s": 40.0}]
        answers.append(post(link, "/v1/feedback", {"request_id": page["request_id"], "events": events}, at))
        plays = [{"item_id": card, "listened_s": 100.0}]
        session = {"user_id": user, "session_id": page["request_id"], "final": True, "plays": plays}
        answers.append(post(link, "/v1/sessions", session, at))
    found.ordinary += len(answers)
    for status, document_ in answers:
        if status not in (200, 202):
            found.failures.append(f"an ordinary visit of {user}: {status} {document_}")
    return len(answers)


def post(link: Link, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and document of an ordinary request."""
    answer = link.ask(Sent("POST", path, json.dumps(body).encode(), headers), headers)
    return (0, {}) if answer is None else (answer[0], json.loads(answer[3]))


class Link:
    """A connection that is made again where the server ends it, and where it was not used for `IDLE_S`: the server may
    have ended it by then."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._used_at = time.monotonic()

    def ask(self, sent: Sent, headers: dict[str, str]) -> tuple[int, str, str, bytes] | None:
        """Status, media type, Retry-After and body; None where the server ended the connection: it does so after a
        request that it could not read to its end."""
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        try:
            self._connection.request(sent.method, sent.path, sent.content, headers)
            answer = self._connection.getresponse()
            media_type = (answer.headers.get("content-type") or "").partition(";")[0]
            return answer.status, media_type, answer.headers.get("retry-after", ""), answer.read()
        except (HTTPException, OSError):
            self._connection.close()
            return None
        finally:
            self._used_at = time.monotonic()

    def close(self) -> None:
        """Ends it."""
        self._connection.close()


def resident_mb(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> int:
    """Exit code 1 where a request made the service fail, or its memory grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--ordinary", type=int, default=REQUESTS)
    parser.add_argument("--schemathesis", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bart-malformed-") as folder:
        run = Path(folder) / "run"
        if asked.run is None:
            small_run(run)
        else:
            shutil.copytree(asked.run, run, symlinks=True)
        with serving(run, 1) as (process, port):
            found = send(port, asked.requests, asked.ordinary, run, process.pid)
            tested = schemathesis(asked.schemathesis, port) if asked.schemathesis else "not asked for"
        verified = verify(run / "log.sqlite")
    grown = found.memory_mb[-1] - found.memory_mb[2] if len(found.memory_mb) > 2 else 0
    told = {
        "requests": asked.requests,
        "ordinary": found.ordinary,
        "memory_mb": found.memory_mb,
        "above_plateau_mb": grown,
        "by_status": dict(sorted(found.by_status.items())),
        "told_to_wait": found.waits,
        "failures": len(found.failures),
    }
    print(json.dumps(told))
    print(json.dumps({call: dict(sorted(count.items())) for call, count in sorted(found.by_call.items())}))
    print(json.dumps({"log_verifies": verified.ok, "records": verified.records, "schemathesis": tested}))
    for line in found.failures[:20]:
        print(line)
    return 1 if found.failures or not verified.ok or tested == "failed" or grown > GROWTH_MB else 0


def schemathesis(program: str, port: int) -> str:
    """What it found: passed or failed."""
    command = [program, "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error"]
    done = subprocess.run(
        [*command, "--max-examples", "200", "--seed", "1"], capture_output=True, text=True, check=False
    )
    print(done.stdout[-1500:])
    return "passed" if done.returncode == 0 else "failed"


if __name__ == "__main__":
    sys.exit(main())
