"""The values of the features, against their definitions written out one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from reward_world import item_table

from bart.types import Candidates, Context, Listener, Shelf
from bart.types.levels import LEVELS, UNKNOWN
from recommender.features.definitions import DEFINITIONS, NAMES, bounds_of
from recommender.features.factors import item_factors, plays_matrix
from recommender.features.history import History
from recommender.features.source import HistoryFeatures, open_features
from recommender.features.tables import FeatureTables, Histories, Plays, build_tables

ITEMS = item_table(np.random.default_rng(0), n=80, d=8)
AT = Context(datetime(2026, 3, 1, tzinfo=timezone.utc))
NOW_S = int(AT.at.timestamp())
RNG = np.random.default_rng(1)
PLAYS = Plays(
    np.array([f"u{k}" for k in range(12)], dtype=object),
    RNG.integers(0, 12, 900),
    RNG.integers(0, 80, 900),
    RNG.random(900) < 0.3,
    NOW_S - RNG.integers(0, 150 * 86_400, 900),
)
TABLES = build_tables(PLAYS, len(ITEMS), np.random.default_rng(2))
FEATURES = HistoryFeatures(ITEMS, TABLES)
HISTORIES = Histories(ITEMS, TABLES).of_plays(PLAYS)


def visit(history: History | None) -> tuple[Listener, Context, Candidates]:
    vector = ITEMS.vector[3]
    item = np.arange(len(ITEMS))
    listener = Listener("u", vector, history={} if history is None else history.arrays)
    return listener, AT, Candidates(item, np.zeros(len(item), dtype=np.int64), (Shelf("rule", "Title"),))


def plainly(who: int, item: int) -> dict[str, float]:
    """The definitions, over the plays one by one."""
    mine = [
        (i, s, t) for u, i, s, t in zip(PLAYS.listener, PLAYS.item, PLAYS.skipped, PLAYS.at_s, strict=True) if u == who
    ]
    artist, genre = ITEMS.artists.first, ITEMS.genres.first

    def count(same: object) -> tuple[int, int]:
        chosen = [s for i, s, _ in mine if same(i)]  # type: ignore[operator]
        return len(chosen) - sum(chosen), sum(chosen)

    p, s = count(lambda i: i == item)
    ap, asked = count(lambda i: artist[i] == artist[item])
    gp, gs = count(lambda i: genre[i] == genre[item])
    total, skips = count(lambda _: True)
    times = [t for i, passed, t in mine if artist[i] == artist[item] and not passed]
    days = min((NOW_S - max(times)) / 86_400, 99.0) if times else 99.0
    played = [i for i, passed, _ in mine if not passed]
    usual = float(np.mean(ITEMS.popularity[played]))
    history = HISTORIES[f"u{who}"]
    cosine = np.sort(history.interest @ ITEMS.vector[item])
    own, factor = history.factor, TABLES.factor[item]
    length = np.linalg.norm(own) * np.linalg.norm(factor)
    step = max(np.abs(factor).max(), 1e-12) / 127
    factor = np.round(factor / step) * step  # as it is kept
    all_played = int((PLAYS.item[~PLAYS.skipped] == item).sum())
    all_skipped = int((PLAYS.item[PLAYS.skipped] == item).sum())
    return {
        "cosine": float(ITEMS.vector[3] @ ITEMS.vector[item]),
        "popularity": float(ITEMS.popularity[item]),
        "interest": float(cosine[-1]),
        "second_interest": float(cosine[-2]),
        "mean_interest": float((history.interest @ ITEMS.vector[item]) @ history.weight),
        "item_plays": p,
        "item_skips": (s + 1) / (p + s + 2),
        "artist_plays": ap,
        "artist_skips": (asked + 1) / (ap + asked + 2),
        "artist_days": days,
        "genre_plays": gp / total,
        "genre_skips": (gs + 2) / (gp + gs + 4),
        "plays": total,
        "skips": skips / (total + skips),
        "repeats": 1 - len(set(played)) / len(played),
        "usual_popularity": usual,
        "popularity_gap": abs(float(ITEMS.popularity[item]) - usual),
        "collaborative": float(own @ factor),
        "collaborative_cosine": float(own @ factor / length) if length > 0 else 0.0,
        "all_plays": all_played,
        "all_skips": (all_skipped + 3) / (all_played + all_skipped + 6),
    }


@pytest.mark.parametrize("who", range(4))
def test_values_are_what_their_definitions_say(who: int) -> None:
    found = FEATURES.values(*visit(HISTORIES[f"u{who}"]))
    for item in range(len(ITEMS)):
        told = plainly(who, item)
        assert tuple(told) == NAMES
        assert np.allclose(found[item], list(told.values()), atol=1e-5), item


def test_of_a_listener_who_was_not_heard_only_what_needs_no_history_is_known() -> None:
    found = FEATURES.values(*visit(None))
    known = np.isfinite(found).all(axis=0)
    assert {name for name, so in zip(NAMES, known, strict=True) if so} == {
        "cosine", "popularity", "all_plays", "all_skips",
    }  # fmt: skip
    level = FEATURES.calibrated([visit(HISTORIES["u1"])]).features(*visit(None)).level
    assert (level[:, ~known] == UNKNOWN).all()


@pytest.mark.parametrize("history", [None, *(HISTORIES[f"u{k}"] for k in range(3))])
def test_a_level_is_how_many_of_its_bounds_a_value_has_reached(history: History | None) -> None:
    bounded = FEATURES.calibrated([visit(one) for one in HISTORIES.values()])
    value, bound = bounded.values(*visit(history)), bounded.tables.bound
    reached = (value[:, :, None] >= bound).sum(axis=2)
    assert np.array_equal(bounded.features(*visit(history)).level, np.where(np.isnan(value), UNKNOWN, reached))


def test_levels_of_the_candidates_that_bounded_them_are_about_equally_frequent() -> None:
    visits = [visit(history) for history in HISTORIES.values()]
    bounded = FEATURES.calibrated(visits)
    level = np.concatenate([bounded.features(*one).level for one in visits])
    share = np.bincount(level[:, NAMES.index("cosine")], minlength=LEVELS) / len(level)
    assert share[UNKNOWN] == 0
    assert (share[:UNKNOWN] > 0.03).all()
    assert (share < 0.15).all()


def test_the_lowest_value_has_a_level_of_its_own_where_it_is_frequent() -> None:
    value = np.concatenate([np.zeros(500), np.random.default_rng(0).random(500) + 1]).astype(np.float32)
    bound = bounds_of(value)
    assert (np.searchsorted(bound, value, side="right") == 0).sum() == 500
    assert (np.diff(bound) > 0).all()
    assert np.isinf(bounds_of(np.ones(5, dtype=np.float32))).all()
    assert np.isinf(bounds_of(np.full(5, np.nan, dtype=np.float32))).all()


def test_factors_bring_items_of_the_same_listeners_together() -> None:
    rng = np.random.default_rng(3)
    listener = rng.integers(0, 40, 4_000)
    item = np.where(listener < 20, rng.integers(0, 25, 4_000), rng.integers(25, 50, 4_000))
    factor, _ = item_factors(plays_matrix(listener, item, 40, 50), 2, rng)
    unit = factor / np.linalg.norm(factor, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[:25, :25].min() > cosine[:25, 25:].max()


def test_tables_read_back_to_the_same_features_and_a_folder_without_has_none(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert open_features(tmp_path, ITEMS) == (None, None)
    bounded = FEATURES.calibrated([visit(HISTORIES["u0"])])
    bounded.tables.save(tmp_path)
    again, keeps = open_features(tmp_path, ITEMS)
    assert again is not None
    assert keeps is not None
    assert keeps.tables.version == bounded.tables.version
    assert np.array_equal(
        again.features(*visit(HISTORIES["u2"])).level, bounded.features(*visit(HISTORIES["u2"])).level
    )


def test_of_items_after_the_batch_nothing_is_known_but_the_listeners_own_plays() -> None:
    shorter = HistoryFeatures(
        ITEMS, FeatureTables(TABLES.factor[:70], TABLES.weight[:70], TABLES.of_all[:70], TABLES.bound)
    )
    found, whole = (source.values(*visit(HISTORIES["u1"])) for source in (shorter, FEATURES))
    unknown = [NAMES.index(name) for name in ("collaborative", "collaborative_cosine", "all_plays", "all_skips")]
    assert np.isnan(found[70:][:, unknown]).all()
    assert np.array_equal(found[:70], whole[:70])


def test_the_names_are_distinct_and_each_says_what_it_is() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(one.says and one.source and one.moves and one.group for one in DEFINITIONS)
    assert replace(DEFINITIONS[0], name="x").name not in NAMES
