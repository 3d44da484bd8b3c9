"""The world: catalogue, listeners, taste, appeal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import logit

from simulator.world.appeal import appeal as appeal_of
from simulator.world.config import Effects, WorldConfig
from simulator.world.world import World

SMALL = WorldConfig(n_tracks=3_000, n_listeners=120, n_clusters=60, n_genres=12, days=10)
MONDAY_S = 1_736_121_600  # 2025-01-06, when the default world begins


def make(seed: int = 1, **changes: object) -> World:
    return World.make(dataclasses.replace(SMALL, **changes), np.random.default_rng(seed))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def moment(m: int, hour: int = 14, weekday: int = 2, device: int = 0, day: int = 0) -> tuple[np.ndarray, ...]:
    return tuple(np.full(m, x) for x in (hour, weekday, device, MONDAY_S + 86_400 * day))


def test_the_same_seed_makes_the_same_world(world: World) -> None:
    again = make()
    for name in ("items", "playlists", "listeners"):
        assert getattr(again, name)().equals(getattr(world, name)())
    assert not make(seed=2).items().equals(world.items())


def test_items_have_the_columns_of_a_catalogue(world: World) -> None:
    items = world.items()
    assert items.column_names == [
        "item_id", "title", "type", "artist_ids", "genres", "released_at", "duration_s", "explicit", "countries",
        "popularity",
    ]  # fmt: skip
    assert len(items) == 3_000
    assert len(set(items["item_id"].to_pylist())) == 3_000
    assert items.schema.field("released_at").type == pa.date32()
    popularity = items["popularity"].to_numpy()
    assert popularity.min() == 0.0
    assert popularity.max() == 1.0
    assert set(items["type"].to_pylist()) == {"track"}


def test_names_are_words_without_numbers(world: World) -> None:
    assert not any(any(c.isdigit() for c in title) for title in world.catalogue.title)
    assert len(set(world.catalogue.artist_name)) == len(world.catalogue.artist_name)
    assert not any(any(c.isdigit() for c in name) for name in world.catalogue.artist_name)


def test_popularity_follows_the_zipf_law_of_the_configuration(world: World) -> None:
    weight = np.sort(world.catalogue.weight)[::-1]
    rank = np.arange(len(weight)) + SMALL.zipf_offset
    slope = np.polyfit(np.log(rank), np.log(weight), 1)[0]
    assert slope == pytest.approx(-SMALL.zipf_exponent, abs=1e-9)


def test_tracks_stand_near_their_artist_and_cluster(world: World) -> None:
    music = world.catalogue
    rng = np.random.default_rng(0)
    own = np.einsum("nd,nd->n", music.vector, music.cluster_vector[music.cluster])
    other = np.einsum("nd,nd->n", music.vector, music.cluster_vector[rng.integers(0, 60, size=len(music))])
    assert own.mean() > 0.7
    assert abs(other.mean()) < 0.2
    np.testing.assert_allclose(np.linalg.norm(music.vector, axis=1), 1.0, atol=1e-5)


def test_playlists_keep_to_a_corner_of_the_space_and_hold_a_track_once(world: World) -> None:
    table = world.playlists()
    assert table.group_by(["playlist_id", "item_id"]).aggregate([]).num_rows == table.num_rows
    length = table.group_by("playlist_id").aggregate([("item_id", "count")])["item_id_count"].to_numpy()
    assert len(length) == 2_000
    assert 22 < length.mean() < 36
    vector = world.catalogue.vector[world.row_of(table["item_id"].to_pylist())]
    same = table["playlist_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    next_to = np.einsum("nd,nd->n", vector[1:], vector[:-1])[np.diff(same) == 0]
    far_apart = np.einsum("nd,nd->n", vector, vector[::-1])
    assert next_to.mean() > far_apart.mean() + 0.3


def test_nearly_every_track_stands_in_some_playlists(world: World) -> None:
    count = np.bincount(world.row_of(world.playlists()["item_id"].to_pylist()), minlength=3_000)
    assert (count >= 3).mean() > 0.97


def test_positions_of_a_playlist_count_from_zero(world: World) -> None:
    table = world.playlists().group_by("playlist_id").aggregate([("position", "max"), ("position", "count")])
    np.testing.assert_array_equal(table["position_max"].to_numpy() + 1, table["position_count"].to_numpy())


def test_rows_are_found_by_id_in_any_order(world: World) -> None:
    ids = world.items()["item_id"].to_pylist()
    np.testing.assert_array_equal(world.row_of(reversed(ids)), np.arange(3_000)[::-1])
    np.testing.assert_array_equal(world.listener_of(["u000003", "u000000"]), [3, 0])
    with pytest.raises(ValueError, match=r"item_ids\[1\] is not of this world"):
        world.row_of([ids[0], "t-unknown"])


def test_listeners_have_account_ages_and_picks_from_the_catalogue(world: World) -> None:
    table = world.listeners()
    assert table.column_names == ["user_id", "joined_at", "country", "tz", "onboarding"]
    picks = table["onboarding"].to_pylist()
    assert all(1 <= len(p) <= 4 for p in picks)
    world.row_of([i for p in picks for i in p])
    new = world.population.joined_at_s > MONDAY_S
    assert 0 < new.sum() < 30


def test_taste_is_a_unit_vector_close_to_the_interests(world: World) -> None:
    listener = np.arange(120)
    taste = world.taste(listener, *moment(120))
    np.testing.assert_allclose(np.linalg.norm(taste, axis=1), 1.0)
    base = world.base_taste(listener, np.zeros(120))
    closest = np.einsum("mkd,md->mk", world.population.interest, base).max(axis=1)
    assert closest.mean() > 0.6


def test_without_context_effects_taste_does_not_depend_on_hour_or_device() -> None:
    off = make(effects=Effects(common_context=False, own_context=False))
    listener = np.arange(120)
    np.testing.assert_array_equal(
        off.taste(listener, *moment(120, hour=3, weekday=6, device=1)), off.taste(listener, *moment(120))
    )
    on = make()
    assert np.abs(on.taste(listener, *moment(120, hour=3)) - on.taste(listener, *moment(120))).max() > 0.1


def test_without_drift_taste_does_not_depend_on_the_day() -> None:
    off, on, listener = make(effects=Effects(drift=False)), make(), np.arange(120)
    np.testing.assert_array_equal(off.taste(listener, *moment(120)), off.taste(listener, *moment(120, day=9)))
    moved = np.einsum("md,md->m", on.taste(listener, *moment(120)), on.taste(listener, *moment(120, day=9)))
    assert moved.mean() < 0.98


def test_switches_change_the_effect_and_nothing_else(world: World) -> None:
    off = make(effects=Effects(drift=False, explanation=False, repeats=False))
    assert off.items().equals(world.items())
    assert off.playlists().equals(world.playlists())
    assert off.listeners().equals(world.listeners())
    np.testing.assert_array_equal(off.population.interest, world.population.interest)


def cards(world: World, m: int = 4_000) -> tuple[np.ndarray, ...]:
    """Random cards for random listeners, several a visit."""
    rng = np.random.default_rng(5)
    listener = np.repeat(rng.integers(0, 120, size=m // 20), 20)
    return listener, *moment(m)[:3], rng.integers(0, len(world.catalogue), size=m), moment(m)[3]


def appeal(world: World, rule: str = "because", **more: np.ndarray) -> np.ndarray:
    listener, hour, weekday, device, item, at_s = cards(world)
    return appeal_of(world, listener, hour, weekday, device, item, [rule] * len(item), at_s, **more)


def test_appeal_is_a_probability_and_a_good_match_helps(world: World) -> None:
    value = appeal(world)
    assert ((value > 0) & (value < 1)).all()
    listener, hour, weekday, device, item, at_s = cards(world)
    match = np.einsum("md,md->m", world.taste(listener, hour, weekday, device, at_s), world.catalogue.vector[item])
    assert np.corrcoef(match, logit(value))[0, 1] > 0.5


def test_appeal_of_a_card_does_not_depend_on_the_other_cards(world: World) -> None:
    listener, hour, weekday, device, item, at_s = cards(world)
    rule = np.array([f"rule {i % 7}" for i in range(len(item))], dtype=object)
    value = appeal_of(world, listener, hour, weekday, device, item, rule, at_s)
    order = np.random.default_rng(0).permutation(len(item))
    shuffled = appeal_of(
        world, listener[order], hour[order], weekday[order], device[order], item[order], rule[order], at_s[order]
    )
    np.testing.assert_array_equal(shuffled, value[order])
    assert appeal_of(world, *(a[:0] for a in (listener, hour, weekday, device, item, rule, at_s))).shape == (0,)


def test_who_takes_which_explanation_can_be_switched_off(world: World) -> None:
    assert np.abs(logit(appeal(world, "one")) - logit(appeal(world, "two"))).std() > 0.1
    off = make(effects=Effects(explanation=False))
    np.testing.assert_array_equal(appeal(off, "one"), appeal(off, "two"))


def test_a_card_that_was_shown_again_and_again_is_streamed_less(world: World) -> None:
    shown = np.full(4_000, 3)
    assert (appeal(world, shown_before=shown) < appeal(world)).all()
    off = make(effects=Effects(fatigue=False))
    np.testing.assert_array_equal(appeal(off, shown_before=shown), appeal(off))


def explained(world: World) -> float:
    """Share of the variance of the logit that is linear in match, popularity, quality and listener."""
    listener, hour, weekday, device, item, at_s = cards(world)
    taste = world.taste(listener, hour, weekday, device, at_s)
    music = world.catalogue
    columns = [
        np.einsum("md,md->m", taste, music.vector[item]),
        music.popularity[item],
        music.quality[item],
        world.population.openness[listener],
        np.ones(len(item)),
    ]
    y = logit(appeal(world))
    x = np.stack(columns, axis=1)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - residual.var() / y.var())


def test_only_the_switched_terms_are_beyond_a_linear_model_of_the_truth(world: World) -> None:
    plain = make(effects=Effects(explanation=False, fatigue=False, curved_taste=False))
    assert explained(plain) == pytest.approx(1.0, abs=1e-6)
    assert explained(world) < 0.85


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_tracks": 0}, "n_tracks is 0"),
        ({"n_interests": 1}, "n_interests is 1"),
        ({"countries": ("US",)}, "expected one zone a country"),
        ({"playlist_length": 2.0}, "playlist_length must be"),
    ],
)
def test_impossible_worlds_are_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]


def test_cards_that_do_not_exist_are_refused(world: World) -> None:
    listener, hour, weekday, device, item, at_s = cards(world)
    item[3] = 3_000
    with pytest.raises(ValueError, match=r"item\[3\] is 3000; expected a row of the catalogue, 0 to 2999"):
        appeal_of(world, listener, hour, weekday, device, item, ["x"] * len(item), at_s)
    with pytest.raises(ValueError, match="hour has 2 entries; expected 4000"):
        appeal_of(world, listener, hour[:2], weekday, device, item, ["x"] * len(item), at_s)
