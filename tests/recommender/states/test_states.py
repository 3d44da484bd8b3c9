"""Serving: states stepped in numpy equal the network, and the store gives back what was put into it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_listening import synthetic_listening

from bart.errors import BundleError
from bart.types import DEVICES, Context, Floats32
from recommender.listener.batches import SequenceData
from recommender.listener.cosernn import CoSeRNN, CoSeRNNConfig
from recommender.listener.memories import memory_vectors
from recommender.listener.training import predict_all
from recommender.sessions.sessions import Sessions, cut_sessions, unit
from recommender.states.favourites import refreshed_favourites
from recommender.states.states import (
    CoSeRNNListener,
    ListenerModel,
    ListenerRow,
    MemoryListener,
    Session,
    SqliteListenerStore,
    compute_states,
    load_listener_model,
)

AT = datetime(2024, 4, 2, 8, 30, tzinfo=timezone.utc)
VISIT = Context(AT, 60, "desktop")
VARIANTS = [
    {},
    {"input": "relu2"},
    {"pathways": ("played", "skipped", "all")},
    {"features": ("last", "tracks")},
    {"memory": ("average",)},
    {"memory": ("last", "average_same_context")},
]


def sessions(users: int = 5, days: int = 8) -> Sessions:
    w = synthetic_listening(np.random.default_rng(0), users=users, days=days)
    return cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)


def network(s: Sessions, **variant: object) -> CoSeRNN:
    torch.manual_seed(0)
    config = CoSeRNNConfig(dimension=8, hidden=12, width=16, sources=s.sources, **variant)  # type: ignore[arg-type]
    model = CoSeRNN(config)
    torch.nn.init.normal_(model.initial.weight)
    for value in model.parameters():
        value.data.mul_(2)  # far from the linear range of the gates
    return model.eval()


def session_at(s: Sessions, row: int) -> Session:
    c = s.columns
    at = datetime.fromtimestamp(int(c.started_s[row]), timezone.utc)
    context = Context(at, 0, DEVICES[c.device[row]])
    ended = datetime.fromtimestamp(int(c.ended_s[row]), timezone.utc)
    return Session(context, ended, int(c.n_tracks[row]), c.all[row], c.played[row], c.skipped[row],
                   s.sources[c.source[row]])  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_stepping_equals_the_network_over_the_full_sequence(variant: dict[str, object]) -> None:
    s = sessions()
    model = network(s, **variant)
    expected = predict_all(model, SequenceData(s, model.config.pathways, model.config.memory))
    served = CoSeRNNListener.of(model)
    for user in range(3):
        state = served.initial(s.account_age_d[[user]])[0]
        for row in range(s.offset[user], s.offset[user + 1]):
            session = session_at(s, row)
            assert served.predict(state, session.context) == pytest.approx(expected[row], abs=1e-5)
            state = served.advance(state, session)


@pytest.mark.parametrize("variant", [*VARIANTS, None])
def test_states_computed_at_once_equal_states_stepped_one_by_one(variant: dict[str, object] | None) -> None:
    s = sessions().before(1709251200 + 5 * 86400)
    s = s.take_users(np.array([3, 0, 2]))
    model: ListenerModel = MemoryListener(8) if variant is None else CoSeRNNListener.of(network(s, **variant))
    found = compute_states(model, s)
    for user in range(3):
        state = model.initial(s.account_age_d[[user]])[0]
        for row in range(s.offset[user], s.offset[user + 1]):
            state = model.advance(state, session_at(s, row))
        assert found[user] == pytest.approx(state, abs=1e-5)


def test_listeners_of_different_lengths_each_get_their_own_last_state() -> None:
    s = sessions()
    keep = np.sort(np.concatenate([np.arange(s.offset[u], s.offset[u + 1] - u) for u in range(5)]))
    cut = s._keep(keep, np.concatenate([[0], np.cumsum(s.size - np.arange(5))]), s.user_id, s.account_age_d)
    model = CoSeRNNListener.of(network(s))
    together = compute_states(model, cut)
    for user in range(5):
        assert together[user] == pytest.approx(compute_states(model, cut.take_users(np.array([user])))[0], abs=1e-5)


def test_a_state_of_another_length_predicts_nothing() -> None:
    model = CoSeRNNListener.of(network(sessions()))
    for state in (np.zeros(model.state_size - 1, np.float32), np.zeros(model.state_size + 1, np.float32)):
        with pytest.raises(ValueError, match="state has shape"):
            model.predict(state, VISIT)


def test_predicting_commits_nothing() -> None:
    s = sessions()
    model = CoSeRNNListener.of(network(s))
    state = compute_states(model, s)[0]
    before = state.copy()
    first = model.predict(state, VISIT)
    model.advance(state, session_at(s, 3))
    assert np.array_equal(state, before)
    assert np.array_equal(model.predict(state, VISIT), first)


def test_a_state_that_is_no_number_is_not_hidden() -> None:
    s = sessions()
    model = CoSeRNNListener.of(network(s))
    state = compute_states(model, s)[0]
    context = Context(datetime(2024, 3, 1, 8, tzinfo=timezone.utc))
    assert np.isfinite(model.predict(state, context)).all()
    assert np.isnan(model.predict(np.full_like(state, np.nan), context)).any()


def test_a_visit_later_in_the_day_may_be_asked_for_by_time_alone() -> None:
    s = sessions()
    model = CoSeRNNListener.of(network(s))
    state = compute_states(model, s)[0]
    later = AT + timedelta(hours=9)
    assert np.array_equal(model.predict(state, VISIT, later), model.predict(state, Context(later, 60, "desktop")))
    assert not np.array_equal(model.predict(state, VISIT, later), model.predict(state, VISIT))


def test_the_ema_is_the_decayed_average_of_played_sessions() -> None:
    s = sessions()
    model = MemoryListener(8)
    state = compute_states(model, s.take_users(np.array([1])))[0]
    rows = np.arange(s.offset[1], s.offset[2] - 1)  # all but the last session
    offset = np.array([0, len(rows)])
    shorter = compute_states(model, s._keep(rows, offset, s.user_id[1:2], s.account_age_d[1:2]))[0]
    assert model.predict(shorter, VISIT) == pytest.approx(memory_vectors(s, ("ema_0.8",))[rows[-1] + 1, 0], abs=1e-6)
    assert np.linalg.norm(model.predict(state, VISIT)) == pytest.approx(1, abs=1e-6)
    assert not model.predict(model.initial(np.array([np.nan]))[0], VISIT).any()


@pytest.mark.parametrize("variant", [*VARIANTS, None])
def test_a_saved_model_comes_back_the_same(tmp_path: Path, variant: dict[str, object] | None) -> None:
    s = sessions()
    model: ListenerModel = MemoryListener(8) if variant is None else CoSeRNNListener.of(network(s, **variant))
    model.save(tmp_path / "listener")
    again = load_listener_model(tmp_path / "listener")
    state = compute_states(model, s)
    assert np.array_equal(compute_states(again, s), state)
    assert np.array_equal(again.predict(state[0], VISIT), model.predict(state[0], VISIT))
    assert again.sources == model.sources


def test_a_folder_without_a_model_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no listener model"):
        load_listener_model(tmp_path)
    (tmp_path / "config.json").write_text('{"name": "oracle"}')
    with pytest.raises(BundleError, match="cosernn, ema"):
        load_listener_model(tmp_path)


def test_a_model_that_reads_the_current_source_cannot_serve() -> None:
    s = sessions()
    with pytest.raises(ValueError, match="current source"):
        CoSeRNNListener.of(network(s, features=("last", "current_source")))


# ---------------------------------------------------------------------------------------------------------------- store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteListenerStore]:
    cold = unit(np.ones((1, 8), dtype=np.float32))[0]
    opened = SqliteListenerStore(tmp_path / "listeners.sqlite", MemoryListener(8), "batch-1", cold_vector=cold)
    yield opened
    opened.close()


def vectors(k: int) -> Floats32:
    return unit(np.random.default_rng(1).standard_normal((k, 8)).astype(np.float32))


def session(minutes: int = 0, k: int = 3) -> Session:
    start = Context(AT + timedelta(minutes=minutes), 60, "mobile")
    return Session.of(start, start.at + timedelta(minutes=9), vectors(k), np.zeros(k, dtype=np.bool_), "radio")


def test_listeners_come_back_as_they_were_put(store: SqliteListenerStore) -> None:
    s = sessions()
    states = compute_states(store.model, s)
    made = int(AT.timestamp()) - 10 * 86400
    rows = (
        ListenerRow(
            user, state, recent=np.array([3, 1]), favourite=np.array([2]), rested=np.array([9]), made_at_s=made,
            diversity=0.25, exploration_success=0.5, blocked_artists=frozenset({"x"}),
        )
        for user, state in zip(s.user_id, states, strict=True)
    )  # fmt: skip
    assert store.put_many(rows) == 5
    assert store.user_ids() == s.user_id.tolist()
    found = store.listener(s.user_id[2], VISIT)
    assert found.known
    assert np.array_equal(found.vector, store.model.predict(states[2], VISIT))
    assert (found.recent.tolist(), found.favourite.tolist(), found.rested.tolist()) == ([3, 1], [2], [9])
    assert found.traits.account_age_d == pytest.approx(10)
    assert (found.traits.diversity, found.traits.exploration_success) == (0.25, 0.5)
    assert found.blocked_artists == {"x"}


def test_ids_come_page_by_page_in_order_and_by_their_beginning(store: SqliteListenerStore) -> None:
    state = store.model.initial(np.array([0.0]))[0]
    ids = ["", "A", "a", "a%", "a1", "a2", "aé", "b", "Ω1", "a\U0001f600"]
    store.put_many(ListenerRow(user, state) for user in ids)
    assert store.ids_from(limit=3) == sorted(filter(None, ids))[:3]
    found, after = [], ""
    while page := store.ids_from("a", after, 2):
        found += page
        after = page[-1]
    assert found == sorted(user for user in ids if user.startswith("a"))
    assert store.ids_from("a1", "zzz") == []
    assert store.ids_from("b", "a") == ["b"]


def test_a_page_of_ids_reads_no_more_of_the_index_than_it_tells(store: SqliteListenerStore) -> None:
    state = store.model.initial(np.array([0.0]))[0]
    store.put_many(ListenerRow(f"u{i:05d}", state) for i in range(20_000))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = store._connection()
    for prefix, after in (("", ""), ("", "u19000"), ("u1", "u19000"), ("u15", "")):
        steps = 0
        connection.set_progress_handler(count, 100)  # after so many instructions of SQLite's machine
        found = store.ids_from(prefix, after, 20)
        connection.set_progress_handler(None, 0)
        assert len(found) == 20
        assert steps < 10


def test_an_unknown_listener_is_a_cold_start_and_is_not_stored(store: SqliteListenerStore) -> None:
    found = store.listener("nobody", VISIT)
    assert not found.known
    assert np.array_equal(found.vector, store.cold_vector)
    assert len(store) == 0


def test_states_of_one_batch_are_not_read_by_another(store: SqliteListenerStore, tmp_path: Path) -> None:
    store.advance("u", session())
    other = SqliteListenerStore(tmp_path / "listeners.sqlite", MemoryListener(8), "batch-2")
    assert not other.listener("u", VISIT).known
    assert store.listener("u", VISIT).known
    other.drop_batch("batch-1")
    assert not store.listener("u", VISIT).known
    other.close()


def test_a_committed_session_moves_vector_and_recent_items(store: SqliteListenerStore) -> None:
    after = store.advance("u", session(), item=[4, 7, 4, 5])
    assert after.recent.tolist() == [5, 4, 7]
    assert after.vector == pytest.approx(session().played, abs=1e-6)
    assert after.traits.account_age_d == pytest.approx(9 / 60 / 24)
    store.advance("u", session(60), item=[7, 1])
    assert store.listener("u", VISIT).recent.tolist() == [1, 7, 5, 4]


def test_a_running_session_counts_but_is_not_committed(store: SqliteListenerStore) -> None:
    store.advance("u", session())
    before = store.listener("u", VISIT).vector
    running = store.listener("u", VISIT, running=session(60, k=5)).vector
    assert not np.allclose(before, running)
    assert np.array_equal(store.listener("u", VISIT).vector, before)
    store.advance("u", session(60, k=5))
    assert np.array_equal(store.listener("u", VISIT).vector, running)


def test_a_new_listeners_running_session_already_counts(store: SqliteListenerStore) -> None:
    found = store.listener("nobody", VISIT, running=session(-20))
    assert found.vector == pytest.approx(session().played, abs=1e-6)


def test_onboarding_serves_the_mean_of_the_picks_until_the_first_session(store: SqliteListenerStore) -> None:
    found = store.onboard("new", [5, 6], vectors(2), VISIT)
    assert not found.known
    assert found.vector == pytest.approx(unit(vectors(2).sum(axis=0)), abs=1e-6)
    assert found.favourite.tolist() == [5, 6]
    assert store.advance("new", session(30)).known
    with pytest.raises(ValueError, match="sessions already"):
        store.onboard("new", [5], vectors(1), VISIT)
    with pytest.raises(ValueError, match="picks"):
        store.onboard("other", [], vectors(0), VISIT)


def test_a_state_of_another_size_is_refused_and_nothing_is_written(store: SqliteListenerStore) -> None:
    good, bad = ListenerRow("a", store.model.initial(np.array([np.nan]))[0]), ListenerRow("b", np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="'b' has shape"):
        store.put_many([good, bad])
    assert len(store) == 0


def test_threads_lose_no_session(store: SqliteListenerStore) -> None:
    def listen(thread: int) -> None:
        for k in range(10):
            store.advance("shared", session(60 * k + thread), item=[thread * 10 + k])

    threads = [threading.Thread(target=listen, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = store.get("shared")
    assert row is not None
    assert row.state[2] == 40
    assert sorted(row.recent.tolist()) == list(range(40))


def test_another_stores_write_is_seen_at_once(store: SqliteListenerStore) -> None:
    other = SqliteListenerStore(store.path, MemoryListener(8), "batch-1")
    assert not store.listener("u", VISIT).known
    other.advance("u", session())
    assert store.listener("u", VISIT).known
    other.close()


def test_a_session_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="not before"):
        Session.of(VISIT, AT - timedelta(seconds=1), vectors(1), np.zeros(1, dtype=np.bool_))


def test_a_card_seen_six_times_without_a_stream_rests_for_two_weeks(store: SqliteListenerStore) -> None:
    for time in range(6):
        assert store.listener("u", VISIT).rested.tolist() == []
        for _ in range(2):  # told twice, counted once
            streamed = np.array([9] if time == 3 else [], dtype=np.int64)
            store.saw("u", f"page{time}", np.array([7, 9]), streamed, AT + timedelta(days=time))
    assert store.listener("u", VISIT).rested.tolist() == [7]  # 9 was streamed: two showings since
    assert (
        store.saw("u", "p", np.array([9]), np.array([7]), AT + timedelta(days=6)).tolist() == []
    )  # streamed elsewhere
    for time in range(6):
        store.saw("u", f"q{time}", np.array([3]), np.array([], dtype=np.int64), AT + timedelta(days=7 + time))
    assert store.listener("u", VISIT).rested.tolist() == [3]
    again = AT + timedelta(days=12 + 14)
    assert store.saw("u", "r", np.array([5]), np.array([], dtype=np.int64), again).tolist() == []
    assert store.listener("u", VISIT).rested.tolist() == []


def test_what_rests_is_the_listeners_own_and_of_one_batch(store: SqliteListenerStore) -> None:
    none = np.array([], dtype=np.int64)
    for page in range(6):
        store.saw("u", str(page), np.array([7]), none, AT)
    assert store.listener("v", VISIT).rested.tolist() == []
    other = SqliteListenerStore(store.path, store.model, "another batch")
    assert other.listener("u", VISIT).rested.tolist() == []
    assert other.saw("u", "p", np.array([7]), none, AT).tolist() == []
    store.forget("u")
    assert store.saw("u", "p", np.array([7]), none, AT).tolist() == []  # counted from nothing
    other.close()


def test_favourites_move_forward_when_played_and_come_to_the_order_of_frequency() -> None:
    def after(favourite: list[int], recent: list[int], played: list[int]) -> list[int]:
        return refreshed_favourites(np.array(favourite, int), np.array(recent, int), np.array(played, int), 3).tolist()

    assert after([1, 2, 3], [], [3]) == [1, 3, 2]
    assert after([1, 2, 3], [], [8]) == [1, 2, 3]  # heard once
    assert after([1, 2, 3], [8], [8]) == [1, 2, 8]  # heard again
    assert after([], [], [4, 4]) == [4]
    rng = np.random.default_rng(0)
    order = np.arange(6)
    share = np.array([0.02, 0.04, 0.08, 0.16, 0.3, 0.4])
    place = np.zeros(6)
    for _ in range(1_000):
        order = refreshed_favourites(order, order, rng.choice(6, size=5, p=share))
        place += np.argsort(order)
    assert (np.diff(place) < 0).all()  # the oftener played, the nearer the front on average


def test_a_committed_session_keeps_favourites_in_order(store: SqliteListenerStore) -> None:
    s = sessions()
    store.put_many([ListenerRow("u", store.model.initial(np.array([1.0]))[0], favourite=np.array([1, 2]))])
    store.advance("u", session_at(s, 0), [2, 5])
    assert store.listener("u", VISIT).favourite.tolist() == [2, 1]
    store.advance("u", session_at(s, 1), [5])
    assert store.listener("u", VISIT).favourite.tolist() == [2, 1, 5]
