"""Wishes are kept for good, by one host or by several, and forgotten to the last byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis_server as _servers
from hypothesis import given
from hypothesis import strategies as st

from bart.errors import StoreError
from bart.types.wishes import MODES, NO_WISHES, Wishes
from recommender.states.preferences import LeftOut, SqlitePreferences, body_of, subject_of, wishes_of
from recommender.states.redis_preferences import RedisPreferences
from recommender.states.redis_store import connect

WISHES = Wishes(frozenset({"Ann", "Björk"}), frozenset({"t1"}), frozenset({"t2"}), frozenset({"Cat"}), False)
names = st.frozensets(st.text(max_size=5), max_size=3)


@given(st.builds(Wishes, names, names, names, names, st.booleans(), st.sampled_from(MODES)))
def test_wishes_come_back_as_they_were_written(wishes: Wishes) -> None:
    assert wishes_of(body_of(wishes)) == wishes
    with pytest.raises(StoreError, match="stored preferences cannot be read"):
        wishes_of(json.dumps({"more": 1}))


def test_a_reader_that_was_there_before_the_first_wish_sees_it(tmp_path: Path) -> None:
    file = tmp_path / "preferences.sqlite"
    with closing(SqlitePreferences(file)) as reader, closing(SqlitePreferences(file)) as writer:
        assert reader.get("u") == NO_WISHES
        assert not file.exists()
        assert writer.change("u", lambda _: WISHES) == WISHES
        assert reader.get("u") == WISHES
        writer.change("u", lambda _: NO_WISHES)
        assert (reader.get("u"), list(reader.stored())) == (NO_WISHES, [])


def test_no_change_of_several_writers_at_once_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "preferences.sqlite"
    stores = [SqlitePreferences(file) for _ in range(4)]

    def add(number: int) -> None:
        for k in range(10):
            stores[number].change(
                "u",
                lambda w, k=k: replace(w, blocked_items=w.blocked_items | {f"{number} {k}"}),  # type: ignore[misc]
            )

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].get("u").blocked_items) == 40
    for store in stores:
        store.close()


def test_an_erasure_leaves_no_byte_of_the_listener_and_keeps_what_they_did_before_out(tmp_path: Path) -> None:
    at = pa.array([10, 20, 30, 10], pa.timestamp("us", "UTC"))
    events = pa.table({"user_id": ["gone", "gone", "gone", "quiet"], "started_at": at})
    others = pa.table({"user_id": ["other"], "started_at": pa.array([10], pa.timestamp("us", "UTC"))})
    with closing(SqlitePreferences(tmp_path / "preferences.sqlite")) as store:
        assert store.left_out().without(events) is events
        store.change("gone", lambda _: WISHES)
        store.change("quiet", lambda w: replace(w, mode="not_profiled"))
        assert store.erase("gone", 20) == 1
        assert store.erase("gone", 20) == 0
        assert store.get("gone") == NO_WISHES
        assert store.left_out() == LeftOut(frozenset({"quiet"}), {subject_of("gone"): 20})
        assert store.left_out().without(events).to_pylist() == events.slice(2, 1).to_pylist()
        assert store.left_out().without(others) is others
        assert b"gone" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
        store.erase("quiet", 5, wishes=False)
        assert store.get("quiet").mode == "not_profiled"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    if _servers.why_absent():
        pytest.skip(_servers.why_absent())
    made = _servers.RedisServer(tmp_path / "redis")
    yield made
    made.kill()


def test_hosts_share_wishes_keep_copies_and_bring_them_back_to_an_emptied_server(server: Any, tmp_path: Path) -> None:
    client = connect(server.url)
    one, two = (RedisPreferences(client, SqlitePreferences(tmp_path / f"{name}.sqlite")) for name in ("one", "two"))
    assert (one.follow(), two.follow()) == (False, False)
    one.change("u", lambda _: WISHES)
    one.change("quiet", lambda w: replace(w, mode="not_profiled"))
    assert two.get("u") == WISHES  # at once
    assert two.follow()
    server.kill()
    assert two.get("u") == WISHES  # from the copy
    with pytest.raises(StoreError):
        two.change("u", lambda _: NO_WISHES)
    server.start()
    client.flushall()
    assert two.get("u") == WISHES
    assert two.follow()
    assert wishes_of(client.hget("bart:preferences", "u").decode()) == WISHES
    one.follow()
    assert one.erase("u", 7) == 1
    two.follow()
    assert two.get("u") == NO_WISHES
    assert two.left_out() == LeftOut(frozenset({"quiet"}), {subject_of("u"): 7})
    one.erase("quiet", 8, wishes=False)
    two.follow()
    assert two.get("quiet").mode == "not_profiled"
    assert two.left_out().erased_us[subject_of("quiet")] == 8
    assert not [key for key in client.scan_iter("*") if b"\0u" in key]
    one.close()
    two.close()
    client.close()


def test_an_emptied_server_gets_what_every_host_knows_and_hosts_follow_on(server: Any, tmp_path: Path) -> None:
    client = connect(server.url)
    copies = {name: SqlitePreferences(tmp_path / f"{name}.sqlite") for name in ("one", "two")}
    one, two = (RedisPreferences(client, copy) for copy in copies.values())
    for k in range(5):
        one.change(f"u{k}", lambda _: WISHES)
    one.erase("gone", 30)
    two.follow()
    copies["two"].change("only two's", lambda _: WISHES)  # the last change that the server did not keep
    client.flushall()
    one.change("u0", lambda w: replace(w, mode="not_profiled"))  # before anybody has followed
    assert wishes_of(client.hget("bart:preferences", "u4").decode()) == WISHES
    two.follow()
    two.follow()
    assert two.left_out() == LeftOut(frozenset({"u0"}), {subject_of("gone"): 30})
    one.follow()
    assert copies["one"].get("only two's") == WISHES
    assert {user for user, _ in copies["one"].stored()} == {user for user, _ in copies["two"].stored()}
    with closing(RedisPreferences(client, SqlitePreferences(tmp_path / "three.sqlite"))) as three:
        assert three.left_out() == two.left_out()
        three.change("u1", lambda _: NO_WISHES)
        two.follow()
        assert copies["two"].get("u1") == NO_WISHES
    one.close()
    two.close()
    client.close()


def test_the_moment_of_an_erasure_never_goes_back(server: Any, tmp_path: Path) -> None:
    client = connect(server.url)
    stores = (
        SqlitePreferences(tmp_path / "a.sqlite"),
        RedisPreferences(client, SqlitePreferences(tmp_path / "b.sqlite")),
    )
    for store in stores:
        store.erase("u", 20)
        store.erase("u", 10)  # of a request that had arrived before
        assert store.left_out().erased_us == {subject_of("u"): 20}
        store.close()
    client.close()
