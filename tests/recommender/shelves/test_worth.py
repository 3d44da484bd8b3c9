"""Popularity, favourites and shelf tables count likes and ratings by their weight; sessions and hours are of plays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from recommender.events.table import LoadedEvents, read_events
from recommender.sessions.sessions import cut_sessions
from recommender.shelves.items import complete, counts, item_table, items_of_events
from recommender.shelves.profile import build_profiles
from recommender.shelves.tables import build_tables
from recommender.vectors.index import build_index
from recommender.vectors.sentences import sentences_of_events

MORNING = 1_772_434_800  # 07:00 UTC of a Monday
ITEMS = ["a", "b", "c", "d"]


def loaded(*rows: tuple[str, str, int, str | None]) -> LoadedEvents:
    """Listener, item, minutes after the first and type."""
    user, item, minute, kind = zip(*rows, strict=True)
    at = [MORNING + 60 * m for m in minute]
    return read_events(
        pa.table({"user_id": user, "item_id": item, "started_at": at, "type": pa.array(kind, pa.string())})
    )


# u plays a three times and b twice, likes c, which it plays once, and dislikes a.
MIXED = loaded(
    ("u", "a", 0, None), ("u", "a", 4, None), ("u", "b", 8, None), ("u", "c", 12, None), ("u", "c", 13, "like"),
    ("u", "a", 16, None), ("u", "a", 17, "dislike"), ("u", "b", 20, None), ("u", "d", 60 * 14, "like"),
    ("v", "d", 0, "like"), ("w", "b", 0, "dislike"),
)  # fmt: skip


def table_of(found: LoadedEvents) -> Any:
    vector = np.eye(4, 40, dtype=np.float32)
    return item_table(complete(items_of_events(found.item_text), found.events), vector[: len(found.item_text)])


def test_popularity_is_what_events_count_together() -> None:
    assert counts(MIXED.events, pa.array(ITEMS)).tolist() == [0, 0, 4, 6]
    assert np.argsort(table_of(MIXED).popularity).tolist()[-2:] == [2, 3]


def test_a_favourite_is_what_counts_most_and_what_is_recent_was_played() -> None:
    profiles = build_profiles(MIXED.events, table_of(MIXED))
    assert profiles.favourite("u").tolist() == [2, 3, 1]
    assert sorted(profiles.recent("u").tolist()) == [0, 1, 2]
    assert profiles.plays.tolist() == [6, 0, 0]
    assert profiles.hours[0].tolist()[7] == profiles.hours.sum() == 6
    assert profiles.favourite("v").tolist() == [3]
    assert profiles.favourite("w").tolist() == []


def test_shelf_tables_count_by_weight_and_parts_of_the_day_are_of_plays() -> None:
    items, rng = table_of(MIXED), np.random.default_rng(0)
    tables = build_tables(items, MIXED.events, build_index(items.vector, kind="exact", rng=rng), rng)
    assert tables.popular.tolist()[:2] == [3, 2]
    assert set(tables.daypart[1].tolist()) == {-1, 0, 1, 2}
    assert set(np.delete(tables.daypart, 1, axis=0).ravel().tolist()) == {-1}


def test_sessions_and_sentences_are_of_plays_alone() -> None:
    row_of = {item: row for row, item in enumerate(ITEMS)}
    sessions = cut_sessions(MIXED.events, row_of, np.eye(4, dtype=np.float32))
    assert (len(sessions), sessions.n_users) == (1, 1)
    assert sessions.columns.n_tracks.tolist() == [6]
    assert sentences_of_events(MIXED.events, row_of).row.tolist() == [0, 0, 1, 2, 0, 1]


def test_where_nothing_was_played_a_sentence_is_what_a_listener_likes() -> None:
    found = loaded(*[(u, item, n * 10_000, kind) for u in "uv" for n, (item, kind) in enumerate(
        [("a", "like"), ("b", "dislike"), ("c", "save"), ("d", "like")]
    )])  # fmt: skip
    sentences = sentences_of_events(found.events, {item: row for row, item in enumerate(ITEMS)})
    assert sentences.row.tolist() == [0, 2, 3, 0, 2, 3]
    assert sentences.offset.tolist() == [0, 3, 6]
    sessions = cut_sessions(found.events, {}, np.eye(4, dtype=np.float32))
    assert (len(sessions), sessions.n_users) == (0, 0)
