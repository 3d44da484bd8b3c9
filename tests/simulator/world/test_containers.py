"""Truths of the albums, playlists and shows of a world, and of who comes back to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.special import logit

from recommender.shelves.items import item_table
from simulator.world.appeal import appeal
from simulator.world.config import ContainerConfig, Effects, WorldConfig
from simulator.world.containers import ALBUM, HABITS, PLAYLIST, SHOW, is_habit
from simulator.world.habits import FIRST_NUMBER
from simulator.world.listening import SESSION_GAP_S, simulate_events
from simulator.world.population import BUCKET_OF_HOUR
from simulator.world.world import World

PLAIN = WorldConfig(n_tracks=900, n_listeners=40, days=6, n_clusters=60, n_genres=8)
CONFIG = replace(PLAIN, containers=ContainerConfig(shows=24, playlists=30, episodes=12))


def make(config: WorldConfig = CONFIG, **effects: bool) -> World:
    return World.make(replace(config, effects=Effects(**effects)), np.random.default_rng(3))


def events(world: World) -> pa.Table:
    return pa.Table.from_batches(list(simulate_events(world, np.random.default_rng(4))))


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def test_tracks_listeners_and_their_music_are_those_of_the_world_without(world: World) -> None:
    without = make(PLAIN)
    assert world.items().slice(0, len(without.catalogue)).select(without.items().column_names).equals(without.items())
    assert world.playlists().drop_columns(["title"]).equals(without.playlists())
    heard = events(world)
    music = heard.filter(pc.is_null(heard["container_id"])).drop_columns(["container_id"])
    assert music.equals(events(without))


def test_every_track_stands_in_one_album_of_its_artist(world: World) -> None:
    items = item_table(world.items(), playlists=world.playlists())
    tracks = np.arange(len(world.catalogue))
    assert (items.album[tracks] >= 0).all()
    assert [items.artists[a] for a in items.album[tracks].tolist()] == [items.artists[t][:1] for t in tracks.tolist()]


def test_the_product_finds_the_members_that_the_world_made(world: World) -> None:
    items = item_table(world.items(), playlists=world.playlists())
    made, n = world.containers, len(world.catalogue)
    assert made is not None
    for kind in (ALBUM, PLAYLIST, SHOW):
        for row in made.rows(kind, n).tolist():
            assert sorted(items.members[row].tolist()) == sorted(made.members[row].tolist())


def test_no_two_sessions_of_a_listener_meet(world: World) -> None:
    heard = events(world)
    user, session = (
        heard[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("user_id", "session_id")
    )
    start_s = heard["started_at"].cast(pa.int64()).to_numpy() / 1e6
    end_s = start_s + heard["listened_s"].to_numpy()
    order = np.lexsort((start_s, user))
    user, session, start_s, end_s = (values[order] for values in (user, session, start_s, end_s))
    other = (np.diff(session) != 0) & (np.diff(user) == 0)
    assert other.sum() > 100
    assert (start_s[1:][other] - end_s[:-1][other] >= SESSION_GAP_S).all()


def test_habits_come_at_their_part_of_the_day_and_from_what_they_are_of(world: World) -> None:
    heard, made, n = events(world), world.containers, len(world.catalogue)
    assert made is not None
    own = heard.filter(pc.is_valid(heard["container_id"]))
    listener = world.listener_of(own["user_id"].to_pylist())
    owner = world.row_of(own["container_id"].to_pylist())
    local = own["started_at"].cast(pa.int64()).to_numpy() // 1_000_000 + 60 * own["utc_offset_min"].to_numpy()
    habit, now = is_habit(made, owner, listener, local // 3_600 % 24)
    first = pc.match_substring_regex(own["session_id"], rf"-{FIRST_NUMBER // 10_000}").to_numpy()
    assert first.all()
    assert habit.mean() > 0.5
    assert now[habit].mean() > 0.8  # an album may go on behind the end of its part of the day
    assert {made.kind[row - n] for row in owner[~habit].tolist()} == {SHOW}  # what is tried


def test_a_habit_is_streamed_more_at_its_time_and_only_where_habits_are_on() -> None:
    on, off = make(), make(habitual=False)
    made = on.containers
    assert made is not None
    who = np.arange(len(on.population))
    hour: np.ndarray = np.array([int(np.flatnonzero(b == BUCKET_OF_HOUR)[0]) for b in made.habit_bucket[:, 0]])
    at = (np.full(len(who), 2), np.zeros(len(who), dtype=np.int64), made.habit[:, 0])
    at_s = np.full(len(who), int(CONFIG.end.timestamp()))

    def of(world: World, hours: np.ndarray) -> np.ndarray:
        return logit(appeal(world, who, hours, *at, ["continue"] * len(who), at_s))

    gained = of(on, hour) - of(off, hour)
    np.testing.assert_allclose(gained, CONFIG.appeal.habit, atol=1e-9)
    assert HABITS[0] == SHOW


def test_without_other_listening_nobody_streams_what_is_no_habit() -> None:
    closed = make(non_habitual=False)
    made, n = closed.containers, len(closed.catalogue)
    assert made is not None
    show = made.rows(SHOW, n)
    none = np.zeros(len(show), dtype=np.int64)
    habit, _ = is_habit(made, show, none, none + 9)
    likes = appeal(closed, none, none + 9, none, none, show, ["x"] * len(show), none + int(CONFIG.end.timestamp()))
    assert likes[~habit].max() < 1e-9 < likes[habit].min()
    heard = events(closed)
    own = heard.filter(pc.is_valid(heard["container_id"]))
    assert is_habit(
        made,
        closed.row_of(own["container_id"].to_pylist()),
        closed.listener_of(own["user_id"].to_pylist()),
        np.zeros(len(own), dtype=np.int64),
    )[0].all()


def test_without_habits_and_tries_only_music_is_heard() -> None:
    assert not pc.any(pc.is_valid(events(make(habitual=False, non_habitual=False))["container_id"])).as_py()
