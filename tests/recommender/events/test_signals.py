"""Saves and follows as rows of the event table: they count where events are counted, and are no plays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from bart.types import ITEM_TYPES
from recommender.events.schema import EVENT_SCHEMA
from recommender.events.signals import stands_for, with_signals
from recommender.sessions.plays import is_play, worth
from simulator.search.world import SearchParams, SearchWorld

ITEMS = SearchWorld.make(SearchParams(items=320), np.random.default_rng(0)).items


def test_signals_count_by_their_weight_and_are_no_plays() -> None:
    columns = {name: pa.nulls(2, EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names}
    columns["user_id"], columns["item_id"] = pa.array(["a", "b"]), pa.array(["s1", "s2"])
    columns["started_at"] = pa.array([10, 20], pa.int64()).cast(pa.timestamp("us", "UTC"))
    events = pa.table(columns, schema=EVENT_SCHEMA)
    assert with_signals(events, {"save": []}, {"save": 3.0}) is events
    told = with_signals(events, {"save": [("a", "s2", 15)], "follow": [("c", "s3", 20)]}, {"save": 3.0, "follow": 1.5})
    assert is_play(told).tolist() == [True, True, False, False]
    assert worth(told).tolist() == [1.0, 1.0, 3.0, 1.5]
    assert told.slice(2, 1).to_pylist()[0] | {"device": "-"} == {
        **dict.fromkeys(EVENT_SCHEMA.names), "user_id": "a", "item_id": "s2", "device": "-", "type": "save",
        "weight": 3.0, "started_at": told["started_at"][2].as_py(),
    }  # fmt: skip


def test_an_artist_is_stood_for_by_the_artists_card_else_by_the_most_popular_item() -> None:
    row = ITEMS.artists.rows_with("artist 7")
    assert len(row) == 2
    best = row[np.argmax(ITEMS.popularity[row])]
    assert stands_for(ITEMS, "artist 7") == ITEMS.item_id[best]
    kind = ITEMS.type.copy()
    card = row[row != best][0]
    kind[card] = ITEM_TYPES.index("artist")
    assert stands_for(replace(ITEMS, type=kind), "artist 7") == ITEMS.item_id[card]
    assert stands_for(ITEMS, "nobody") is None
