"""Truths of scoring by later listening: nothing later is known, repeats and first plays are apart, counts decay."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bart.errors import DataError
from bart.types import Context, ItemTable, Listener
from recommender.events.table import read_events
from recommender.shelves.items import complete, item_table, items_of_events
from recommender.shelves.rules import SHELF_RULES
from recommender.study.held_out import Plays, Visit, cut_dates, origin
from recommender.study.score import FIRST, REPEATS, ScoreConfig, Tuned, decayed_counts, score_run

START = 1_700_000_000
DAY = 86_400


def listening(listeners: int, days: int, *, fresh: bool = True, seed: int = 0) -> tuple[pa.Table, ItemTable]:
    """Every day each listener plays the same three songs of their group; where `fresh`, two others of it besides."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(listeners):
        own = [60 * (u % 2) + (3 * u + k) % 60 for k in range(3)]
        for day in range(days):
            songs = own + [60 * (u % 2) + int(k) for k in rng.integers(0, 60, 2)] * fresh
            rows += [(f"u{u}", f"s{song}", START + day * DAY + 300 * n) for n, song in enumerate(songs)]
    user, item, at = zip(*rows, strict=True)
    read = read_events(pa.table({"user_id": user, "item_id": item, "started_at": at}))
    text = items_of_events(read.item_text)
    table = complete(text, read.events, read.item_text)
    return read.events, item_table(table, np.zeros((len(table), 40), dtype=np.float32))


def lines(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["kind"], line["list"]): line for line in found["lists"]}


def scored(events: pa.Table, items: ItemTable, **config: Any) -> dict[str, Any]:
    asked = ScoreConfig(cuts=2, cards=3, rows=2, **config)
    return score_run(events, items, None, SHELF_RULES, asked, np.random.default_rng(1))


def test_what_is_played_every_day_is_found_as_repeats_and_nothing_is_left_for_first_plays() -> None:
    found = lines(scored(*listening(12, 40, fresh=False)))
    assert found[REPEATS, "decayed counts"]["recall"][0] == 1
    assert found[REPEATS, "shelf jump_back_in"]["ndcg"][0] == 1
    assert {kind for kind, _ in found} == {REPEATS, "page"}


def test_lists_of_first_plays_hold_nothing_that_was_played_and_popularity_is_no_repeat_list() -> None:
    told = scored(*listening(12, 24))
    found = lines(told)
    assert (FIRST, "shelf jump_back_in") not in found
    assert (FIRST, "decayed counts") not in found
    assert 0 < found[FIRST, "popularity"]["recall"][0] <= 1
    assert found[REPEATS, "decayed counts"]["listeners"] == 12
    assert found[REPEATS, "decayed counts"]["ndcg"][0] > found[REPEATS, "popularity"]["ndcg"][0]
    assert "no causal value" in told["says"]


def test_one_listener_has_no_interval() -> None:
    found = lines(scored(*listening(1, 40)))
    assert found["page", "decayed counts"]["played"][1] is None


def test_a_cut_knows_nothing_of_what_came_after_it() -> None:
    events, items = listening(10, 30)
    plays = Plays.of(events, items.row_of)
    dates, horizon_s = cut_dates(plays, 2, 30.0)
    at_s = int(dates[1])
    later = events["started_at"].cast(pa.int64()).to_numpy() >= at_s * 1_000_000
    other = np.array(events["item_id"].to_pylist(), dtype=object)
    other[later] = np.random.default_rng(3).permutation(other[later])
    changed = events.set_column(1, "item_id", pa.array(other.tolist(), pa.string()))
    one, two = (
        origin(table, Plays.of(table, items.row_of), items, None, SHELF_RULES, at_s, horizon_s, 50,
               np.random.default_rng(1))
        for table in (events, changed)
    )  # fmt: skip
    assert one.items.vector.tobytes() == two.items.vector.tobytes()
    np.testing.assert_array_equal(one.items.popularity, two.items.popularity)
    np.testing.assert_array_equal(one.source.tables.popular, two.source.tables.popular)
    for a, b in zip(one.visits, two.visits, strict=True):
        np.testing.assert_array_equal(a.listener.recent, b.listener.recent)
        np.testing.assert_array_equal(a.listener.favourite, b.listener.favourite)
    assert any(not np.array_equal(a.later, b.later) for a, b in zip(one.visits, two.visits, strict=True))


def test_counts_decay_by_age_and_grow_by_the_same_time_of_day() -> None:
    at = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)  # a Wednesday noon: part 2
    now = int(at.timestamp())
    visit = Visit(
        Listener("u", np.zeros(2, np.float32)), Context(at), np.array([7, 4, 7]),
        now - np.array([20, 10, 10]) * DAY, np.array([0, 0, 2]), np.array([1]), np.array([4, 7]),
    )  # fmt: skip
    row, count = decayed_counts(visit, Tuned(10.0, 3.0))
    assert row.tolist() == [4, 7]
    assert count == pytest.approx([0.5, 0.25 + 1.5])


def test_listening_of_one_moment_cannot_be_scored() -> None:
    events = read_events(pa.table({"user_id": ["u", "v"], "item_id": ["a", "b"], "started_at": [START, START]}))
    items = item_table(items_of_events(events.item_text), np.zeros((2, 40), np.float32))
    with pytest.raises(DataError, match="all plays have one time"):
        score_run(events.events, items, None, SHELF_RULES, ScoreConfig(), np.random.default_rng(0))
