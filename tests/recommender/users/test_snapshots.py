"""What is known at a moment is what had arrived by then, in one step or in many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from user_world import DAY_S, UserWorld, user_world

from recommender.users.snapshots import moments, played_after


@pytest.fixture(scope="module")
def world() -> UserWorld:
    return user_world()


def test_what_comes_later_moves_no_features(world: UserWorld) -> None:
    at_s = world.end_s - 10 * DAY_S
    started = world.events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    users = world.timeline().until(at_s).users
    whole = moments(world.timeline(), world.features, [at_s], users)
    cut = moments(world.timeline(world.events.filter(pa.array(started <= at_s))), world.features, [at_s], users)
    np.testing.assert_array_equal(whole.value, cut.value)


def test_a_play_is_known_once_it_ended_and_a_session_once_it_could_not_go_on(world: UserWorld) -> None:
    started = world.events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    first = world.events.slice(0, 1)
    user, at_s = first["user_id"][0].as_py(), int(started[0])
    timeline = world.timeline(first)
    length = int(first["listened_s"][0].as_py() or first["duration_s"][0].as_py() or 0)
    if length:
        assert timeline.until(at_s + length - 1).known(user).history is None
    timeline.until(at_s + length)
    assert timeline.known(user).history is not None
    assert timeline.usage(user).sessions == 0
    assert timeline.until(at_s + length + 20 * 60).usage(user).sessions == 1


def test_steps_do_not_matter(world: UserWorld) -> None:
    users = world.timeline().until(world.end_s).users
    steps = [world.end_s - 3 * DAY_S, world.end_s - DAY_S, world.end_s]
    many = moments(world.timeline(), world.features, steps, users)
    once = moments(world.timeline(), world.features, steps[-1:], users)
    np.testing.assert_allclose(many.value[many.at_s == world.end_s], once.value, atol=1e-5, equal_nan=True)


def test_time_does_not_go_back(world: UserWorld) -> None:
    timeline = world.timeline().until(world.end_s)
    with pytest.raises(ValueError, match="or later"):
        timeline.until(world.end_s - 1)


def test_listeners_without_an_account_yet_have_no_snapshot(world: UserWorld) -> None:
    users = list(world.accounts.made_at_s)
    made = world.accounts.made_at_s[users[0]]
    assert len(moments(world.timeline(), world.features, [made - 1], users)) == 0
    assert len(moments(world.timeline(), world.features, [made], users)) == len(users)


def test_picks_and_country_are_known_before_the_first_play(world: UserWorld) -> None:
    user = next(user for user in world.accounts.picked if user in world.accounts.country)
    known = world.timeline().until(world.accounts.made_at_s[user]).known(user)
    assert known.history is None
    assert len(known.usage.picked)
    assert known.usage.country == world.accounts.country[user]


def test_saves_count_from_when_they_were_made(world: UserWorld) -> None:
    user, item = world.events["user_id"][0].as_py(), str(world.items.item_id[3])
    at = pa.array([world.end_s * 1_000_000], pa.timestamp("us", "UTC"))
    save = pa.table({"user_id": [user], "item_id": [item], "started_at": at, "type": ["save"], "weight": [3.0]})
    events = pa.concat_tables([world.events, save], promote_options="default")
    timeline = world.timeline(events)
    assert len(timeline.until(world.end_s - 1).usage(user).saved) == 0
    assert timeline.until(world.end_s).usage(user).saved.tolist() == [3]


def test_later_plays_begin_within_the_days_after_the_snapshot(world: UserWorld) -> None:
    at_s = world.end_s - 7 * DAY_S
    users = world.timeline().until(at_s).users
    at = moments(world.timeline(), world.features, [at_s], users)
    later = played_after(world.events, world.items, at)
    started = world.events["started_at"].cast(pa.int64()).to_numpy() / 1e6
    skipped = np.array(world.events["skipped"].fill_null(False).to_pylist())
    own = np.array(world.events["user_id"].to_pylist()) == users[2]
    inside = own & (started > at_s) & (started <= at_s + 7 * DAY_S) & ~skipped
    played = {item for item, there in zip(world.events["item_id"].to_pylist(), inside.tolist(), strict=True) if there}
    assert set(world.items.item_id[later.of(2)].tolist()) == played
    assert not len(played_after(world.events, world.items, at, days=0).row)
