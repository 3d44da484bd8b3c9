"""CPU time of one POST /v1/home by stage, and what a served process bears over real sockets.

    OMP_NUM_THREADS=1 python benchmarks/service.py              # stages and whole request
    OMP_NUM_THREADS=1 python benchmarks/service.py --http 10    # and requests a second, with and without syncs

On a machine with other work `chrt -f 20 taskset -c 1` before it keeps that out of the processor's caches.

A seeded run of 6,000 items and 300 listeners with a CoSeRNN and a compiled reward model (random weights: what they are
does not change the time). Pages of 10 x 10. Prints one line of JSON a measurement: medians and 99th percentiles of CPU
milliseconds; over sockets wall-clock milliseconds, requests a second, CPU milliseconds of the process a request, and
its resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop

from api.http.app import create_app
from api.http.server import settled
from api.jobs.build import build_run
from api.run.progress import Quiet
from api.run.runs import RunPaths
from api.run.settings import Settings, load_settings
from api.service.service import HomeService, open_service
from api.wire.schemas import HomeRequest
from bart.bundle import open_bundle, write_bundle
from bart.item_store import load_items
from bart.reward.features import FeatureSchema
from bart.reward.scorer import Scorer
from bart.types import Context
from recommender.features.tables import FILE as FEATURES

ROWS = COLUMNS = 10
GENRES = 6
USERS, ITEMS, PLAYS = 300, 6000, 120
BLOCK = 50


def settings_for(per_shelf: int, **serve: Any) -> Settings:
    page = {"rows": ROWS, "columns": COLUMNS, "per_shelf": per_shelf}
    return load_settings({"page": page, "listener": {"epochs": 1}, "serve": serve})


def make_run(folder: Path, per_shelf: int, plain: bool = False) -> Path:
    """A run whose listeners each keep to one genre, with random weights as its reward model. plain: its batch knows no
    features of listening history, as one that was built before there were any."""
    rng = np.random.default_rng(1)
    genre = rng.integers(GENRES, size=ITEMS)
    member = [np.flatnonzero(genre == g) for g in range(GENRES)]
    user = np.repeat(np.arange(USERS), PLAYS)
    own = np.concatenate([rng.choice(member[u % GENRES], PLAYS) for u in range(USERS)])
    item = np.where(rng.random(len(user)) < 0.8, own, rng.integers(ITEMS, size=len(user)))
    gap_s = np.where(np.arange(len(user)) % 8 == 0, 40_000, 200)
    at_s = 1_714_550_400 + np.concatenate([np.cumsum(part) for part in gap_s.reshape(USERS, PLAYS)])
    events = pa.table(
        {
            "user_id": [f"u{u:04d}" for u in user],
            "item_id": [f"t{i}" for i in item],
            "started_at": pa.array(at_s * 1_000_000).cast(pa.timestamp("us", "UTC")),
            "listened_s": rng.choice([10.0, 190.0], len(user), p=[0.3, 0.7]),
            "device": np.where(rng.random(len(user)) < 0.5, "mobile", "desktop"),
        }
    )
    items = pa.table(
        {
            "item_id": [f"t{i}" for i in range(ITEMS)],
            "title": [f"Song number {i}" for i in range(ITEMS)],
            "artist_ids": [[f"Artist {i % 500}"] for i in range(ITEMS)],
            "genres": [[f"genre {g}"] for g in genre],
        }
    )
    pq.write_table(events, folder / "events.parquet")
    pq.write_table(items, folder / "items.parquet")
    run = folder / f"run-{per_shelf}"
    build_run(folder / "events.parquet", folder / "items.parquet", None, run, {}, settings_for(per_shelf), Quiet())
    old = open_bundle(run / "bundle")
    table = load_items(old.folder("items"))
    weight = rng.normal(0, 0.05, 1 << 20).astype(np.float32)
    with write_bundle((run / "bundle").resolve(), created_at=old.created_at) as draft:
        for part in ("items", "listener", "index"):
            shutil.copytree(old.folder(part), draft / part)
        if plain:
            (draft / "listener" / FEATURES).unlink()
        Scorer(FeatureSchema(dimension=table.dimension), weight, table).save(draft / "reward")
    if plain:  # another batch, with the same listeners
        with closing(sqlite3.connect(RunPaths(run).listeners)) as listeners, listeners:
            batch_id = open_bundle(run / "bundle").batch_id
            listeners.execute("UPDATE listeners SET history = NULL, batch_id = ?", (batch_id,))
    return run


def cpu_ms(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time_ns()
    value = call()
    return (time.process_time_ns() - start) / 1e6, value


def stages(service: HomeService, body: bytes) -> dict[str, float]:
    """CPU milliseconds of each part of one request, one after another."""
    ranker = service.run.ranker
    out = {}
    out["parse"], request = cpu_ms(lambda: HomeRequest.model_validate_json(body))
    now = datetime.now(timezone.utc)
    context = Context(now, request.utc_offset_min(now), request.device)
    out["listener"], listener = cpu_ms(lambda: service.listening.listener(request.user_id, context))
    rng = np.random.default_rng(1)
    out["candidates"], found = cpu_ms(lambda: ranker.source.candidates(listener, context, rng))
    out["score"], _ = cpu_ms(lambda: ranker.scorer.score(context, listener.vector, found, user_id=listener.user_id))
    out["rank"], decision = cpu_ms(lambda: ranker.decide("x", listener, context, ROWS, COLUMNS, 1))
    out["policy, rules, record"] = out.pop("rank") - out["candidates"] - out["score"]
    fresh = replace(decision, request_id=f"{time.perf_counter_ns()}")
    out["log"], _ = cpu_ms(lambda: service.log.append(fresh))
    out["count"], _ = cpu_ms(lambda: service.metrics.count_page(decision, known=True, disjoint=True))
    out["json"], _ = cpu_ms(lambda: service.writer.page(decision))
    return out


async def measure(service: HomeService, requests: int) -> dict[str, Any]:
    """Whole requests through the application, the same without it, and the stages, in blocks by turns.

    In blocks, because a service does one thing again and again: what ran between would push it out of the caches.
    """
    app = create_app(service)
    users = service.listeners()
    bodies = [json.dumps({"user_id": user, "tz": "Europe/Stockholm"}).encode() for user in users]
    whole: list[float] = []
    direct: list[float] = []
    parts: list[dict[str, float]] = []
    async with app.router.lifespan_context(app):
        for first in range(-BLOCK, requests, BLOCK):  # the first block warms up
            block = [bodies[number % len(bodies)] for number in range(first, min(first + BLOCK, requests))]
            for body in block:
                start = time.process_time_ns()
                await post(app, body)
                whole.append((time.process_time_ns() - start) / 1e6)
            for body in block:
                start = time.process_time_ns()
                service.home(HomeRequest.model_validate_json(body))
                direct.append((time.process_time_ns() - start) / 1e6)
            parts += [stages(service, body) for body in block]
    whole, direct, parts = whole[BLOCK:], direct[BLOCK:], parts[BLOCK:]
    candidates = np.median([len(decision.item_id) for decision in list(service.log.decisions())[-200:]])
    medians = {name: round(float(np.median([part[name] for part in parts])), 3) for name in parts[0]}
    return {
        "candidates": int(candidates),
        "whole_cpu_ms": summary(whole),
        "framework_cpu_ms": round(float(np.median(whole) - np.median(direct)), 3),
        "stage_cpu_ms": medians,
        "requests": requests,
    }


async def post(app: Any, body: bytes) -> None:
    """One request to the application, without a socket."""
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the service answered {message['status']}")

    headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    scope |= {"path": "/v1/home", "raw_path": b"/v1/home", "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    await app(scope, receive, send)


def over_sockets(run: Path, users: list[str], seconds: float, durable: bool, clients: int = 8) -> dict[str, Any]:
    """Requests a second of one process, and what a client waits, with `clients` that ask without a pause."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    settings = run / "bart.toml"
    settings.write_text(f"[page]\nrows = {ROWS}\ncolumns = {COLUMNS}\n[serve]\ndurable = {str(durable).lower()}\n")
    command = [sys.executable, "-m", "api.cli", "serve", "--run", str(run), "--port", str(port)]
    with subprocess.Popen([*command, "--config", str(settings)], stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            asyncio.run(load(port, users, 1.0, clients))
            before_ms = cpu_of(process.pid)
            waited = asyncio.run(load(port, users, seconds, clients))
            spent_ms = cpu_of(process.pid) - before_ms
            memory = next(
                line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line[:6] == "VmRSS:"
            )
        finally:
            process.terminate()
    return {
        "durable": durable,
        "clients": clients,
        "requests_per_s": round(len(waited) / seconds, 1),
        "wall_ms": summary(waited),
        "cpu_ms_a_request": round(spent_ms / len(waited), 3),
        "resident_mb": int(memory.split()[1]) // 1024,
    }


def cpu_of(pid: int) -> float:
    """CPU milliseconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, users: list[str], seconds: float, clients: int) -> list[float]:
    waited: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        end, i = time.perf_counter() + seconds, number
        while time.perf_counter() < end:
            body = json.dumps({"user_id": users[i % len(users)], "tz": "Europe/Stockholm"})
            i += clients
            start = time.perf_counter()
            head = "POST /v1/home HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if " 200 " not in answer.split("\r\n", 1)[0]:
                raise RuntimeError(answer)
            await reader.readexactly(int(answer.split("content-length:")[1].split("\r\n", 1)[0]))
            waited.append(1000 * (time.perf_counter() - start))
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return waited


def summary(value: list[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(value, q)), 3) for name, q in (("median", 0.5), ("p99", 0.99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--per-shelf", type=int, nargs="*", default=[25, 100], help="candidates a shelf brings at most")
    parser.add_argument("--http", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--plain", action="store_true", help="without features of listening history")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for per_shelf in asked.per_shelf:
            run = make_run(Path(folder), per_shelf, asked.plain)
            with settled(open_service(run, settings_for(per_shelf))) as service:
                print(json.dumps(uvloop.run(measure(service, asked.requests))), flush=True)
                users = service.listeners()
            for durable in (False, True) if asked.http else ():
                found = over_sockets(run, users, asked.http, durable)
                print(json.dumps({"per_shelf": per_shelf, **found}), flush=True)


if __name__ == "__main__":
    main()
