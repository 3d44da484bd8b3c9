"""What a served run survives, over real sockets: kills, flips, full, locked and removed stores, half requests.

Each scenario starts `bart serve` on a copy of a run and asks it from threads; afterwards every page and report that was
acknowledged must be in the log, the log must verify, and no record may mix two bundles. Exits with 1 where one fails.

    python -m benchmarks faults [--run RUN] [--kills 100] [--only NAME ...]     the suite; RUN: of bart demo
    python -m benchmarks faults --quick                                         a few kills and the quick scenarios

Kills are shared out: workers and whole servers, with and without `durable`, while pages, reports, sessions and picks
come; and the jobs of `job_kills`, `retrain_kill` and `redis_faults`, which run as benchmarks of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from api.run.versions import Versions
from bart.bundle import open_bundle, write_bundle
from bart.item_store import load_items
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.reward.baselines import PriorScorer

CLIENTS = 6
LIMIT_S = 5.0  # within which switches and takedowns must hold


@dataclass
class Load:
    """What clients were told. pages: request id to the batch it names. events: acknowledged (request id, event id)."""

    pages: dict[str, str] = field(default_factory=dict)
    events: set[tuple[str, str]] = field(default_factory=set)
    refused: int = 0
    broken: int = 0
    decided: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    sessions: Counter[str] = field(default_factory=Counter)  # acknowledged, by listener
    attempted: dict[str, int] = field(default_factory=dict)  # the acknowledged ones and the one under way
    picks: set[str] = field(default_factory=set)  # listeners whose picks were acknowledged
    base: datetime = field(default_factory=lambda: datetime.now(timezone.utc) - timedelta(days=60))
    lock: threading.Lock = field(default_factory=threading.Lock)


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
def serving(run: Path, workers: int, **serve: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server on a free port, once it answers."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    settings = run.parent / f"{run.name}.toml"
    lines = ["[page]", "rows = 6", "columns = 6", "[serve]", *(f"{key} = {json.dumps(v)}" for key, v in serve.items())]
    settings.write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "api.cli",
        "serve",
        "--run",
        str(run),
        "--port",
        str(port),
        "--config",
        str(settings),
    ]
    told = (run.parent / f"{run.name}.stderr").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], stdout=subprocess.DEVNULL, stderr=told, env=environment
    )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                if ask(port, "GET", "/ready", timeout=2)[0] == 200:
                    break
            except (OSError, HTTPException):
                pass
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server does not answer, see {told.name}")
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        told.close()


@contextmanager
def loaded(
    port: int,
    users: list[str],
    keep_pages: bool = False,
    clients: int = CLIENTS,
    pause_s: float = 0.0,
    load: Load | None = None,
    listening: bool = False,
) -> Iterator[Load]:
    """Clients that ask for pages and report on them until the end of the block, with a pause between two pages. load:
    goes on from there. listening: they also report sessions, one after another and again until it is acknowledged, and
    begin with picks."""
    load, over = load or Load(), threading.Event()

    def client(number: int) -> None:
        rng = random.Random(number)
        while not over.wait(pause_s):
            try:
                started = time.monotonic()
                status, page = ask(port, "POST", "/v1/home", {"user_id": rng.choice(users)})
                if status != 200:
                    with load.lock:
                        load.refused += 1
                    time.sleep(0.05)
                    continue
                with load.lock:
                    load.pages[page["request_id"]] = page["batch_id"]
                    if keep_pages:
                        load.decided.append((started, page))
                if not page["shelves"]:
                    continue
                event = f"{number}-{rng.random()}"
                events = [{"event_id": event, "row": 0, "column": 0, "seen": True, "listened_s": 40.0}]
                status, answer = ask(port, "POST", "/v1/feedback", {"request_id": page["request_id"], "events": events})
                if status == 202 and answer["accepted"] == 1:
                    with load.lock:
                        load.events.add((page["request_id"], event))
                if listening:
                    listen(port, load, f"fault-{number}", page["shelves"][0]["cards"][0]["item_id"])
                    pick(port, load, f"pick-{number}-{rng.random()}", page["shelves"][0]["cards"][0]["item_id"])
            except (OSError, HTTPException, ValueError):
                with load.lock:
                    load.broken += 1
                time.sleep(0.02)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join()


def listen(port: int, load: Load, user: str, item: str) -> None:
    """Reports the next session of a listener, the same one until it is acknowledged."""
    number = load.sessions[user]
    load.attempted[user] = number + 1
    at = load.base + timedelta(minutes=10 * number)
    plays = [{"item_id": item, "started_at": at.isoformat(), "listened_s": 100.0}]
    body = {"user_id": user, "session_id": f"s{number}", "final": True, "plays": plays}
    status, answer = ask(port, "POST", "/v1/sessions", body)
    if status == 202 and answer["status"] in ("committed", "repeated"):
        load.sessions[user] += 1


def pick(port: int, load: Load, user: str, item: str) -> None:
    """A page for a new listener who picks an item."""
    status, page = ask(port, "POST", "/v1/home", {"user_id": user, "onboarding": {"items": [item]}})
    if status == 200:
        with load.lock:
            load.pages[page["request_id"]] = page["batch_id"]
            load.picks.add(user)


def heard(run: Path, load: Load) -> dict[str, int]:
    """Sessions and picks that were acknowledged and are in no state, or twice."""
    bundle = open_bundle(run / "bundle")
    query = (
        "SELECT user_id, state FROM listeners WHERE batch_id = ? AND (user_id GLOB 'fault-*' OR user_id GLOB 'pick-*')"
    )
    with closing(sqlite3.connect(run / "listeners.sqlite")) as connection:
        found = connection.execute(query, (bundle.batch_id,)).fetchall()
    count = {user: int(np.frombuffer(state, "<f4")[2]) for user, state in found}
    return {
        "acknowledged_sessions": load.sessions.total(),
        "acknowledged_picks": len(load.picks),
        "lost_sessions": sum(max(n - count.get(user, 0), 0) for user, n in load.sessions.items()),
        "double_sessions": sum(max(count.get(user, 0) - n, 0) for user, n in load.attempted.items()),
        "lost_picks": len(load.picks - set(count)),
    }


def lost(run: Path, load: Load) -> dict[str, Any]:
    """Acknowledged pages and events that the log does not hold, and whether it verifies."""
    with DecisionLog(run / "log.sqlite", create=False) as log, log.reading() as connection:
        pages = {request_id for (request_id,) in connection.execute("SELECT request_id FROM decision")}
        query = "SELECT request_id, event_id FROM event JOIN decision USING (seq)"
        events = set(connection.execute(query).fetchall())
        named = {decision.request_id: decision.batch_id for decision in log.decisions()}
    found = verify(run / "log.sqlite")
    return {
        "acknowledged_pages": len(load.pages),
        "acknowledged_events": len(load.events),
        "lost_pages": len(set(load.pages) - pages),
        "lost_events": len(load.events - events),
        "mixed_batches": sum(named.get(request_id) not in (None, batch) for request_id, batch in load.pages.items()),
        "log_verifies": found.ok,
        "refused": load.refused,
        "broken_connections": load.broken,
        **(heard(run, load) if load.sessions or load.picks else {}),
    }


def is_whole(found: dict[str, Any]) -> bool:
    """Whether nothing acknowledged is lost, double or mixed, and the log verifies."""
    return found["log_verifies"] and not any(
        count for name, count in found.items() if name.startswith(("lost_", "double_", "mixed_"))
    )


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the supervisor's workers: those of its children that listen."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(p) for p in children if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def kills(run: Path, users: list[str], times: int = 10, durable: bool = True) -> dict[str, Any]:
    """SIGKILL of a worker under load, many times."""
    rng = random.Random(1)
    done = 0
    with serving(run, 2, durable=durable) as (process, port), loaded(port, users, listening=True) as load:
        while done < times:
            time.sleep(1.0 + rng.random())
            running = workers_of(process)
            if len(running) < 2:
                continue
            os.kill(rng.choice(running), signal.SIGKILL)
            done += 1
            until = time.monotonic() + 60
            while len(workers_of(process)) < 2 and time.monotonic() < until:
                time.sleep(0.1)
        time.sleep(2)
    found = lost(run, load)
    return {"kills": done, "durable": durable, **found, "passed": is_whole(found)}


def server_kills(run: Path, users: list[str], times: int = 5, durable: bool = True) -> dict[str, Any]:
    """SIGKILL of a server with all of its workers under load, and a start of another, many times."""
    load, rng = Load(), random.Random(2)
    for _ in range(times):
        with serving(run, 2, durable=durable) as (process, port), loaded(port, users, load=load, listening=True):
            time.sleep(1.0 + rng.random())
            for pid in [process.pid, *workers_of(process)]:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    with serving(run, 2, durable=durable) as (_, port), loaded(port, users, load=load, listening=True):
        time.sleep(2)  # what was under way at the last kill is reported again
    found = lost(run, load)
    return {"kills": times, "durable": durable, **found, "passed": is_whole(found)}


def half_requests(run: Path, users: list[str], count: int = 600, descriptors: int = 300) -> dict[str, Any]:
    """Half requests, twice as many as a worker has descriptors, beside clients who must not notice."""
    import resource

    head = b"POST /v1/home HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))  # inherited by the server
    try:
        with serving(run, 1) as (_, port):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
            links = []
            for number in range(count):
                links.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                links[-1].sendall(head[: 10 + number % (len(head) - 10)])
            took, refused = [], 0
            for number in range(200):
                begun = time.monotonic()
                try:
                    refused += ask(port, "POST", "/v1/home", {"user_id": users[number % len(users)]}, 5)[0] != 200
                except (OSError, HTTPException):
                    refused += 1
                took.append(time.monotonic() - begun)
            for link in links:
                link.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    median = round(1e3 * sorted(took)[len(took) // 2], 1)
    found = {"half_requests": count, "descriptors": descriptors, "served": 200 - refused, "median_ms": median}
    return {**found, "passed": not refused and median < 50}


def second_bundle(run: Path) -> str:
    """A bundle of the same batch with a plain model; its name."""
    versions = Versions(run)
    bundle = open_bundle(run / "bundle")
    draft = versions.draft()
    with write_bundle(draft, created_at="2026-01-01T00:00:00+00:00") as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        PriorScorer(load_items(bundle.folder("items")), taste=4.0).save(folder / "reward")
    return versions.add(draft)


def flips(run: Path, users: list[str], times: int = 10) -> dict[str, Any]:
    """Bundles flipped over HTTP under load: no failed request, no record of two models."""
    versions = Versions(run)
    first, second = str(versions.active()), second_bundle(run)
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        for flip in range(times):
            time.sleep(2)
            name = first if flip % 2 else second
            assert ask(port, "POST", "/v1/models", {"activate": name}, run=run)[0] == 200
        time.sleep(2)
    from bart.reward.scorer import load_scorer
    from bart.types import Candidates

    items = load_items(open_bundle(run / "bundle").folder("items"))
    scorer = {
        open_bundle(versions.path(name)).model_id: load_scorer(versions.path(name) / "reward", items)
        for name in (first, second)
    }
    mixed, by_model = 0, dict.fromkeys(scorer, 0)
    with DecisionLog(run / "log.sqlite", create=False) as log:
        for request_id in load.pages:
            decision = log.get(request_id)
            assert decision is not None
            candidates = Candidates(items.rows(decision.item_id), decision.shelf, decision.shelves)
            expected = scorer[decision.model_id].score(decision.context, decision.listener, candidates)
            mixed += not (expected == decision.raw_score).all()
            by_model[decision.model_id] += 1
    found = lost(run, load)
    passed = not (mixed or found["refused"] or found["broken_connections"] or found["lost_pages"]) and all(
        by_model.values()
    )
    return {"flips": times, "mixed_records": mixed, "pages_by_model": by_model, **found, "passed": passed}


def takedown(run: Path, users: list[str]) -> dict[str, Any]:
    """How long after the answer a page with the item was still asked for and came, on two workers; also of a switch."""
    with serving(run, 2) as (_, port), loaded(port, users, keep_pages=True) as load:
        time.sleep(3)
        with load.lock:
            shown = [
                card["item_id"] for _, page in load.decided for shelf in page["shelves"] for card in shelf["cards"]
            ]
        often = max(set(shown), key=shown.count)
        assert ask(port, "DELETE", f"/v1/items/{often}", run=run)[0] == 200
        at = time.monotonic()
        time.sleep(4)
        assert ask(port, "POST", "/v1/control", {"switch": "explore", "state": "off"}, run=run)[0] == 200
        switched = time.monotonic()
        time.sleep(4)
    late = [t - at for t, page in load.decided if t > at and f'"{often}"' in json.dumps(page)]
    with DecisionLog(run / "log.sqlite", create=False) as log:
        explored = [
            t - switched
            for t, page in load.decided
            if t > switched and (d := log.get(page["request_id"])) is not None and d.card_epsilon.any()
        ]
    after = sum(t > at for t, _ in load.decided)
    return {
        "shown_before": shown.count(often),
        "pages_after": after,
        "last_page_with_it_s": round(max(late, default=0.0), 3),
        "last_page_that_explored_s": round(max(explored, default=0.0), 3),
        "passed": max([*late, *explored], default=0.0) < LIMIT_S and after > 50,
    }


def full_disk(run: Path, users: list[str]) -> dict[str, Any]:
    """A file system that fills up under load: 503, nothing half-written, and it recovers by itself.

    Needs the right to mount a small tmpfs; skipped without.
    """
    place = Path(tempfile.mkdtemp(prefix="bart-full-"))
    needed = sum(f.stat().st_size for f in run.rglob("*") if f.is_file())
    size = needed + (192 << 20)  # what fills up is the file below, not the log itself
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
    ).returncode:
        return {"skipped": "a tmpfs cannot be mounted here", "passed": True}
    try:
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
            status, problem = ask(port, "POST", "/v1/home", {"user_id": users[0]})
            health = ask(port, "GET", "/health")[0]
            with load.lock:
                before = len(load.pages)
            filler.unlink()
            time.sleep(4)
            recovered = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
            with load.lock:
                after = len(load.pages)
        found = lost(copy, load)
        passed = status == 503 and health == 200 and recovered == 200 and after > before
        passed &= not (found["lost_pages"] or found["lost_events"]) and found["log_verifies"]
        return {"full": status, "said": problem.get("detail"), "recovered": recovered, **found, "passed": passed}
    finally:
        subprocess.run(["umount", str(place)], check=False)
        place.rmdir()


def locked_store(run: Path, users: list[str]) -> dict[str, Any]:
    """Another process holds the log's write lock for longer than a client waits: 503, then all is well again."""
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        time.sleep(1)
        holder = sqlite3.connect(run / "log.sqlite", isolation_level=None, timeout=30)
        holder.execute("BEGIN IMMEDIATE")
        status, _problem = ask(port, "POST", "/v1/home", {"user_id": users[0]})
        holder.execute("ROLLBACK")
        holder.close()
        time.sleep(1)
        recovered = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
        time.sleep(1)
    found = lost(run, load)
    passed = status == 503 and recovered == 200 and not found["lost_pages"] and found["log_verifies"]
    return {"locked": status, "recovered": recovered, **found, "passed": passed}


def removed_files(run: Path, users: list[str]) -> dict[str, Any]:
    """The files of a run taken away one by one while it serves: refused within a second, by name, then well again."""
    noticed: dict[str, float] = {}
    unnamed: list[str] = []
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        for name in ("log.sqlite", "listeners.sqlite", "sessions.sqlite", "control.sqlite"):
            time.sleep(1)
            os.rename(run / name, run / "away")
            began = time.monotonic()
            while (status := ask(port, "GET", "/ready", timeout=5)[0]) == 200 and time.monotonic() - began < LIMIT_S:
                time.sleep(0.02)
            while time.monotonic() - began < LIMIT_S:
                status, problem = ask(port, "POST", "/v1/home", {"user_id": users[0]}, timeout=5)
                if status == 503:
                    break
            noticed[name] = round(time.monotonic() - began, 3)
            if status != 503 or name not in problem["detail"]:
                unnamed.append(name)
            os.replace(run / "away", run / name)
            until = time.monotonic() + LIMIT_S
            while ask(port, "GET", "/ready", timeout=5)[0] != 200 and time.monotonic() < until:
                time.sleep(0.05)
        time.sleep(1)
        recovered = ask(port, "POST", "/v1/home", {"user_id": users[0]})[0]
    found = lost(run, load)
    passed = not unnamed and recovered == 200 and max(noticed.values()) < 1.0 and not found["lost_pages"]
    passed &= not found["lost_events"] and found["log_verifies"]
    return {"noticed_s": noticed, "unnamed": unnamed, "recovered": recovered, **found, "passed": passed}


def slow_clients(run: Path, users: list[str]) -> dict[str, Any]:
    """A hundred clients that send a byte a second or break off, beside others that must not notice."""
    over = threading.Event()

    def slow(port: int, number: int) -> None:
        head = b"POST /v1/home HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: 500\r\n\r\n"
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
                    link.sendall(head[: 20 + number])
                    for byte in (head[20 + number :] + b'{"user_id": "') * (number % 2):
                        if over.wait(0.2):
                            return
                        link.sendall(bytes([byte]))
            except OSError:
                continue
            over.wait(0.2)

    with serving(run, 2) as (_, port):
        threads = [threading.Thread(target=slow, args=(port, n), daemon=True) for n in range(100)]
        for thread in threads:
            thread.start()
        with loaded(port, users) as load:
            time.sleep(6)
        over.set()
        for thread in threads:
            thread.join(10)
    found = lost(run, load)
    return {"slow_clients": 100, **found, "passed": not (load.refused or load.broken) and len(load.pages) > 100}


Scenario = Callable[[Path, list[str]], dict[str, Any]]


def scenarios(times: int) -> dict[str, Scenario]:
    """All of them by name; times: how many kills they share out, a fifth of them of whole servers."""
    part = max(times // 10, 1)
    return {
        "kills": partial(kills, times=3 * part, durable=False),
        "kills_durable": partial(kills, times=2 * part),
        "server_kills": partial(server_kills, times=part, durable=False),
        "server_kills_durable": partial(server_kills, times=part),
        "flips": flips,
        "takedown": takedown,
        "full_disk": full_disk,
        "locked_store": locked_store,
        "removed_files": removed_files,
        "slow_clients": slow_clients,
        "half_requests": half_requests,
    }


# Benchmarks of their own: what they are called with, how many of the kills are theirs.
OTHERS: dict[str, Callable[[Path, int], list[str]]] = {
    "job_kills": lambda run, times: ["--run", str(run), "--kills", str(max(times // 5, 1))],
    "retrain_kill": lambda _, times: ["--only", *map(str, range(max(times // 10, 1)))],
    "redis_faults": lambda *_: [],
}
QUICK = ("kills", "server_kills", "locked_store", "removed_files", "half_requests")


def main() -> int:
    """Exit code 1 where a scenario fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*scenarios(10), *OTHERS], default=None)
    asked = parser.parse_args()
    known = scenarios(10 if asked.quick else asked.kills)
    names = asked.only or (QUICK if asked.quick else [*known, *OTHERS])
    failed = False
    with tempfile.TemporaryDirectory(prefix="bart-faults-") as folder:
        source = asked.run
        if source is None:
            source = Path(folder) / "made"
            size = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "300", "--seed", "3"]
            subprocess.run([sys.executable, "-m", "api.cli", "demo", "--out", str(source), *size], check=True)
        with closing(sqlite3.connect(source / "listeners.sqlite")) as connection:
            users = [u for (u,) in connection.execute("SELECT DISTINCT user_id FROM listeners LIMIT 200")]
        for name in names:
            if name in OTHERS:
                command = [sys.executable, "-m", "benchmarks", name, *OTHERS[name](source, asked.kills)]
                failed |= subprocess.run(command, check=False).returncode != 0
                continue
            run = Path(shutil.copytree(source, Path(folder) / name, symlinks=True))
            found = known[name](run, users)
            failed |= not found["passed"]
            print(json.dumps({"scenario": name, **found}), flush=True)
            shutil.rmtree(run)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
