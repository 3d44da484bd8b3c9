"""A service whose states, sessions and decisions go through Redis: as without it, also while Redis is away."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis_server as _servers

from api.hosts.shared import StreamedLog, listener_store, warnings_of
from api.hosts.stream_consumer import StreamConsumer
from api.run.runs import RunPaths
from api.run.settings import Settings, load_settings
from api.service.service import HomeService, open_service
from api.upkeep.listener_admin import erase_listener
from api.wire.schemas import FeedbackItem, FeedbackRequest, HomeRequest, Play, SessionRequest
from bart.bundle import open_bundle
from bart.errors import StoreError
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from recommender.states.redis_store import connect

pytestmark = pytest.mark.skipif(bool(_servers.why_absent()), reason=_servers.why_absent())

USER = "listener-03"
NOW = datetime.now(timezone.utc)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    made = _servers.RedisServer(tmp_path / "redis")
    yield made
    made.close()


def settings(url: str = "", stream: bool = True) -> Settings:
    page = {"rows": 4, "columns": 5, "per_shelf": 12}
    return load_settings({"page": page, "store": {"url": url, "stream": stream}})


def home(service: HomeService, key: str | None = None, **fields: Any) -> Any:
    return json.loads(service.home(HomeRequest(user_id=USER, idempotency_key=key, **fields)))


def report(service: HomeService, number: int) -> str:
    began = NOW - timedelta(hours=20 - number)
    plays = [Play(item_id=f"item-{number:02d}", listened_s=150.0), Play(item_id="item-11", listened_s=150.0)]
    told = SessionRequest(user_id=USER, session_id=f"s{number}", final=True, started_at=began, plays=plays)
    return str(service.listening.report(told, NOW)["status"])


def consume(url: str, log: Path) -> None:
    client = connect(url, 10.0)
    with DecisionLog(log) as opened:
        StreamConsumer(client, opened, consumer="test", block_s=0.05).run(threading.Event(), until_empty=True)
    client.close()


def test_two_hosts_share_states_sessions_and_retries_and_write_one_log(
    small_run: Path, tmp_path: Path, server: Any
) -> None:
    other = Path(shutil.copytree(small_run, tmp_path / "other", symlinks=True))
    alone = Path(shutil.copytree(small_run, tmp_path / "alone", symlinks=True))
    seen = {"seed": 5, "at": NOW}
    with open_service(alone, settings()) as service:
        report(service, 1)
        report(service, 2)
        expected = home(service, **seen)
    (small_run / "service.key").write_bytes(b"k" * 32)
    (other / "service.key").write_bytes(b"k" * 32)  # the hosts of one run have one key
    with open_service(small_run, settings(server.url)) as one, open_service(other, settings(server.url)) as two:
        assert (report(one, 1), report(two, 1), report(two, 2)) == ("committed", "repeated", "committed")
        page = home(one, **seen)
        assert [s["cards"] for s in page["shelves"]] == [s["cards"] for s in expected["shelves"]]
        first, again = home(one, "key"), home(two, "key")
        assert first["request_id"] == again["request_id"]
        assert first["shelves"] == again["shelves"]
        event = FeedbackItem(event_id="e", row=0, column=0, seen=True, listened_s=40.0)
        told = FeedbackRequest(request_id=first["request_id"], events=[event])
        assert two.feedback(told).accepted == 1
        assert one.feedback(told).repeated == 1
        consume(server.url, small_run / "log.sqlite")
        assert len(one.log) == 2
        assert len(two.log) == 0  # its file is not the one log
        joined = one.log.joined(first["request_id"])
        assert joined is not None
        assert joined.seen[0, 0]
        assert erase_listener(one, USER, NOW)["pages"] == 2
        assert one.log.get(first["request_id"]) is None
        assert two.log.get(first["request_id"]) is None
        assert two.run.store.get(USER) is None
    assert verify(small_run / "log.sqlite").ok


@pytest.mark.parametrize("stream", [True, False])
def test_while_redis_is_away_pages_come_from_this_host_and_are_marked(
    small_run: Path, server: Any, stream: bool
) -> None:
    with open_service(small_run, settings(server.url, stream)) as service:
        before = home(service)["request_id"]
        server.kill()
        away = [home(service)["request_id"] for _ in range(3)]
        with pytest.raises(StoreError):
            report(service, 3)  # refused rather than lost: the client sends it again
        server.start()
        service.run.store._away_until = 0.0  # type: ignore[attr-defined]
        if isinstance(service.log, StreamedLog):
            service.log.sink._away_until = 0.0
        assert report(service, 3) == "committed"
        after = home(service)["request_id"]
        if isinstance(service.log, StreamedLog):
            while len(service.log.sink.spool):
                threading.Event().wait(0.05)
            consume(server.url, small_run / "log.sqlite")
        expected = ("embedded_state", "spooled") if stream else ("embedded_state",)
        assert [service.log.marks(r) for r in away] == [expected] * 3
        assert [service.log.marks(r) for r in (before, after)] == [(), ()]
        assert len(service.log) == 5
    assert verify(small_run / "log.sqlite").ok


def test_a_service_starts_while_redis_is_away_and_brings_its_listeners_when_it_comes(
    small_run: Path, server: Any
) -> None:
    server.kill()
    with open_service(small_run, settings(server.url)) as service:
        assert home(service)["shelves"]
        server.start()
        service.run.store._away_until = 0.0  # type: ignore[attr-defined]
        assert report(service, 1) == "committed"
        row = service.run.store.get(USER)
    bundle = open_bundle(small_run / "bundle")
    with closing(listener_store(RunPaths(small_run), bundle)) as embedded:
        was = embedded.get(USER)
    assert row is not None
    assert was is not None
    assert row.state[2] == was.state[2] + 1  # no stranger was made of a known listener


def test_a_session_that_was_claimed_when_redis_went_can_be_reported_again_and_counts_once(
    small_run: Path, server: Any
) -> None:
    with open_service(small_run, settings(server.url)) as service:
        sessions = service.listening.sessions
        assert sessions.claim(USER, "s1", int(NOW.timestamp()))  # and the server went before the commit
        assert report(service, 1) == "committed"
        assert report(service, 1) == "repeated"
        row = service.run.store.get(USER)
        assert row is not None
        counted = row.state[2]
        [told] = [body.partition(b"\n")[2] for _, name, body in sessions.finished(0, USER) if name == "s1"]
        sessions.settle(USER, "s1", b"@%d\n%s" % (NOW.timestamp(), told))  # or it went after the commit
        assert report(service, 1) == "committed"
        row = service.run.store.get(USER)
        assert row is not None
        assert row.state[2] == counted


def test_a_server_that_was_emptied_while_it_served_gets_its_listeners_back(small_run: Path, server: Any) -> None:
    with open_service(small_run, settings(server.url, stream=False)) as service:
        assert service.ready()["status"] == "ok"
        before = service.run.store.get(USER)
        assert before is not None
        client = connect(server.url)
        client.flushall()
        service.run.store._marker_seen = float("-inf")  # type: ignore[attr-defined]
        found = service.run.store.get(USER)  # a known listener is no stranger meanwhile
        assert found is not None
        assert found.state.tolist() == before.state.tolist()
        until = time.monotonic() + 30
        while service.run.store._refilling and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.02)
        assert service.ready()["status"] == "ok"
        assert client.exists(f"bart:listener:{service.run.bundle.batch_id}:{USER}")
        client.flushall()
        with pytest.raises(StoreError, match="was emptied"):
            service.ready()  # noticed without a listener who is asked for
        refiller = service.run.store._refiller  # type: ignore[attr-defined]
        client.close()
    assert not refiller.is_alive(), "what is read in the background ends before the store is closed"


def test_settings_that_may_lose_what_was_acknowledged_are_told(server: Any) -> None:
    client = connect(server.url)
    assert list(warnings_of(client)) == []
    client.config_set("appendfsync", "everysec")
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert [text.split(":")[0] for text in warnings_of(client)] == [
        "appendfsync is everysec",
        "maxmemory-policy is allkeys-lru",
    ]
    client.config_set("appendonly", "no")
    assert next(warnings_of(client)).startswith("appendonly is off")
    client.close()


def test_the_address_of_the_store_is_in_no_bundle_and_no_report() -> None:
    assert "secret" not in json.dumps(settings("redis://:secret@host:1/0").as_dict())
