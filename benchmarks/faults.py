"""What a served run survives, over real sockets: killed workers, flipped bundles, a full disk, takedowns, switches.

Each scenario starts `bart serve` on a copy of a run and asks it from threads; afterwards every page and report that was
acknowledged must be in the log, the log must verify, and no record may mix two bundles. Exits with 1 where one fails.

    python -m benchmarks faults [RUN]        RUN: of bart demo; a small one is made where none is given
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

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
    port: int, users: list[str], keep_pages: bool = False, clients: int = CLIENTS, pause_s: float = 0.0
) -> Iterator[Load]:
    """Clients that ask for pages and report on them until the end of the block, with a pause between two pages."""
    load, over = Load(), threading.Event()

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


def lost(run: Path, load: Load) -> dict[str, Any]:
    """Acknowledged pages and events that the log does not hold, and whether it verifies."""
    with DecisionLog(run / "log.sqlite", create=False) as log, log.reading() as connection:
        pages = {request_id for (request_id,) in connection.execute("SELECT request_id FROM decision")}
        query = "SELECT request_id, event_id FROM feedback JOIN decision USING (seq)"
        events = set(connection.execute(query).fetchall())
    found = verify(run / "log.sqlite")
    return {
        "acknowledged_pages": len(load.pages),
        "acknowledged_events": len(load.events),
        "lost_pages": len(set(load.pages) - pages),
        "lost_events": len(load.events - events),
        "log_verifies": found.ok,
        "refused": load.refused,
        "broken_connections": load.broken,
    }


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the supervisor's workers: those of its children that listen."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(p) for p in children if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def kills(run: Path, users: list[str], times: int = 10) -> dict[str, Any]:
    """SIGKILL of a worker under load, many times."""
    rng = random.Random(1)
    done = 0
    with serving(run, 2, durable=True) as (process, port), loaded(port, users) as load:
        while done < times:
            time.sleep(1.5 + rng.random())
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
    return {
        "kills": done,
        **found,
        "passed": not (found["lost_pages"] or found["lost_events"]) and found["log_verifies"],
    }


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


def job_kills(run: Path, users: list[str]) -> dict[str, Any]:
    """Jobs on the log killed beside the service; see there."""
    from benchmarks import job_kills

    return job_kills.job_kills(run, users)


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


SCENARIOS: dict[str, Callable[[Path, list[str]], dict[str, Any]]] = {
    "kills": kills,
    "flips": flips,
    "takedown": takedown,
    "full_disk": full_disk,
    "locked_store": locked_store,
    "slow_clients": slow_clients,
    "removed_files": removed_files,
    "job_kills": job_kills,
}


def main(given: str | None) -> int:
    """Exit code 1 where a scenario fails."""
    with tempfile.TemporaryDirectory(prefix="bart-faults-") as folder:
        if given is None:
            source = Path(folder) / "made"
            size = ["--listeners", "150", "--days", "30", "--tracks", "3000", "--visits", "300", "--seed", "3"]
            subprocess.run([sys.executable, "-m", "api.cli", "demo", "--out", str(source), *size], check=True)
        else:
            source = Path(given)
        with sqlite3.connect(source / "listeners.sqlite") as connection:
            users = [u for (u,) in connection.execute("SELECT DISTINCT user_id FROM listeners LIMIT 200")]
        failed = False
        for name, scenario in SCENARIOS.items():
            run = Path(shutil.copytree(source, Path(folder) / name, symlinks=True))
            found = scenario(run, users)
            failed |= not found["passed"]
            print(json.dumps({"scenario": name, **found}), flush=True)
            shutil.rmtree(run)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
