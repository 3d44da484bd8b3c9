"""Truths of the vectors of unplayed items: they follow artist and genre, and know nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bart.types import Floats32, ItemTable
from recommender.shelves.items import item_table, read_items
from recommender.vectors.content import ContentConfig, cold_recall, expected_vectors, fill_vectors
from recommender.vectors.track import unit


def table(artist: list[str | None], genre: list[str | None], vector: Floats32) -> ItemTable:
    ids = [f"t{k:04}" for k in range(len(artist))]
    columns = {"item_id": ids, "artist": pa.array(artist, pa.string()), "genre": pa.array(genre, pa.string())}
    return item_table(read_items(pa.table(columns)).items, vector)


def world(rng: np.random.Generator, by_artist: bool = True) -> ItemTable:
    """1,200 items of 120 artists in 6 genres, whose vectors follow their artists or nothing."""
    artist = rng.integers(120, size=1_200)
    genre_centre = rng.standard_normal((6, 16))
    centre = genre_centre[np.arange(120) % 6] + 0.5 * rng.standard_normal((120, 16))
    vector = (centre[artist] if by_artist else 0) + 0.3 * rng.standard_normal((1_200, 16))
    names = [f"a{k}" for k in artist.tolist()], [f"g{k % 6}" for k in artist.tolist()]
    return table(list(names[0]), list(names[1]), unit(vector.astype(np.float32)))


def test_an_unplayed_item_gets_a_unit_vector_near_its_artist_and_played_ones_keep_theirs() -> None:
    items = world(np.random.default_rng(0))
    full = items.vector.copy()
    items.vector[:40] = 0
    filled = fill_vectors(items)
    np.testing.assert_array_equal(filled[40:], full[40:])
    np.testing.assert_allclose(np.linalg.norm(filled, axis=1), 1, atol=1e-5)
    assert np.mean((filled[:40] * full[:40]).sum(axis=1)) > 0.85


def test_hidden_items_find_their_neighbours_where_artists_say_something() -> None:
    told = cold_recall(world(np.random.default_rng(0)), np.random.default_rng(1))
    assert told.recall > 0.8
    assert told.recall > 5 * told.chance


def test_hidden_items_find_only_chance_where_artists_say_nothing() -> None:
    told = cold_recall(world(np.random.default_rng(0), by_artist=False), np.random.default_rng(1))
    # 120 hidden items with 10 neighbours each: 4 standard errors of a share
    assert abs(told.recall - told.chance) < 4 * np.sqrt(told.chance * (1 - told.chance) / 1_200)


def test_an_item_without_labels_or_with_unknown_ones_stays_without_a_vector() -> None:
    vector = unit(np.eye(4, dtype=np.float32))
    vector[2:] = 0
    filled = fill_vectors(table(["x", "x", None, "y"], ["g", "g", None, "h"], vector))
    assert not filled[2:].any()


def test_a_new_artist_is_expected_at_the_mean_of_the_genre() -> None:
    vector = unit(np.array([[1, 0], [1, 0.2], [0, 1], [0, 0]], dtype=np.float32))
    items = table(["x", "x", "z", "new"], ["g", "g", "h", "g"], vector)
    expected = expected_vectors(items, vector.any(axis=1), ContentConfig(genre_strength=1e-9))
    np.testing.assert_allclose(expected[3], unit(vector[:2].mean(axis=0, keepdims=True))[0], atol=1e-5)


def test_a_stronger_prior_keeps_an_artist_nearer_the_genre() -> None:
    items = world(np.random.default_rng(0))
    known = items.vector.any(axis=1)
    weak, strong = (expected_vectors(items, known, ContentConfig(artist_strength=s)) for s in (0.1, 1_000.0))
    genre_only = expected_vectors(items, known, ContentConfig(artist_strength=1e12))
    assert (strong * genre_only).sum() > (weak * genre_only).sum()


def test_a_strength_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="artist_strength is 0; expected more than 0"):
        ContentConfig(artist_strength=0)
