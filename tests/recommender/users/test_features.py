"""What features say of a listener, and that what is not known is not a number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from user_world import DAY_S, UserWorld, user_world

from recommender.features.usage import Usage
from recommender.users.features import GROUP_NAMES, Known, UserFeatures, presence


@pytest.fixture(scope="module")
def world() -> UserWorld:
    return user_world()


def value(world: UserWorld, known: Known, at_s: float, name: str) -> np.ndarray:
    features = world.features
    return features.row(known, at_s)[features.slices[name]]


def heard(world: UserWorld, item: list[int], skipped: list[bool], at_s: list[int]) -> Known:
    histories = world.timeline()._histories
    told = histories.heard(None, np.array(item), np.array(skipped, dtype=bool), np.array(at_s))
    return Known(told, Usage(), None)


def test_nothing_known_is_nothing_at_all(world: UserWorld) -> None:
    row = world.features.row(Known(None, Usage(), None), 0.0)
    assert np.isnan(row).all()
    assert not presence(row[None], world.features.slices).any()


def test_each_group_is_known_by_its_own_source_alone(world: UserWorld) -> None:
    features = world.features
    told = {
        "onboarding": Known(None, Usage(picked=np.array([1, 2])), None),
        "saved": Known(None, Usage(saved=np.array([3])), None),
        "country": Known(None, Usage(country="SE"), None),
        "age": Known(None, Usage(), 0),
    }
    for name, known in told.items():
        there = presence(features.row(known, 1.0)[None], features.slices)[0]
        assert [GROUP_NAMES[k] for k in np.flatnonzero(there)] == [name]


def test_a_country_that_no_listener_had_is_not_known(world: UserWorld) -> None:
    assert np.isnan(value(world, Known(None, Usage(country="XX"), None), 0.0, "country")).all()


def test_windows_are_means_of_what_was_played_by_what_still_counts(world: UserWorld) -> None:
    at_s = 100 * DAY_S
    known = heard(world, [5, 9, 7], [False, False, True], [at_s - 30 * DAY_S, at_s, at_s])
    d = world.items.dimension
    content = value(world, known, at_s, "content").reshape(-1, d)
    vector = world.items.vector
    old = 0.5 ** (30 / np.array([2.0, 30.0, 90.0]))
    expected = (old[:, None] * vector[5] + vector[9]) / (old + 1)[:, None]
    np.testing.assert_allclose(content, expected, atol=1e-5)
    np.testing.assert_allclose(value(world, known, at_s, "skipped")[:d], vector[7], atol=1e-6)


def test_time_alone_moves_no_mean_of_plays_of_one_age(world: UserWorld) -> None:
    known = heard(world, [5, 9], [False, False], [0, 0])
    early, late = (value(world, known, at_s, "content") for at_s in (10.0, 40.0 * DAY_S))
    np.testing.assert_allclose(early, late, atol=1e-5)


def test_the_order_of_a_listeners_items_does_not_matter(world: UserWorld) -> None:
    known = heard(world, [5, 9, 5, 30], [False, False, False, True], [10, 20, 30, 40])
    again = heard(world, [30, 5, 5, 9], [True, False, False, False], [40, 10, 30, 20])
    np.testing.assert_allclose(world.features.row(known, 99.0), world.features.row(again, 99.0), equal_nan=True)


def test_shares_of_hours_devices_and_genres_add_up_to_one(world: UserWorld) -> None:
    user = world.timeline().until(world.end_s + DAY_S).users[0]
    timeline = world.timeline().until(world.end_s + DAY_S)
    for name in ("hours", "devices", "genres"):
        assert value(world, timeline.known(user), world.end_s, name).sum() == pytest.approx(1.0)


def test_repeats_and_skips_are_what_the_features_of_candidates_call_so(world: UserWorld) -> None:
    habits = value(world, heard(world, [5, 5, 5, 9, 9, 7], [False] * 5 + [True], [1] * 6), 2.0, "habits")
    assert habits[0] == pytest.approx(np.log1p(5))
    assert habits[1] == pytest.approx(1 / 6)
    assert habits[2] == pytest.approx(1 - 2 / 5)


def test_items_that_came_after_the_batch_have_no_factor_and_break_nothing(world: UserWorld) -> None:
    fewer = replace(world.tables, factor=world.tables.factor[:50], weight=world.tables.weight[:50])
    features = UserFeatures.of(world.items, fewer)
    row = features.row(heard(world, [60], [False], [1]), 2.0)
    assert not row[features.slices["collaborative"]].any()
    assert np.isfinite(row[features.slices["content"]]).all()
