"""What a store keeps of a listener gives the vector that the events would have given, at once and in either store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from user_world import DAY_S, UserWorld, user_world

from bart.errors import SchemaMismatch
from bart.types import Context
from recommender.features.tables import Histories
from recommender.listener.model import MemoryListener, Session
from recommender.states.states import SqliteListenerStore
from recommender.states.store import Heard
from recommender.users.encoder import EncoderConfig
from recommender.users.features import Known
from recommender.users.snapshots import moments, played_after
from recommender.users.training import Lessons, train_encoder
from recommender.users.vectors import UserSpace


@pytest.fixture(scope="module")
def world() -> UserWorld:
    return user_world(days=16)


@pytest.fixture(scope="module")
def space(world: UserWorld) -> UserSpace:
    users = world.timeline().until(world.end_s).users
    past = moments(world.timeline(), world.features, [world.end_s - 7 * DAY_S], users)
    later, plays = played_after(world.events, world.items, past), world.tables.of_all[:, 0].astype(np.float64)
    lessons = Lessons.of(world.features, past, later, plays, np.random.default_rng(0))
    config = EncoderConfig(dimension=6, hidden=8, epochs=2, batch=16)
    return UserSpace(world.features, train_encoder(lessons, world.features, config, 1), "a")


@pytest.fixture
def store(world: UserWorld, space: UserSpace, tmp_path: Path) -> Iterator[SqliteListenerStore]:
    histories = Histories(world.items, world.tables)
    made = SqliteListenerStore(tmp_path / "l.sqlite", MemoryListener(8), "a", histories=histories)
    made.users = space
    yield made
    made.close()


AT = datetime(2024, 4, 2, 8, 30, tzinfo=timezone.utc)


def session(world: UserWorld, item: np.ndarray, hours: int = 0) -> Session:
    at = AT + timedelta(hours=hours)
    context = Context(at, 60, "desktop")
    return Session.of(context, at + timedelta(minutes=9), world.items.vector[item], np.zeros(len(item), np.bool_))


def test_a_reported_session_moves_the_vector_before_the_next_request(
    world: UserWorld, store: SqliteListenerStore
) -> None:
    later = (AT + timedelta(hours=1)).timestamp()
    assert not store.user_vector("anna", later).vector.any()
    item = np.array([3, 4, 5])
    store.advance("anna", session(world, item), item)
    first = store.user_vector("anna", later).vector
    assert first.any()
    other = np.array([60, 61, 62])
    store.advance("anna", session(world, other, 1), other)
    assert not np.allclose(store.user_vector("anna", later).vector, first)


def test_a_running_session_counts_and_is_not_committed(world: UserWorld, store: SqliteListenerStore) -> None:
    item = np.array([3, 4, 5])
    store.advance("anna", session(world, item), item)
    at_s = (AT + timedelta(hours=1)).timestamp()
    before = store.user_vector("anna", at_s).vector
    running = store.user_vector("anna", at_s, Heard.of(np.array([70, 71]), (), int(at_s))).vector
    assert not np.allclose(running, before)
    np.testing.assert_array_equal(store.user_vector("anna", at_s).vector, before)


def test_the_store_knows_of_a_listener_what_the_events_say(world: UserWorld, store: SqliteListenerStore) -> None:
    timeline = world.timeline().until(world.end_s + DAY_S)
    user = timeline.users[0]
    known = timeline.known(user)
    row = store.get(user)
    assert row is None
    rows = world.items.rows(world.accounts.picked.get(user, ()))
    country = world.accounts.country.get(user, "")
    made = datetime.fromtimestamp(world.accounts.made_at_s[user], tz=timezone.utc)
    if len(rows):
        store.onboard(user, rows, world.items.vector[rows], Context(made, country=country))
    own = world.events.filter(np.array(world.events["user_id"].to_pylist()) == user).to_pylist()
    for start in range(0, len(own), 6):
        tracks = own[start : start + 6]
        item = world.items.rows([one["item_id"] for one in tracks])
        skipped = np.array([one["skipped"] for one in tracks])
        last = tracks[-1]
        ended = last["started_at"] + timedelta(seconds=last["listened_s"])
        context = Context(tracks[0]["started_at"], 0, tracks[0]["device"])
        told = Session.of(context, ended, world.items.vector[item], skipped)
        store.advance(user, told, item[~skipped], skipped=item[skipped])
    stored = store.get(user)
    assert stored is not None
    same = ("hours", "devices", "lengths", "genres", "skipped", "onboarding")
    at_s = world.end_s + 3600.0
    features = world.features
    online = features.row(Known(stored.history, stored.usage, stored.made_at_s), at_s)
    offline = features.row(known, at_s)
    for name in same:
        of = features.slices[name]
        np.testing.assert_allclose(online[of], offline[of], atol=1e-4, err_msg=name)
    # a session's plays are counted from its beginning: within minutes, of half-lives of days
    of = features.slices["content"]
    np.testing.assert_allclose(online[of], offline[of], atol=0.02)


def test_everybody_is_encoded_as_alone(world: UserWorld, store: SqliteListenerStore) -> None:
    for number, user in enumerate(("anna", "bert", "cleo")):
        item = np.arange(3) + 10 * number
        store.advance(user, session(world, item), item)
    at_s = (AT + timedelta(days=1)).timestamp()
    every = store.user_vectors(at_s)
    assert every.user_id.tolist() == ["anna", "bert", "cleo"]
    for row, user in enumerate(every.user_id.tolist()):
        np.testing.assert_allclose(every.vector[row], store.user_vector(user, at_s).vector[0], atol=1e-5)


def test_a_batch_without_an_encoder_says_what_is_missing(store: SqliteListenerStore) -> None:
    store.users = None
    for ask in (lambda: store.user_vector("anna", 0.0), lambda: store.user_vectors(0.0)):
        with pytest.raises(SchemaMismatch, match=r"expected a build with listener\.users"):
            ask()


def test_saves_and_picks_are_kept(world: UserWorld, store: SqliteListenerStore) -> None:
    rows = np.array([8, 9])
    store.onboard("anna", rows, world.items.vector[rows], Context(AT, country="SE"))
    store.saved("anna", np.array([20]), 3)
    row = store.get("anna")
    assert row is not None
    assert (row.usage.picked.tolist(), row.usage.saved.tolist(), row.usage.country) == ([8, 9], [20], "SE")
