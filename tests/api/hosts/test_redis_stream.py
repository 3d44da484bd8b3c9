"""Decisions and feedback through a Redis stream: each acknowledged one is in the log once, whoever is killed when."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis_server as _servers
from drawn_pages import AT, make

from api.hosts.spool import Spool
from api.hosts.stream_consumer import LOST, REFUSED, StreamConsumer
from api.hosts.stream_sink import StreamSink
from bart.errors import LogError
from bart.log.care.erasure import erase_user
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.store.marks import count_marks
from bart.log.store.store import get_meta
from recommender.states.redis_store import connect

pytestmark = pytest.mark.skipif(bool(_servers.why_absent()), reason=_servers.why_absent())

Host = Callable[[], StreamSink]


def event(name: str, row: int = 0, column: int = 0) -> FeedbackEvent:
    return FeedbackEvent(name, AT, row, column, seen=True, listened_s=40.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    made = _servers.RedisServer(tmp_path / "redis")
    yield made
    made.close()


@pytest.fixture
def host(server: Any, tmp_path: Path) -> Iterator[Host]:
    """Makes a host that sends."""
    made: list[tuple[StreamSink, Any]] = []

    def one() -> StreamSink:
        client = connect(server.url)
        made.append((StreamSink(client, Spool(tmp_path / f"spool-{len(made)}.sqlite")), client))
        return made[-1][0]

    yield one
    for sink, client in made:
        sink.close()
        client.close()


def drain(server: Any, path: Path, consumer: str = "one", claim_after_s: float = 10.0) -> Any:
    """Takes all that is there into the log; what was taken."""
    client = connect(server.url, 10.0)
    with DecisionLog(path, synchronous="FULL") as log:
        receiver = StreamConsumer(client, log, consumer=consumer, claim_after_s=claim_after_s, block_s=0.05)
        taken = receiver.run(threading.Event(), until_empty=True)
        receiver.trim()
        left = receiver.waiting()
    client.close()
    assert left == 0
    return taken


def test_what_two_hosts_send_is_in_the_log_to_the_bit(server: Any, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    one, two = host(), host()
    for i in range(20):
        (one if i % 2 else two).append(make(i))
    assert two.feedback("request-1", [event("e"), event("off", 1, 7)], AT).accepted == 1
    assert one.feedback("request-1", [event("e")], AT + timedelta(minutes=1)).repeated == 1
    one.feedback("unknown", [event("early")], AT)
    taken = drain(server, path)
    assert (taken.decisions, taken.reports, taken.refused) == (20, 3, 0)
    with DecisionLog(tmp_path / "direct.sqlite") as direct, DecisionLog(path) as log:
        for i in range(20):
            direct.append(make(i))
        expected = {row.request_id: (row.record, row.checksum, row.shown) for row in direct.stored()}
        assert {row.request_id: (row.record, row.checksum, row.shown) for row in log.stored()} == expected
        found = log.joined("request-1")
        assert found is not None
        assert (found.events, found.listened_s[0, 0]) == (1, 40.0)
        assert log.stats().quarantined == 1
        assert log.marks("request-1") == ()
    assert verify(path).ok
    assert connect(server.url).xlen("bart:log") <= 1  # what was acknowledged is trimmed


def test_a_retry_is_taken_once_and_another_decision_of_its_id_is_refused(
    server: Any, host: Host, tmp_path: Path
) -> None:
    one, two = host(), host()
    one.append(make(1))
    two.append(make(1))  # the same on another host
    with pytest.raises(LogError, match="known already, with another decision"):
        two.append(make(2, request_id="request-1"))
    found = two.get("request-1")
    assert found is not None
    assert found.seed == 1
    assert drain(server, tmp_path / "log.sqlite").decisions == 1


def test_while_redis_is_away_the_host_keeps_what_it_acknowledges_and_sends_it_on_marked(
    server: Any, host: Host, tmp_path: Path
) -> None:
    path = tmp_path / "log.sqlite"
    sink = host()
    sink.append(make(0))
    server.kill()
    for i in range(1, 8):
        sink.append(make(i))
    sink.append(make(3))
    with pytest.raises(LogError, match="with another decision"):
        sink.append(make(9, request_id="request-3"))
    assert sink.feedback("request-3", [event("a"), event("b", 1, 9)], AT).rejected[0].index == 1
    assert len(sink.spool) == 8
    assert sink.get("request-3") is not None
    assert sink.forward() == 0
    server.start()
    sink._away_until = 0.0
    sink.append(make(8))
    assert sink.forward() == 8
    assert len(sink.spool) == 0
    drain(server, path)
    with DecisionLog(path) as log:
        assert len(log) == 9
        assert [i for i in range(9) if log.marks(f"request-{i}") == ("spooled",)] == list(range(1, 8))
        order = [row.request_id for row in log.stored()]
        assert [r for r in order if r not in ("request-0", "request-8")] == [f"request-{i}" for i in range(1, 8)]
        page = log.joined("request-3")
        assert page is not None
        assert page.events == 1
        erase_user(log, "user-3", AT)
        with log.reading() as connection:
            assert count_marks(connection) == {"spooled": 6}
    assert verify(path).ok


def test_two_decisions_of_one_id_by_hosts_that_could_not_see_each_other_are_both_kept(
    server: Any, host: Host, tmp_path: Path
) -> None:
    one, two = host(), host()
    server.kill()
    one.append(make(1))
    two.append(make(2, request_id="request-1"))
    server.start()
    one._away_until = two._away_until = 0.0
    assert (one.forward(), two.forward()) == (1, 1)
    drain(server, tmp_path / "log.sqlite")
    refused = connect(server.url).xrange("bart:log:refused")
    with DecisionLog(tmp_path / "log.sqlite") as log:
        kept = log.get("request-1")
    assert kept is not None
    assert kept.seed == 1
    assert len(refused) == 1
    assert refused[0][1][b"request_id"] == b"request-1"


def test_what_cannot_be_read_goes_aside_and_erased_pages_go_nowhere(server: Any, host: Host, tmp_path: Path) -> None:
    path, sink, client = tmp_path / "log.sqlite", host(), connect(server.url)
    sink.append(make(1))
    drain(server, path)
    with DecisionLog(path) as log:
        erase_user(log, "user-1", AT)
    sink.forget(["request-1"])
    sink.append(make(1))  # a spool that was late
    number = client.xadd("bart:log", {"kind": "decision", "request_id": "x", "checksum": b"0" * 16, "body": b"torn"})
    sink.append(make(2))
    drain(server, path)
    aside = client.xrange("bart:log:refused")
    assert [(fields[b"request_id"], fields[b"body"]) for _, fields in aside] == [(b"x", b"torn")]
    assert b"torn" in aside[0][1][b"reason"]
    assert number
    with DecisionLog(path) as log:
        assert "request-1" not in log
        assert "request-2" in log


def test_what_a_dead_consumer_had_taken_comes_to_another(server: Any, host: Host, tmp_path: Path) -> None:
    sink, client = host(), connect(server.url, 10.0)
    for i in range(6):
        sink.append(make(i))
    client.xgroup_create("bart:log", "log", id="0")
    taken = client.xreadgroup("log", "dead", {"bart:log": ">"}, count=4)  # and never acknowledged
    assert len(taken[0][1]) == 4
    time.sleep(0.06)
    done = drain(server, tmp_path / "log.sqlite", claim_after_s=0.05)
    assert (done.entries, done.claimed, done.decisions) == (6, 4, 6)
    with DecisionLog(tmp_path / "log.sqlite") as log:
        assert len(log) == 6


def test_redis_and_consumer_killed_in_turn_lose_and_double_nothing(server: Any, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    sink = host()
    pages: set[str] = set()
    events: set[tuple[str, str]] = set()
    over = threading.Event()

    def work() -> None:
        i = 0
        while not over.is_set():
            decision = make(i)
            sink.append(decision)
            pages.add(decision.request_id)
            row, column = np.argwhere(decision.page.shown)[0].tolist()
            if sink.feedback(decision.request_id, [event(f"e{i}", row, column)], AT).accepted:
                events.add((decision.request_id, f"e{i}"))
            i += 1

    def consumer(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "api.cli", "log", "consume", "--redis", server.url, "--log", str(path)]
        command += ["--consumer", f"c{number}", "--claim-after-s", "0.5"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def consumed() -> int:
        try:
            with DecisionLog(path, create=False) as log:
                return len(log)
        except LogError:
            return 0

    sink.start()
    thread = threading.Thread(target=work)
    running = consumer(0)
    thread.start()
    try:
        for turn in range(1, 3):
            before, until = consumed(), time.monotonic() + 60
            while consumed() <= before and time.monotonic() < until:
                time.sleep(0.05)
            if turn == 1:
                server.kill()
                time.sleep(0.4)
                server.start()
            else:
                running.kill()
                running.wait()
                running = consumer(turn)
        over.set()
        thread.join()
        until = time.monotonic() + 60
        while len(sink.spool) and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        over.set()
        running.kill()
        running.wait()
    time.sleep(0.6)
    drain(server, path, claim_after_s=0.5)
    with DecisionLog(path) as log, log.reading() as connection:
        logged = [r for (r,) in connection.execute("SELECT request_id FROM decision")]
        query = "SELECT request_id, event_id FROM feedback JOIN decision USING (seq)"
        told = connection.execute(query).fetchall()
        marked = count_marks(connection)
    assert len(pages) > 20
    assert len(logged) == len(set(logged))
    assert set(logged) == pages
    assert len(told) == len(set(told))
    assert set(told) >= events
    assert marked.get("spooled", 0) > 0
    assert verify(path).ok


def test_what_waits_is_counted_past_the_last_delivered_entry_also_after_a_restart(
    server: Any, host: Host, tmp_path: Path
) -> None:
    sink = host()
    for i in range(6):
        sink.append(make(i))
    client = connect(server.url, 10.0)
    with DecisionLog(tmp_path / "log.sqlite") as log:
        receiver = StreamConsumer(client, log, block_s=0.05)
        receiver.step()  # makes the group and takes all
        for i in range(6, 10):
            sink.append(make(i))
        client.xreadgroup("log", "another", {"bart:log": ">"}, count=1)
        assert receiver.waiting() == 4
        server.kill()
        server.start()
        assert client.xinfo_groups("bart:log")[0]["lag"] is None  # the server does not know any more
        assert receiver.waiting() == 4
        newest = client.xrevrange("bart:log", count=1)[0][0]
        client.xdel("bart:log", newest)
        assert receiver.waiting() == 3
    client.close()


@pytest.mark.parametrize("claims", [False, True])
def test_what_is_trimmed_while_it_is_pending_is_lost_counted_and_never_refused(
    server: Any, host: Host, tmp_path: Path, claims: bool
) -> None:
    """Whether its own consumer comes back for it or another one claims it."""
    sink = host()
    client = connect(server.url, 10.0)
    with DecisionLog(tmp_path / "log.sqlite", synchronous="FULL") as log:
        StreamConsumer(client, log, consumer="one", block_s=0.01).step()
        for i in range(5):
            sink.append(make(i))
        client.xreadgroup("log", "one", {"bart:log": ">"})  # delivered to it, and then it dies
        client.xtrim("bart:log", maxlen=3, approximate=False)
        after = StreamConsumer(client, log, consumer="two" if claims else "one", claim_after_s=1e-3, block_s=0.01)
        if not claims:
            after._claimed_at = float("inf")  # its own entries first
        time.sleep(0.01)
        taken = after.run(threading.Event(), until_empty=True)
        assert (taken.decisions, taken.lost, taken.refused) == (3, 2, 0)
        assert client.xlen("bart:log:refused") == 0
        assert after.waiting() == 0
        with log.reading() as connection:
            assert (get_meta(connection, LOST), get_meta(connection, REFUSED) or 0) == (2, 0)
    client.close()
