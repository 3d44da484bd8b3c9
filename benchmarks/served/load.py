"""Clients who ask for pages and report, and what of that was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.client import HTTPException
from typing import Any

from benchmarks.served.server import ask

CLIENTS = 6


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
                visit(port, load, number, rng, users, keep_pages, listening)
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


def visit(
    port: int, load: Load, number: int, rng: random.Random, users: list[str], keep_pages: bool, listening: bool
) -> None:
    """One page of one client, and what it reports of it."""
    started = time.monotonic()
    status, page = ask(port, "POST", "/v1/home", {"user_id": rng.choice(users)})
    if status != 200:
        with load.lock:
            load.refused += 1
        time.sleep(0.05)
        return
    with load.lock:
        load.pages[page["request_id"]] = page["batch_id"]
        if keep_pages:
            load.decided.append((started, page))
    if not page["shelves"]:
        return
    event = f"{number}-{rng.random()}"
    events = [{"event_id": event, "row": 0, "column": 0, "seen": True, "listened_s": 40.0}]
    status, answer = ask(port, "POST", "/v1/feedback", {"request_id": page["request_id"], "events": events})
    if status == 202 and answer["accepted"] == 1:
        with load.lock:
            load.events.add((page["request_id"], event))
    if listening:
        item = page["shelves"][0]["cards"][0]["item_id"]
        listen(port, load, f"fault-{number}", item)
        pick(port, load, f"pick-{number}-{rng.random()}", item)


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
