"""Which listener model serves is measured: one that tells nobody apart does not, and no choice is made in silence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from api.jobs.listener_model import serving_model
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError
from bart.types import Context, Floats32
from recommender.listener.model import MemoryListener, compute_states
from recommender.listener.popular import PopularListener
from recommender.sessions.sessions import Sessions, cut_sessions
from recommender.states.states import load_listener_model
from recommender.vectors.track import unit

NOON = Context(datetime(2024, 6, 1, 12, tzinfo=timezone.utc))
SMALL = {"hidden": 8, "epochs": 1}


@dataclass(frozen=True)
class Made:
    sessions: Sessions
    vector: Floats32
    popular: Floats32


@cache
def raters(listeners: int, sessions_each: int, personal: bool) -> Made:
    """Listeners of few sessions, as in a file of ratings: eight tracks each, of the listener's genre, or each time of
    another one; half of every track's vector is common to all.
    """
    rng = np.random.default_rng(5)
    genres, n = 6, 600
    genre = np.arange(n) % genres
    direction = np.linalg.qr(rng.normal(size=(12, 12)))[0][: genres + 1]
    vector = unit((direction[genre] + direction[-1] + 0.2 * rng.normal(size=(n, 12))).astype(np.float32))
    user = np.repeat(np.arange(listeners), sessions_each * 8)
    session = np.tile(np.repeat(np.arange(sessions_each), 8), listeners)
    item = rng.integers(n // genres, size=len(user)) * genres
    item += (user if personal else user + session) % genres
    day = np.repeat(np.sort(rng.integers(0, 200, (listeners, sessions_each)), axis=1).reshape(-1), 8)
    at = 1_700_000_000 + day * 86_400 + session * 7_200 + np.tile(np.arange(8), listeners * sessions_each) * 60
    table = pa.table(
        {
            "user_id": [f"u{k:04d}" for k in user],
            "item_id": [f"i{k}" for k in item],
            "started_at": pa.array(at * 1_000_000, pa.timestamp("us", "UTC")),
            "listened_s": np.full(len(user), 50.0),
        }
    )
    sessions = cut_sessions(table, {f"i{k}": k for k in range(n)}, vector)
    return Made(sessions, vector, unit(vector.mean(axis=0, keepdims=True))[0])


def choose(made: Made, **listener: object) -> tuple[object, dict[str, object], tuple[str, ...]]:
    settings = load_settings({"listener": SMALL | listener})
    return serving_model(made.sessions, made.vector, made.popular, settings, np.random.default_rng(1), Quiet())


def test_raters_of_three_sessions_are_not_served_one_vector_in_silence() -> None:
    model, facts, gaps = choose(raters(943, 3, personal=True))
    assert {"next session by CoSeRNN", "next session by decayed average", "next session by popularity"} <= set(facts)
    assert isinstance(model, MemoryListener)
    assert facts["listener model"] == "decayed average"
    assert "best for" in str(facts["chosen"])
    assert not gaps


def test_a_model_that_tells_nobody_apart_says_so_where_the_settings_ask_for_it() -> None:
    model, facts, gaps = choose(raters(943, 3, personal=True), model="popularity")
    assert isinstance(model, PopularListener)
    assert facts["chosen"] == "by listener.model"
    assert any("two listeners at random have a cosine of 1.000" in gap for gap in gaps)


def test_where_nobody_returns_to_what_they_heard_popularity_serves() -> None:
    model, facts, gaps = choose(raters(300, 3, personal=False))
    assert isinstance(model, PopularListener)
    assert facts["listener model"] == "popularity"
    assert gaps


def test_too_few_listeners_are_not_measured_and_served_the_average() -> None:
    model, facts, _ = choose(raters(30, 3, personal=True))
    assert isinstance(model, MemoryListener)
    assert "not measured" in str(facts["next session"])


def test_a_setting_overrides_and_a_cosernn_that_cannot_be_is_an_error() -> None:
    assert choose(raters(120, 3, personal=True), model="cosernn")[1]["listener model"] == "CoSeRNN"
    assert isinstance(choose(raters(30, 3, personal=True), model="average")[0], MemoryListener)
    nothing = raters(30, 3, personal=True)
    silent = Made(nothing.sessions.before(0), nothing.vector, nothing.popular)
    assert isinstance(choose(silent)[0], MemoryListener)
    with pytest.raises(DataError, match="no session has a played track with a vector"):
        choose(silent, model="cosernn")


def test_popularity_knows_when_a_listener_was_last_here_and_nothing_else(tmp_path: object) -> None:
    made = raters(30, 3, personal=True)
    model = PopularListener(made.popular)
    state = compute_states(model, made.sessions)
    assert (state[:, 2] == 3).all()
    model.save(tmp_path / "listener")  # type: ignore[operator]
    again = load_listener_model(tmp_path / "listener")  # type: ignore[operator]
    np.testing.assert_array_equal(again.predict(state[0], NOON), made.popular)
    np.testing.assert_array_equal(compute_states(again, made.sessions), state)


def test_a_network_learns_from_a_sample_of_many_listeners_and_serves_all() -> None:
    made = raters(943, 3, personal=True)
    model, facts, _ = choose(made, model="cosernn", learn_from=100)
    again, told, _ = choose(made, model="cosernn", learn_from=100)
    whole, _, _ = choose(made, model="cosernn", learn_from=943)
    assert facts == told
    states = [compute_states(one, made.sessions) for one in (model, again, whole)]
    assert len(states[0]) == 943
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])
