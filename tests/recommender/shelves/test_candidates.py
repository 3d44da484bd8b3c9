"""Truths of the candidate source: one item in one shelf, the more specific first, and the same for the same stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bart.errors import BundleError
from bart.tensors import mapped
from bart.types import Candidates, CandidateSource, Context, ItemTable, Labels, Listener, Shelf
from recommender.events.table import EVENT_SCHEMA
from recommender.shelves.candidates import (
    CONFIG_FILE,
    CandidateConfig,
    ShelfCandidates,
    build_candidates,
    session_vectors,
)
from recommender.shelves.items import popularity
from recommender.shelves.rules import SHELF_RULES, EditorialList, Proposal, ShelfInputs, ShelfRule
from recommender.shelves.tables import ARRAYS_FILE
from recommender.vectors.track import unit

N = 1_500
AT = datetime(2024, 3, 4, 18, tzinfo=timezone.utc)


def world() -> tuple[ItemTable, pa.Table]:
    """A catalogue of ten genres with sessions of one genre each."""
    rng = np.random.default_rng(0)
    genre = rng.integers(10, size=N)
    artist = genre * 10 + rng.integers(10, size=N)
    centre = rng.standard_normal((10, 40), dtype=np.float32)
    ids = np.array([f"t{k}" for k in range(N)], dtype=object)
    items = ItemTable(
        item_id=ids,
        title=ids,
        type=np.zeros(N, dtype=np.int8),
        artists=Labels(artist, np.arange(N + 1), [f"artist {k}" for k in range(100)]),
        genres=Labels(genre, np.arange(N + 1), [f"genre {k}" for k in range(10)]),
        released_at=np.datetime64("2024-03-01") - rng.integers(900, size=N).astype("timedelta64[D]"),
        countries=Labels.of([()] * N),
        explicit=np.zeros(N, dtype=bool),
        popularity=popularity(rng.permutation(N)),
        duration_s=np.full(N, 200.0),
        vector=unit(centre[genre] + 0.5 * rng.standard_normal((N, 40), dtype=np.float32)),
    )
    of_genre = [np.flatnonzero(genre == g) for g in range(10)]
    row = np.concatenate([rng.choice(of_genre[s % 10], size=10) for s in range(1_000)])
    start_s = int(AT.timestamp()) - rng.integers(30 * 24, size=1_000) * 3_600
    at_us = (np.sort(start_s)[:, None] + 180 * np.arange(10)).reshape(-1) * 1_000_000
    columns = {name: pa.nulls(len(row), EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names}
    columns["user_id"] = pa.array(np.repeat(np.arange(1_000) % 50, 10).astype(str))
    columns["item_id"] = pa.array(ids[row].tolist())
    columns["started_at"] = pa.array(at_us).cast(pa.timestamp("us", "UTC"))
    return items, pa.table(columns, schema=EVENT_SCHEMA)


ITEMS, EVENTS = world()
SOURCE = build_candidates(ITEMS, EVENTS, np.random.default_rng(0))


def listener(seed: int) -> Listener:
    rng = np.random.default_rng(seed)
    known = rng.permutation(np.flatnonzero(np.isin(ITEMS.genres.first, rng.integers(10, size=3))))
    vector = unit(ITEMS.vector[known[:10]].mean(axis=0, keepdims=True))[0]
    return Listener(f"u{seed}", vector, recent=known[:30], favourite=known[20:60], rested=known[60:80])


COLD = Listener("new", np.zeros(40, np.float32), known=False)


def ask(source: CandidateSource, who: Listener, seed: int = 0, hours: int = 0) -> Candidates:
    return source.candidates(who, Context(AT + timedelta(hours=hours)), np.random.default_rng(seed))


def text(candidates: Candidates) -> str:
    return json.dumps([candidates.item.tolist(), candidates.shelf.tolist(), [repr(s) for s in candidates.shelves]])


@pytest.mark.parametrize("seed", range(8))
def test_an_item_stands_in_one_shelf_and_none_is_too_long_or_too_short(seed: int) -> None:
    given = ask(SOURCE, listener(seed), seed, hours=seed * 5)
    assert not given.overlapping
    size = np.bincount(given.shelf, minlength=len(given.shelves))
    assert size.max() <= 50
    assert size.min() >= 3
    assert 300 <= len(given) <= 1_000


@pytest.mark.parametrize("seed", range(4))
def test_an_item_that_two_rules_propose_stands_in_the_more_specific(seed: int) -> None:
    who = listener(seed)
    given = ask(SOURCE, who, seed)
    rank = np.array([SHELF_RULES[shelf.rule].specificity for shelf in given.shelves])
    assert (np.diff(rank) >= 0).all()
    stands = dict(zip(given.item.tolist(), rank[given.shelf].tolist(), strict=True))
    played = [row for row in who.recent.tolist() if row not in set(who.rested.tolist())]
    assert all(stands[row] == SHELF_RULES["jump_back_in"].specificity for row in played if row in stands)


def test_the_same_stream_gives_the_same_candidates_and_another_stream_others() -> None:
    first = text(ask(SOURCE, listener(1), seed=5))
    assert text(ask(SOURCE, listener(1), seed=5)) == first
    assert any(text(ask(SOURCE, listener(1), seed=s)) != first for s in range(6, 12))


def test_a_card_that_rests_stands_nowhere() -> None:
    who = listener(2)
    assert not np.isin(ask(SOURCE, who).item, who.rested).any()


@pytest.mark.parametrize("beyond", [0, 10**8])  # the next row, and one far outside what the process holds
def test_items_that_came_after_this_table_are_passed_over_in_a_listeners_rows(beyond: int) -> None:
    who = listener(1)
    later = {name: np.insert(getattr(who, name), 2, N + beyond) for name in ("recent", "favourite", "rested")}
    known, given = ask(SOURCE, who), ask(SOURCE, replace(who, **later))
    assert (given.item.tolist(), given.shelves) == (known.item.tolist(), known.shelves)


def proposing(*rows: list[int], per_shelf: int = 5, least: int = 2) -> ShelfCandidates:
    """A source whose shelf number k proposes the given rows, in that order of specificity."""

    def rule(k: int) -> ShelfRule:
        return ShelfRule(lambda _: [(Shelf("mine", f"shelf {k}"), np.array(rows[k], dtype=np.int64))], k)

    rules = {f"rule {k}": rule(k) for k in range(len(rows))}
    config = CandidateConfig(per_shelf=per_shelf, least=least)
    return ShelfCandidates(ITEMS, SOURCE.tables, SOURCE.index, rules, config)


@pytest.mark.parametrize("seed", range(30))
def test_a_shelf_takes_the_first_rows_that_nobody_took_before_or_none_where_they_are_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(25)[: rng.integers(12)].tolist() for _ in range(rng.integers(1, 9))]
    rested = rng.permutation(25)[: rng.integers(10)]
    left = set(range(25)) - set(rested.tolist())
    expected = []
    for k, proposed in enumerate(rows):
        took = [row for row in proposed if row in left][:5]
        if len(took) >= 2:
            left -= set(took)
            expected.append((f"shelf {k}", took))
    given = ask(proposing(*rows), Listener("u", COLD.vector, rested=rested))
    found = [(shelf.title, given.item[given.shelf == k].tolist()) for k, shelf in enumerate(given.shelves)]
    assert found == expected


def test_a_row_that_is_proposed_twice_stands_once() -> None:
    given = ask(proposing([3, 3, 4], [4, 5, 3, 5, 6]), COLD)
    assert given.item.tolist() == [3, 4, 5, 6]
    assert given.shelf.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("row", [-1, N])
def test_a_row_that_no_item_has_is_refused_with_the_shelf_that_proposes_it(row: int) -> None:
    with pytest.raises(ValueError, match=r"shelf 'shelf 1' proposes rows that are not in \[0, "):
        ask(proposing([1, 2], [3, row]), COLD)


def test_a_newcomer_gets_shelves_that_need_no_history() -> None:
    rules = {shelf.rule for shelf in ask(SOURCE, COLD).shelves}
    assert rules == {"popular_now", "time_of_day", "new_and_rising", "mood"}


def test_a_newcomer_with_picks_gets_what_is_made_for_them() -> None:
    picked = Listener("new", ITEMS.vector[3], known=False)
    assert "made_for_you" in {shelf.rule for shelf in ask(SOURCE, picked).shelves}


def test_saving_and_loading_changes_no_candidate(tmp_path: Path) -> None:
    SOURCE.save(tmp_path)
    again = ShelfCandidates.load(tmp_path, ITEMS)
    for seed in range(5):
        assert text(ask(again, listener(seed), seed)) == text(ask(SOURCE, listener(seed), seed))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".faiss"}


def test_building_twice_with_one_seed_gives_the_same_candidates() -> None:
    again = build_candidates(ITEMS, EVENTS, np.random.default_rng(0))
    assert text(ask(again, listener(3))) == text(ask(SOURCE, listener(3)))


def test_per_shelf_bounds_every_shelf() -> None:
    source = build_candidates(ITEMS, EVENTS, np.random.default_rng(0), config=CandidateConfig(per_shelf=8))
    given = ask(source, listener(0))
    assert np.bincount(given.shelf).max() == 8


def test_a_rule_of_ones_own_is_one_function_and_one_line(tmp_path: Path) -> None:
    def first_ten(_: ShelfInputs) -> Iterator[Proposal]:
        yield Shelf("first_ten", "The first ten"), np.arange(10, dtype=np.int64)

    editorial = EditorialList("fresh", "Fresh finds", tuple(f"t{k}" for k in range(20, 26)))
    rules = {**SHELF_RULES, "first_ten": ShelfRule(first_ten, 5), "fresh": ShelfRule(editorial, 4)}
    source = ShelfCandidates(ITEMS, SOURCE.tables, SOURCE.index, rules)
    given = ask(source, COLD)
    assert [shelf.rule for shelf in given.shelves[:2]] == ["fresh", "first_ten"]
    assert given.item[:16].tolist() == [*range(20, 26), *range(10)]
    source.save(tmp_path)
    with pytest.raises(BundleError, match="uses the shelf rule 'first_ten'; pass it in `rules`"):
        ShelfCandidates.load(tmp_path, ITEMS)
    again = ShelfCandidates.load(tmp_path, ITEMS, {"first_ten": ShelfRule(first_ten, 99)})
    assert text(ask(again, COLD)) == text(given)


def test_rules_that_propose_nothing_give_no_candidates() -> None:
    source = ShelfCandidates(ITEMS, SOURCE.tables, SOURCE.index, {"jump_back_in": SHELF_RULES["jump_back_in"]})
    given = ask(source, COLD)
    assert len(given) == 0
    assert given.shelves == ()


def test_tables_of_another_catalogue_are_refused() -> None:
    fewer = ItemTable(
        ITEMS.item_id[:9], ITEMS.title[:9], ITEMS.type[:9], Labels.of([()] * 9), Labels.of([()] * 9),
        ITEMS.released_at[:9], Labels.of([()] * 9), ITEMS.explicit[:9], ITEMS.popularity[:9], ITEMS.duration_s[:9],
        ITEMS.vector[:9],
    )  # fmt: skip
    with pytest.raises(BundleError, match="shelf tables are of 1500 items; expected 9"):
        ShelfCandidates(fewer, SOURCE.tables, SOURCE.index)


def test_shelf_tables_of_an_earlier_bundle_are_read(tmp_path: Path) -> None:
    SOURCE.save(tmp_path)
    arrays = mapped(tmp_path / ARRAYS_FILE)
    np.savez(tmp_path / "shelf_tables.npz", **arrays)
    (tmp_path / ARRAYS_FILE).unlink()
    again = ShelfCandidates.load(tmp_path, ITEMS)
    for name in ("popular", "rising", "daypart", "neighbours", "mood", "mood_centre"):
        np.testing.assert_array_equal(getattr(again.tables, name), getattr(SOURCE.tables, name))


@pytest.mark.parametrize("name", [CONFIG_FILE, ARRAYS_FILE])
def test_a_missing_file_is_a_clear_error(name: str, tmp_path: Path) -> None:
    SOURCE.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match="holds no readable"):
        ShelfCandidates.load(tmp_path, ITEMS)


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="least is 9, per_shelf 5; expected 1 <= least <= per_shelf"):
        CandidateConfig(per_shelf=5, least=9)
    with pytest.raises(ValueError, match="rules is empty"):
        ShelfCandidates(ITEMS, SOURCE.tables, SOURCE.index, {})


def test_a_session_vector_is_the_unit_mean_of_what_the_session_played() -> None:
    sessions = session_vectors(ITEMS, EVENTS, 10_000, np.random.default_rng(0))
    rows = ITEMS.rows(EVENTS["item_id"].to_pylist()[:10])
    expected = unit(ITEMS.vector[rows].mean(axis=0, keepdims=True))[0]
    np.testing.assert_allclose(sessions[0], expected, atol=1e-5)
    assert len(session_vectors(ITEMS, EVENTS, 7, np.random.default_rng(0))) == 7
