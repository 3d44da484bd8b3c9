"""Redis and the log's consumer killed in turn under load: what was acknowledged is in the log once, no state is lost.

Hosts (processes of their own here) send made pages, reports and sessions; every few seconds redis-server or the
consumer gets SIGKILL and is started again. At the end the log must hold every acknowledged page and event once and
verify, and each listener's state must count every acknowledged session.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from api.hosts.spool import Spool
from api.hosts.stream_consumer import StreamConsumer
from api.hosts.stream_sink import StreamSink
from bart.errors import StoreError
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.store.marks import count_marks
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ListenerTraits, Shelf
from benchmarks.served.server import BART, redis_server
from recommender.listener.model import MemoryListener, Session
from recommender.states.redis_store import RedisListenerStore, connect

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
USERS, DIMENSION, ROWS, COLUMNS, CANDIDATES = 20, 40, 6, 6, 150


def page(name: str, seed: int) -> Decision:
    """A drawn page of 6 x 6 among 150 candidates."""
    rng = np.random.default_rng(seed)
    shelves = tuple(Shelf(f"rule {s}", f"Shelf {s}") for s in range(8))
    shelf, score = np.arange(CANDIDATES) % 8, rng.random(CANDIDATES)
    shelf_epsilon, card_epsilon = np.full(ROWS, 0.2), np.full(COLUMNS, 0.2)
    drawn = PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon)).decide(
        Candidates(np.arange(CANDIDATES), shelf, shelves), score, ROWS, COLUMNS, np.random.default_rng(seed)
    )
    return Decision(
        request_id=name,
        user_id=f"user-{seed % USERS}",
        context=Context(AT + timedelta(seconds=seed)),
        traits=ListenerTraits(10.0),
        listener=rng.normal(size=DIMENSION).astype(np.float32),
        batch_id="batch",
        policy="epsilon_greedy",
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version="rules",
        seed=seed,
        shelves=shelves,
        item_id=np.array([f"item-{j}" for j in range(CANDIDATES)], dtype=object),
        shelf=shelf,
        raw_score=score,
        score=score,
        page=drawn,
    )


def host(number: int, url: str, folder: Path, over: Any) -> None:
    """Sends until told to stop; what was acknowledged is written down, line by line."""
    client = connect(url)
    sink = StreamSink(client, Spool(folder / f"spool-{number}.sqlite"))
    sink.start()
    store = None
    waiting: tuple[str, str, Session] | None = None
    with (folder / f"acknowledged-{number}.jsonl").open("w") as told:

        def heard(of: tuple[str, str, Session], row: int) -> bool:
            """Whether the store took a session, which is then written down."""
            nonlocal store
            try:
                store = store or RedisListenerStore(client, MemoryListener(DIMENSION), "batch")
                store.advance(of[0], of[2], [row], once=of[1])
            except StoreError:
                return False
            print(json.dumps(["session", of[0], of[1]]), file=told)
            return True

        k = 0
        while not over.is_set():
            decision = page(f"{number}-{k}", 100_000 * number + k)
            started = time.perf_counter()
            sink.append(decision)
            took_ms = 1000 * (time.perf_counter() - started)
            print(json.dumps(["page", decision.request_id, took_ms]), file=told)
            row, column = np.argwhere(decision.page.shown)[0].tolist()
            event = FeedbackEvent(f"e{k}", AT, row, column, seen=True, listened_s=40.0)
            if sink.feedback(decision.request_id, [event], AT).accepted:
                print(json.dumps(["event", decision.request_id, f"e{k}"]), file=told)
            if waiting is None and k % 3 == 0:
                at = AT + timedelta(hours=k)
                track = np.random.default_rng(k).standard_normal((3, DIMENSION)).astype(np.float32)
                session = Session.of(Context(at), at + timedelta(minutes=9), track, np.zeros(3, np.bool_))
                waiting = (f"user-{k % USERS}", f"{number}-{k}", session)
            if waiting is not None and heard(waiting, k):
                waiting = None  # else not acknowledged: the client sends the same session again
            k += 1
        while waiting is not None and not heard(waiting, k):
            time.sleep(0.05)
    until = time.monotonic() + 60
    while len(sink.spool) and time.monotonic() < until:
        time.sleep(0.05)
    sink.close()


def consumer(url: str, log: Path, number: int) -> subprocess.Popen[bytes]:
    command = [*BART, "log", "consume", "--redis", url, "--log", str(log)]
    command += ["--consumer", f"c{number}", "--claim-after-s", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def redis_kills(run: Path, users: list[str], times: int, hosts: int = 2, every_s: float = 3.0) -> dict[str, Any]:  # noqa: ARG001
    """So many kills of Redis and of the consumer in turn, and what was found at the end. run: beside it files go."""
    server_of, why = redis_server()
    if why:
        return {"skipped": why, "passed": True}
    folder = run.parent / f"{run.name}-redis"
    server = server_of(folder / "redis", "always")
    log = folder / "log.sqlite"
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    started = time.monotonic()
    senders = [context.Process(target=host, args=(n, server.url, folder, over)) for n in range(hosts)]
    receiver = consumer(server.url, log, 0)
    try:
        for sender in senders:
            sender.start()
        for kill in range(times):
            time.sleep(every_s)
            if kill % 2 == 0:
                server.kill()
                time.sleep(0.7)
                server.start()
            else:
                receiver.kill()
                receiver.wait()
                receiver = consumer(server.url, log, kill)
        time.sleep(every_s)
        over.set()
        for sender in senders:
            sender.join()
        sending_s = time.monotonic() - started
        receiver.kill()
        receiver.wait()
        time.sleep(2.1)  # then what it had taken is another's
        client = connect(server.url, 10.0)
        with DecisionLog(log, synchronous="FULL") as opened:
            last = StreamConsumer(client, opened, consumer="last", claim_after_s=2.0)
            last.run(threading.Event(), until_empty=True)
            left = last.waiting()
        found = judge(folder, log, client, hosts)
        client.close()
        killed = {"redis": (times + 1) // 2, "consumer": times // 2}
        return {"killed": killed, "hosts": hosts, "seconds": round(sending_s, 1), "left": left, **found}
    finally:
        over.set()
        for sender in senders:
            sender.join(5)
        receiver.kill()
        receiver.wait()
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def judge(folder: Path, log: Path, client: Any, hosts: int) -> dict[str, Any]:
    """What was acknowledged beside what is there."""
    told = [
        json.loads(line) for n in range(hosts) for line in (folder / f"acknowledged-{n}.jsonl").read_text().splitlines()
    ]
    pages = {name for kind, name, _ in told if kind == "page"}
    took_ms = [took for kind, _, took in told if kind == "page"]
    events = {(request_id, name) for kind, request_id, name in told if kind == "event"}
    sessions: dict[str, int] = {}
    for kind, user, _ in told:
        if kind == "session":
            sessions[user] = sessions.get(user, 0) + 1
    with DecisionLog(log) as opened, opened.reading() as connection:
        logged = [r for (r,) in connection.execute("SELECT request_id FROM decision")]
        query = "SELECT request_id, event_id FROM feedback JOIN decision USING (seq)"
        kept = connection.execute(query).fetchall()
        marked = count_marks(connection)
    store = RedisListenerStore(client, MemoryListener(DIMENSION), "batch")
    counted = {user: int(row.state[2]) for user in sessions if (row := store.get(user)) is not None}
    wrong = sum(counted.get(user, 0) != n for user, n in sessions.items())
    found = {
        "acknowledged_pages": len(pages),
        "acknowledged_events": len(events),
        "acknowledged_sessions": sum(sessions.values()),
        "lost_pages": len(pages - set(logged)),
        "double_pages": len(logged) - len(set(logged)),
        "lost_events": len(events - set(kept)),
        "double_events": len(kept) - len(set(kept)),
        "listeners_with_wrong_state": wrong,
        "refused": client.xlen("bart:log:refused"),
        "spooled": marked.get("spooled", 0),
        "append_ms_median": round(float(np.median(took_ms)), 2),
        "append_ms_p99": round(float(np.quantile(took_ms, 0.99)), 2),
        "log_verifies": verify(log).ok,
    }
    names = ("lost_pages", "double_pages", "lost_events", "double_events", "listeners_with_wrong_state", "refused")
    return {**found, "passed": not any(found[name] for name in names) and bool(found["log_verifies"])}
