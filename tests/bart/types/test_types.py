"""The records refuse what cannot be, and keep what they were given."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bart.errors import BundleError
from bart.item_store import load_items, save_items
from bart.types import Candidates, Context, Decision, ItemTable, Labels, Listener, ListenerTraits, Page, Shelf


def item_table(n: int = 5, d: int = 4) -> ItemTable:
    rng = np.random.default_rng(0)
    return ItemTable(
        item_id=np.array([f"item/{i}" for i in range(n)], dtype=object),
        title=np.array([f"Título {i}" for i in range(n)], dtype=object),
        type=np.zeros(n, dtype=np.int8),
        artists=Labels.of([["a", "b"] if i % 2 else ["b"] for i in range(n)]),
        genres=Labels.of([[] if i == 0 else ["rock"] for i in range(n)]),
        released_at=np.array(
            [np.datetime64("2020-01-01") if i else np.datetime64("NaT") for i in range(n)], dtype="datetime64[D]"
        ),
        countries=Labels.of([None] * n),
        explicit=np.arange(n) % 2 == 0,
        popularity=np.linspace(0, 1, n),
        duration_s=np.array([180.0 if i else np.nan for i in range(n)], dtype=np.float64),
        vector=rng.normal(size=(n, d)).astype(np.float32),
    )


def test_labels_give_back_the_lists_they_were_made_of() -> None:
    lists = [["x", "y"], [], ["y"], ["z", "x"]]
    labels = Labels.of(lists)
    assert [list(labels[i]) for i in range(4)] == lists
    assert labels.first.tolist() == [0, -1, 1, 2]
    assert labels.rows_with("x").tolist() == [0, 3]
    assert labels.rows_with("unknown").tolist() == []


def test_an_item_table_survives_the_disk_to_the_last_bit(tmp_path: Path) -> None:
    items = item_table()
    save_items(items, tmp_path)
    back = load_items(tmp_path)
    for name in ("item_id", "title", "type", "explicit", "popularity", "vector"):
        assert np.array_equal(getattr(items, name), getattr(back, name)), name
    assert np.array_equal(items.duration_s, back.duration_s, equal_nan=True)
    assert np.isnat(back.released_at[0])
    assert back.released_at[1] == np.datetime64("2020-01-01")
    assert [back.artists[i] for i in range(5)] == [items.artists[i] for i in range(5)]
    assert [back.genres[i] for i in range(5)] == [items.genres[i] for i in range(5)]


def test_an_empty_item_table_survives_the_disk(tmp_path: Path) -> None:
    save_items(item_table(0), tmp_path)
    assert len(load_items(tmp_path)) == 0


def test_a_missing_item_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="items.parquet is missing"):
        load_items(tmp_path)


def test_rows_of_unknown_ids_are_minus_one() -> None:
    assert item_table().rows(["item/3", "no such", "item/0"]).tolist() == [3, -1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"popularity": np.full(5, 2.0)}, "popularity must lie in"),
        ({"popularity": np.full(5, np.nan)}, "popularity must lie in"),
        ({"vector": np.zeros((4, 4), np.float32)}, "expected \\(5, d\\)"),
        ({"vector": np.full((5, 4), np.nan, np.float32)}, "vector\\[0\\] is not finite"),
        ({"item_id": np.array(["same"] * 5, dtype=object)}, "must not repeat"),
        ({"title": np.array(["x"], dtype=object)}, "title has 1 entries; expected 5"),
    ],
)
def test_an_item_table_refuses_what_cannot_be(change: dict[str, object], message: str) -> None:
    items = item_table()
    fields = {name: getattr(items, name) for name in items.__dataclass_fields__} | change
    with pytest.raises(ValueError, match=message):
        ItemTable(**fields)


def test_context_gives_the_listeners_own_hour_and_weekday() -> None:
    at = datetime(2026, 3, 1, 23, 30, tzinfo=timezone.utc)  # a Sunday
    assert (Context(at).hour, Context(at).weekday) == (23, 6)
    assert (Context(at, utc_offset_min=60).hour, Context(at, utc_offset_min=60).weekday) == (0, 0)
    assert (Context(at, utc_offset_min=-330).hour, Context(at, utc_offset_min=-330).weekday) == (18, 6)


def test_context_keeps_utc_whatever_zone_it_was_given() -> None:
    zone = timezone(timedelta(hours=5))
    assert Context(datetime(2026, 1, 1, 3, tzinfo=zone)).at == datetime(2025, 12, 31, 22, tzinfo=timezone.utc)


def test_context_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an aware datetime"):
        Context(datetime(2026, 1, 1))


@pytest.mark.parametrize("traits", [{"account_age_d": -1}, {"diversity": 1.1}, {"exploration_success": float("nan")}])
def test_traits_outside_their_range_are_refused(traits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ListenerTraits(**traits)


def test_a_listener_without_id_or_with_a_broken_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="user_id is empty"):
        Listener("", np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="finite"):
        Listener("u", np.full(4, np.inf, np.float32))


def test_candidates_know_whether_shelves_overlap() -> None:
    shelves = (Shelf("a", "A"), Shelf("b", "B"))
    apart = Candidates(np.array([4, 2]), np.array([0, 1]), shelves)
    twice = Candidates(np.array([4, 4]), np.array([0, 1]), shelves)
    assert not apart.overlapping
    assert twice.overlapping
    assert apart.keep(np.array([False, True])).item.tolist() == [2]


def test_candidates_refuse_shelves_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="shelf must lie in"):
        Candidates(np.array([1]), np.array([1]), (Shelf("a", "A"),))


def decision(**changes: Any) -> Decision:
    page = Page(np.array([0]), np.array([[1, 0, -1]]), np.ones(1), np.array([[0.5, 1, np.nan]]), np.zeros((1, 3), bool))
    fields: dict[str, Any] = {
        "request_id": "r", "user_id": "u", "context": Context(datetime(2026, 1, 1, tzinfo=timezone.utc)),
        "traits": ListenerTraits(), "listener": np.zeros(2, np.float32), "batch_id": "", "policy": "epsilon_greedy",
        "shelf_epsilon": np.full(2, 0.2), "card_epsilon": np.full(3, 0.2), "rules_version": "", "seed": 1,
        "shelves": (Shelf("a", "A"),), "item_id": np.array(["x", "y", "z"], dtype=object),
        "shelf": np.array([0, 0, -1]), "raw_score": np.zeros(3), "score": np.zeros(3), "page": page,
    }  # fmt: skip
    return Decision(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shelf_epsilon": np.array([0.2, 5])}, r"shelf_epsilon holds 5.0; expected numbers in \[0, 1\]"),
        ({"card_epsilon": np.full(3, np.nan)}, "shelf_epsilon or card_epsilon is NaN"),
        ({"shelf_epsilon": np.full((1, 2), 0.2)}, r"shelf_epsilon has shape \(1, 2\)"),
        ({"seed": -5}, "seed is -5; expected an integer >= 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"request_id": ""}, "request_id is ''; expected a non-empty string"),
        ({"shelf": np.array([0, 99, 0])}, r"shelf holds 99; expected numbers in \[-1, 1\)"),
        ({"item_id": np.array(["x"], dtype=object), "shelf": np.zeros(1, int), "raw_score": np.zeros(1),
          "score": np.zeros(1)}, r"page.card holds 1; expected numbers in \[-1, 1\)"),
        ({"shelves": (), "shelf": np.full(3, -1)}, r"page.shelf holds 0; expected numbers in \[0, 0\)"),
    ],
)  # fmt: skip
def test_a_decision_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decision(**changes)


def test_only_an_imported_decision_may_be_without_epsilon() -> None:
    unknown = np.full(3, np.nan)
    assert np.isnan(decision(policy="imported:elsewhere", card_epsilon=unknown).card_epsilon).all()


@pytest.mark.parametrize("bad", [7.0, -3.0, np.inf])
def test_a_page_refuses_what_is_no_probability(bad: float) -> None:
    page = decision().page
    with pytest.raises(ValueError, match="shelf_propensity holds"):
        replace(page, shelf_propensity=np.array([bad]))
    with pytest.raises(ValueError, match="card_propensity holds"):
        replace(page, card_propensity=np.array([[0.5, bad, np.nan]]))


def test_candidates_are_not_numbered_by_floats() -> None:
    with pytest.raises(ValueError, match="item has type float64; expected integers"):
        Candidates(np.array([0.5]), np.array([0]), (Shelf("a", "A"),))  # type: ignore[arg-type]
