"""Hundreds of half and slow requests, beside clients who must not notice."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.served.server import ask, serving

HEAD = b"POST /v1/home HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
MEDIAN_MS = 50.0  # of others, at most; on a machine with other work twice what they wait without the crowd


def half_requests(run: Path, users: list[str], count: int = 600, descriptors: int = 300) -> dict[str, Any]:
    """Half requests, twice as many as a worker has descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))  # inherited by the server
    try:
        with serving(run, 1) as (_, port):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
            alone = others(port, users)
            links = []
            for number in range(count):
                links.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                links[-1].sendall(HEAD[: 10 + number % (len(HEAD) - 10)])
            found = beside(alone, others(port, users))
            for link in links:
                link.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return {"half_requests": count, "descriptors": descriptors, **found}


def slow_requests(run: Path, users: list[str], count: int = 300) -> dict[str, Any]:
    """Clients that send a byte at a time, or break off and come again."""
    with serving(run, 1) as (_, port):
        alone = others(port, users)
        with slow(port, count):
            found = beside(alone, others(port, users))
    return {"slow_requests": count, **found}


@contextmanager
def slow(port: int, count: int) -> Iterator[None]:
    """So many slow clients until the end of the block: each sends five bytes a second, every other one breaks off."""
    over = threading.Event()

    def client(number: int) -> None:
        start = 20 + number % (len(HEAD) - 30)
        while not over.wait(0.2):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
                    link.sendall(HEAD[:start])
                    for byte in (HEAD[start:] + b'\r\n{"user_id": "') * (number % 2):
                        if over.wait(0.2):
                            return
                        link.sendall(bytes([byte]))
            except OSError:
                continue

    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


def beside(alone: dict[str, Any], crowded: dict[str, Any]) -> dict[str, Any]:
    """What others were told beside a crowd, and what they wait without it."""
    most_ms = max(MEDIAN_MS, 2 * alone["median_ms"])
    passed = crowded["served"] == alone["served"] == crowded["asked"] and crowded["median_ms"] < most_ms
    return {**crowded, "median_alone_ms": alone["median_ms"], "passed": passed}


def others(port: int, users: list[str], count: int = 200) -> dict[str, Any]:
    """What others are told meanwhile, one after another."""
    took, refused = [], 0
    for number in range(count):
        begun = time.monotonic()
        try:
            refused += ask(port, "POST", "/v1/home", {"user_id": users[number % len(users)]}, 5)[0] != 200
        except (OSError, HTTPException):
            refused += 1
        took.append(1e3 * (time.monotonic() - begun))
    median = round(sorted(took)[count // 2], 1)
    return {"asked": count, "served": count - refused, "median_ms": median}
