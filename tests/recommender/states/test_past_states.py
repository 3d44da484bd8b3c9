"""What a listener who rates and plays nothing was like at a visit: the mean of what was liked by then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bart.types import Floats32
from recommender.events.table import read_events
from recommender.shelves.profile import build_profiles
from recommender.states.favourites import LIMIT, vector_of_liked
from recommender.states.past_states import liked_at

AT = 1_772_395_200
ROW_OF = {f"i{k}": k for k in range(80)}
VECTOR = np.random.default_rng(2).normal(size=(80, 4)).astype(np.float32)
COLD = np.array([1, 0, 0, 0], dtype=np.float32)


def rated(rows: list[tuple[str, str, int, float]]) -> pa.Table:
    names = ("user_id", "item_id", "started_at", "rating")
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return read_events(pa.table(columns)).events


def at_visits(events: pa.Table, *visits: tuple[str, int]) -> Floats32:
    user = np.array([user for user, _ in visits], dtype=object)
    return liked_at(events, ROW_OF, VECTOR, user, np.array([at for _, at in visits]), COLD)


def test_what_is_liked_later_or_disliked_moves_nothing() -> None:
    events = rated([("u", "i1", AT, 5), ("u", "i2", AT + 10, 1), ("u", "i3", AT + 20, 4), ("v", "i9", AT, 5)])
    unit = VECTOR / np.linalg.norm(VECTOR, axis=1, keepdims=True)
    before, first, disliked, both, stranger = at_visits(
        events, ("u", AT), ("u", AT + 1), ("u", AT + 15), ("u", AT + 30), ("w", AT + 30)
    )
    np.testing.assert_array_equal(before, COLD)
    np.testing.assert_array_equal(stranger, COLD)
    np.testing.assert_allclose(first, unit[1], rtol=1e-6)
    np.testing.assert_allclose(disliked, unit[1], rtol=1e-6)
    np.testing.assert_allclose(both, vector_of_liked(VECTOR[[1, 3]], COLD), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_after_all_ratings_it_is_what_a_build_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{k % 3}", f"i{rng.integers(80)}", AT + int(rng.integers(9_000)), float(rng.integers(1, 6)))
        for k in range(600)
    ]
    events = rated(rows)
    profiles = build_profiles(events, ROW_OF)
    assert all(len(profiles.favourite(f"u{k}")) <= LIMIT for k in range(3))
    found = at_visits(events, *((f"u{k}", AT + 10_000) for k in range(3)))
    for k in range(3):
        liked = VECTOR[profiles.favourite(f"u{k}")]
        np.testing.assert_allclose(found[k], vector_of_liked(liked, COLD), rtol=1e-5)


def test_plays_alone_leave_a_visit_cold() -> None:
    events = read_events(pa.table({"user_id": ["u"], "item_id": ["i1"], "started_at": [AT]})).events
    np.testing.assert_array_equal(at_visits(events, ("u", AT + 9)), [COLD])
