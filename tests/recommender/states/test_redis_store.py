"""Listeners in Redis: equal to the ones in SQLite step by step, and none lost or counted twice when Redis is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis_server as _servers

from bart.errors import SchemaMismatch, StoreError
from bart.types import Context
from recommender.listener.model import MemoryListener, Session, session_columns
from recommender.states.redis_store import RedisListenerStore, connect, stored_batches
from recommender.states.resting import RestConfig
from recommender.states.states import SqliteListenerStore
from recommender.states.store import ListenerRow

RedisServer, why_absent = _servers.RedisServer, _servers.why_absent

pytestmark = pytest.mark.skipif(bool(why_absent()), reason=why_absent())
AT = datetime(2024, 4, 2, 8, 30, tzinfo=timezone.utc)
MODEL = MemoryListener(4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    yield made
    made.close()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    made = connect(server.url)
    made.flushall()
    yield made
    made.close()


def session(number: int, minutes: int = 20, d: int = 4) -> Session:
    """The number-th session of a day, of two tracks."""
    at = AT + timedelta(hours=number)
    track = np.random.default_rng(number).standard_normal((2, d)).astype(np.float32)
    return Session.of(Context(at, 60, "mobile"), at + timedelta(minutes=minutes), track, np.zeros(2, np.bool_))


def same(one: ListenerRow | None, other: ListenerRow | None) -> None:
    assert (one is None) == (other is None)
    if one is not None:
        for f in fields(ListenerRow):
            if f.name == "usage":
                assert one.usage.to_bytes() == other.usage.to_bytes()  # type: ignore[union-attr]
                continue
            np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


def test_any_series_of_calls_leaves_the_same_rows_in_redis_and_in_sqlite(client: Any, tmp_path: Path) -> None:
    cold = np.full(4, 0.5, dtype=np.float32)
    redis = RedisListenerStore(client, MODEL, "b", cold_vector=cold)
    sqlite = SqliteListenerStore(tmp_path / "l.sqlite", MODEL, "b", cold_vector=cold)
    rng = np.random.default_rng(3)
    users = ["anna", "user:with:colons", "Ünïcode \N{SNOWMAN}"]
    rest = RestConfig(times=2, days=1.0)
    rested = 0
    for step in range(300):
        user = users[rng.integers(3)]
        kind = rng.integers(7)
        item = rng.integers(0, 9, 3)
        results = []
        for store in (redis, sqlite):
            if kind < 2:
                got: Any = store.advance(user, session(step), item).vector
            elif kind == 2:
                columns = session_columns(session(step - 2), ("",))
                got = store.catch_up(user, columns, [item])
            elif kind == 3:
                at, page = AT + timedelta(hours=step), f"page {step % 5}"
                got = store.saw(user, page, item, item[:1] if step % 3 == 0 else item[:0], at, rest)
            elif kind == 4:
                try:
                    got = store.onboard(user, item, np.eye(4, dtype=np.float32)[:3], Context(AT)).vector
                except ValueError as error:
                    got = str(error)
            elif kind == 5 and step % 4 == 0:
                got = store.forget(user)
            else:
                got = store.listener(user, Context(AT), session(step) if step % 2 else None).vector
            results.append(got)
        np.testing.assert_array_equal(results[0], results[1])
        for name in users:
            same(redis.get(name), sqlite.get(name))
        assert redis.user_ids() == sqlite.user_ids()
        assert len(redis) == len(sqlite)
        assert redis.last_heard_s(user) == sqlite.last_heard_s(user)
        rested += max((len(row.rested) for row in map(redis.get, users) if row is not None), default=0)
    assert rested > 20


def test_every_field_of_a_row_comes_back(client: Any) -> None:
    store = RedisListenerStore(client, MODEL, "b")
    state = MODEL.initial(np.array([0.0]))[0] + np.float32(0.1)
    full = ListenerRow(
        "u", state, np.arange(3), np.arange(2), np.array([7]), 0, 0.0, 0.25, frozenset({"a", "é"}),
        np.ones(4, dtype=np.float32),
    )  # fmt: skip
    bare = ListenerRow("v", state)
    assert store.put_many([full, bare]) == 2
    same(store.get("u"), full)
    same(store.get("v"), bare)
    other = ListenerRow("u", state * 2)
    assert store.fill([other, ListenerRow("w", state)]) == 2
    same(store.get("u"), full)  # who was there stays
    assert store.user_ids() == ["u", "v", "w"]


def test_ids_come_page_by_page_in_order_and_those_of_an_earlier_version_too(client: Any) -> None:
    store = RedisListenerStore(client, MODEL, "b")
    state = MODEL.initial(np.array([0.0]))[0]
    ids = [f"u{i:04d}" for i in range(1200)] + ["é", "v"]
    store.put_many(ListenerRow(user, state) for user in ids)
    assert store.ids_from("u11", "u1150", 3) == ["u1151", "u1152", "u1153"]
    assert store.ids_from("u2") == []
    assert store.ids_from("", "u1199") == ["v", "é"]
    client.delete("bart:ids:b")
    client.sadd("bart:listeners:b", *ids)  # as earlier versions kept them
    store = RedisListenerStore(client, MODEL, "b")
    assert store.user_ids() == sorted(ids)
    assert not client.exists("bart:listeners:b")
    assert store.forget("v") == 1
    assert len(store) == len(ids) - 1
    store.drop_batch("b")
    assert client.keys("bart:*:b*") == []


def test_sessions_that_come_at_once_are_all_committed(client: Any, server: RedisServer) -> None:
    clients = [connect(server.url, 10.0) for _ in range(4)]

    def work(number: int) -> None:
        mine = RedisListenerStore(clients[number], MODEL, "b")
        for k in range(25):
            mine.advance("u", session(k), [100 * number + k])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = RedisListenerStore(client, MODEL, "b").get("u")
    assert row is not None
    assert row.state[2] == 100  # sessions
    for one in clients:
        one.close()


def test_a_commit_whose_answer_was_lost_is_not_made_twice(client: Any) -> None:
    store = RedisListenerStore(client, MODEL, "b")
    lost = _LosesAnswers(client, 1)
    careless = RedisListenerStore(lost, MODEL, "b")
    careless.advance("u", session(1), [1])  # tries again by itself, and finds it done
    row = store.get("u")
    assert lost.lost == 1
    assert row is not None
    assert row.state[2] == 1
    store.advance("u", session(2), [2], once="s2")
    store.advance("u", session(2), [2], once="s2")  # a client that got no answer sends the same again
    store.advance("u", session(3), [2], once="s3")
    row = store.get("u")
    assert row is not None
    assert row.state[2] == 3


class _LosesAnswers:
    """A client whose first EXECs are carried out and then look like a broken connection."""

    def __init__(self, client: Any, times: int) -> None:
        self._client, self._times, self.lost = client, times, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self) -> Any:
        from redis.exceptions import WatchError

        pipe = self._client.pipeline()
        carry_out = pipe.execute

        def execute() -> Any:
            found = carry_out()
            if self.lost < self._times:
                self.lost += 1
                raise WatchError("A ConnectionError occurred while watching one or more keys")
            return found

        pipe.execute = execute
        return pipe


def test_batches_are_apart_and_a_state_of_another_model_is_refused(client: Any) -> None:
    old, new = RedisListenerStore(client, MODEL, "old"), RedisListenerStore(client, MemoryListener(6), "new")
    old.advance("u", session(1), [1])
    assert new.get("u") is None
    new.advance("u", session(1, d=6), [2])
    assert stored_batches(client) == {"old", "new"}
    with pytest.raises(SchemaMismatch, match="different batches cannot be compared"):
        RedisListenerStore(client, MemoryListener(6), "old")
    with pytest.raises(SchemaMismatch, match="different batches cannot be compared"):
        new.put_many([ListenerRow("u", np.zeros(7, dtype=np.float32))])
    old.saw("u", "page", np.array([1]), np.array([], dtype=np.int64), AT)
    old.drop_batch("old")
    assert (old.get("u"), len(old), stored_batches(client)) == (None, 0, {"new"})
    assert new.forget("u") == 1
    left = {key.decode().split(":")[1] for key in client.keys("*")} - {"done", "batches"}
    assert left == set()


def test_acknowledged_sessions_outlive_a_killed_server(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        client = connect(server.url)
        store = RedisListenerStore(client, MODEL, "b")
        acknowledged = 0
        over = threading.Event()

        def work() -> None:
            nonlocal acknowledged
            while not over.is_set():
                try:
                    store.advance("u", session(acknowledged), [acknowledged], once=f"s{acknowledged}")
                    acknowledged += 1
                except StoreError:
                    over.wait(0.01)  # the client sends the same session again

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(3):
            over.wait(0.3)
            server.kill()
            over.wait(0.1)
            server.start()
        over.wait(0.3)
        over.set()
        thread.join()
        row = store.get("u")
        assert row is not None
        assert acknowledged > 10
        # A session that was under way at the end may be in, unacknowledged; none is missing and none is in twice.
        assert int(row.state[2]) in (acknowledged, acknowledged + 1)
        client.close()
    finally:
        server.close()


def test_while_redis_is_away_reading_falls_back_and_writing_says_so(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    client = connect(server.url)
    try:
        embedded = SqliteListenerStore(tmp_path / "l.sqlite", MODEL, "b")
        embedded.advance("u", session(1), [1])
        store = RedisListenerStore(client, MODEL, "b", fallback=embedded)
        store.advance("u", session(1), [1])
        store.advance("u", session(2), [2])
        row = store.get("u")
        assert row is not None
        assert (row.state[2], store.stale) == (2, False)
        server.kill()
        row = store.get("u")
        assert row is not None
        assert (row.state[2], store.stale) == (1, True)
        assert store.user_ids() == ["u"]
        with pytest.raises(StoreError, match="does not serve"):
            store.advance("u", session(3), [3])
        server.start()
        store._away_until = 0.0
        row = store.get("u")
        assert row is not None
        assert (row.state[2], store.stale) == (2, False)
    finally:
        client.close()
        server.close()


def test_what_is_no_address_is_a_mistake_in_one_line() -> None:
    with pytest.raises(ValueError, match="expected redis://HOST:PORT/DB"):
        connect("localhost:6379")
