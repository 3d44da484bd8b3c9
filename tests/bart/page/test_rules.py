"""Business rules: each blocks, lifts, caps or fixes what it says, before the draw and without chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

import numpy as np
import pytest

from bart.page.policy import PagePolicy
from bart.page.rules import Boost, Pin, Rules
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, ItemTable, Labels, Listener, Members, Shelf, Wishes

N = 8
ITEMS = ItemTable(
    item_id=np.array([f"item-{i}" for i in range(N)], dtype=object),
    title=np.array([""] * N, dtype=object),
    type=np.array([0, 0, 1, 0, 0, 4, 0, 0], dtype=np.int8),
    artists=Labels.of([["ann"], ["ann"], ["ann", "bob"], ["bob"], ["cat"], [], ["ann"], ["cat", "ann"]]),
    genres=Labels.of([["jazz"], ["rock"], ["jazz", "rock"], [], [], [], ["jazz"], ["folk"]]),
    released_at=np.array(
        ["2020-01-01", "2024-05-02", "2024-05-01", "NaT", "2020-01-01", "NaT", "2030-01-01", "NaT"],
        dtype="datetime64[D]",
    ),
    countries=Labels.of([[], ["SE"], ["SE", "NO"], ["NO"], [], [], [], []]),
    explicit=np.array([False, False, False, False, True, False, False, True]),
    popularity=np.linspace(0, 1, N),
    duration_s=np.full(N, np.nan),
    vector=np.zeros((N, 3), dtype=np.float32),
)
SHELVES = (Shelf("fresh", "New"), Shelf("again", "Jump back in"))
ALL = Candidates(np.arange(N), np.array([0, 0, 0, 0, 1, 1, 1, 1]), SHELVES)
LISTENER = Listener("user", np.zeros(3, dtype=np.float32), recent=np.array([5, 0, 3]))
CONTEXT = Context(datetime(2024, 5, 1, 23, 0, tzinfo=timezone.utc), country="SE")
NOTHING = Rules(block_region=False, block_explicit=False, block_unreleased=False)


def kept(rules: Rules, context: Context = CONTEXT, listener: Listener = LISTENER) -> list[int]:
    candidates, pins = rules.apply(ITEMS, listener, context, ALL)
    assert pins == ()
    np.testing.assert_array_equal(candidates.shelf, ALL.shelf[candidates.item])
    return candidates.item.tolist()


def test_without_rules_the_candidates_pass_untouched() -> None:
    assert NOTHING.apply(ITEMS, LISTENER, CONTEXT, ALL)[0] is ALL


def test_an_item_with_countries_is_shown_only_there() -> None:
    rules = replace(NOTHING, block_region=True)
    assert kept(rules) == [0, 1, 2, 4, 5, 6, 7]
    assert kept(rules, replace(CONTEXT, country="NO")) == [0, 2, 3, 4, 5, 6, 7]
    assert kept(rules, replace(CONTEXT, country="")) == [0, 4, 5, 6, 7]


def test_explicit_items_are_blocked_where_they_are_not_allowed() -> None:
    rules = replace(NOTHING, block_explicit=True)
    assert kept(rules) == list(range(N))
    assert kept(rules, replace(CONTEXT, explicit_allowed=False)) == [0, 1, 2, 3, 5, 6]


def test_artists_are_blocked_by_configuration_and_by_the_listener() -> None:
    assert kept(replace(NOTHING, blocked_artists=frozenset({"bob", "nobody"}))) == [0, 1, 4, 5, 6, 7]
    assert kept(NOTHING, listener=replace(LISTENER, blocked_artists=frozenset({"cat"}))) == [0, 1, 2, 3, 5, 6]
    both = replace(LISTENER, blocked_artists=frozenset({"cat"}))
    assert kept(replace(NOTHING, blocked_artists=frozenset({"bob"})), listener=both) == [0, 1, 5, 6]


def wishing(**wishes: Any) -> Listener:
    return replace(LISTENER, wishes=Wishes(**wishes))


def test_a_listeners_wishes_hold_whatever_is_configured_and_allowed() -> None:
    assert kept(NOTHING, listener=wishing(blocked_artists={"cat"})) == [0, 1, 2, 3, 5, 6]
    assert kept(NOTHING, listener=wishing(blocked_items={"item-1", "item-99"}, not_interested={"item-2"})) == [
        0, 3, 4, 5, 6, 7,
    ]  # fmt: skip
    assert kept(NOTHING, listener=wishing(explicit=False)) == [0, 1, 2, 3, 5, 6]
    pinned = replace(NOTHING, pins=(Pin(0, 0, "item-1"),))
    assert pinned.apply(ITEMS, wishing(blocked_items={"item-1"}), CONTEXT, ALL)[1] == ()


def test_a_shelf_that_is_explained_by_what_is_blocked_does_not_stand() -> None:
    def standing(**wishes: Any) -> list[int]:
        shelves = (
            Shelf("because_you_played", "", parameters=(("item", "item-3"), ("title", "..."))),  # by bob
            Shelf("more_of_artist", "", parameters=(("artist", "cat"),)),
            Shelf("mood", "", parameters=(("words", "ann and the rest"),)),
        )
        given = Candidates(np.array([5, 0, 6]), np.array([0, 1, 2]), shelves)
        return [int(n) for n in NOTHING.apply(ITEMS, wishing(**wishes), CONTEXT, given)[0].shelf]

    assert standing() == [0, 1, 2]
    assert standing(blocked_items={"item-3"}) == [1, 2] == standing(blocked_artists={"bob"})
    assert standing(blocked_artists={"cat"}) == [0, 2]
    assert standing(blocked_artists={"the rest"}) == [0, 1]
    assert standing(blocked_artists={"and"}) == [0, 1, 2]


def test_a_container_is_blocked_with_its_artist_or_with_all_that_it_holds() -> None:
    kind = np.array([0, 0, 0, 0, 0, 2, 1, 3], dtype=np.int8)  # a playlist of 0 and 3, an album of 4, an artist
    members = Members.of_lists([[], [], [], [], [], [0, 3], [4], []])
    title = np.array([""] * 7 + ["dot"], dtype=object)
    items = replace(ITEMS, type=kind, members=members, title=title)

    def left(**wishes: Any) -> list[int]:
        given = Candidates(np.arange(5, 8), np.zeros(3, dtype=np.int64), SHELVES)
        return [int(row) for row in NOTHING.apply(items, wishing(**wishes), CONTEXT, given)[0].item]

    assert left() == [5, 6, 7]
    assert left(blocked_items={"item-0", "item-4"}) == [5, 7]
    assert left(blocked_items={"item-0", "item-3"}) == [6, 7]
    assert left(blocked_artists={"ann"}) == [5]  # one of the list is by bob
    assert left(blocked_artists={"dot"}) == [5, 6]


def test_what_was_played_last_is_not_shown_again() -> None:
    assert kept(replace(NOTHING, block_recent=2)) == [1, 2, 3, 4, 6, 7]
    assert kept(replace(NOTHING, block_recent=50)) == [1, 2, 4, 6, 7]


def test_items_are_shown_from_their_release_to_their_last_day() -> None:
    assert kept(replace(NOTHING, block_unreleased=True)) == [0, 2, 3, 4, 5, 7]
    until = {"item-0": date(2024, 5, 1), "item-3": date(2024, 4, 30), "not in the table": date(2000, 1, 1)}
    assert kept(replace(NOTHING, available_until=until)) == [0, 1, 2, 4, 5, 6, 7]


def test_the_defaults_keep_to_rights_and_the_listeners_wishes() -> None:
    assert kept(Rules(), replace(CONTEXT, explicit_allowed=False)) == [0, 2, 5]


def test_the_cap_keeps_the_first_of_an_artist_by_candidate_order() -> None:
    assert kept(replace(NOTHING, cap_per_artist=2)) == [0, 1, 3, 4, 5, 6, 7]
    assert kept(replace(NOTHING, cap_per_artist=1)) == [0, 3, 4, 5, 6]
    assert kept(replace(NOTHING, cap_per_artist=1, cap_scope="page")) == [0, 3, 4, 5]
    backwards = Candidates(ALL.item[::-1].copy(), ALL.shelf[::-1].copy(), SHELVES)
    capped, _ = replace(NOTHING, cap_per_artist=1, cap_scope="page").apply(ITEMS, LISTENER, CONTEXT, backwards)
    assert capped.item.tolist() == [7, 6, 5, 3]


def test_the_cap_counts_what_is_left_after_blocking() -> None:
    rules = replace(NOTHING, cap_per_artist=1, block_recent=2)
    assert kept(rules) == [1, 3, 4, 6]


def test_boosts_change_the_score_of_what_they_match_and_leave_the_raw_score() -> None:
    raw = np.linspace(0.1, 0.8, N)
    for boost, rows in (
        (Boost("item", "item-3", add=1), [3]),
        (Boost("artist", "ann", add=1), [0, 1, 2, 6, 7]),
        (Boost("genre", "jazz", add=1), [0, 2, 6]),
        (Boost("type", "show", add=1), [5]),
        (Boost("artist", "nobody", add=1), []),
        (Boost("item", "nothing", add=1), []),
    ):
        score = Rules(boosts=(boost,)).boost(ITEMS, ALL, raw)
        assert np.flatnonzero(score != raw).tolist() == rows
        np.testing.assert_array_equal(score[rows], raw[rows] + 1)
    np.testing.assert_array_equal(raw, np.linspace(0.1, 0.8, N))
    in_turn = Rules(boosts=(Boost("item", "item-3", factor=2, add=1), Boost("item", "item-3", factor=3)))
    assert in_turn.boost(ITEMS, ALL, raw)[3] == (raw[3] * 2 + 1) * 3
    assert Rules().boost(ITEMS, ALL, raw) is raw


def test_a_boost_by_shelf_is_refused_since_shelves_are_chosen_by_raw_scores() -> None:
    with pytest.raises(ValueError, match="boost kind is 'shelf'; shelves are chosen by the model's scores"):
        Boost("shelf", "again", add=1)


@pytest.mark.parametrize("boost", [Boost("item", "item-3", factor=1e308), Boost("item", "item-3", add=1e308)])
def test_a_boost_beyond_the_largest_number_is_refused(boost: Boost) -> None:
    with pytest.raises(ValueError, match=r"score\[3\] of 1e\+308 is inf after boosts; expected a finite number"):
        Rules(boosts=(boost,)).boost(ITEMS, ALL, np.full(N, 1e308))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rules(cap_per_artist=float("nan")), "cap_per_artist is nan; expected an integer >= 1"),  # type: ignore[arg-type]
        (lambda: Rules(cap_per_artist=1.5), "cap_per_artist is 1.5"),  # type: ignore[arg-type]
        (lambda: Rules(cap_per_artist=True), "cap_per_artist is True"),
        (lambda: Rules(cap_per_artist="3"), "cap_per_artist is '3'"),  # type: ignore[arg-type]
        (lambda: Rules(block_recent=2.5), "block_recent is 2.5; expected an integer >= 0"),  # type: ignore[arg-type]
        (lambda: Rules(block_recent=None), "block_recent is None"),  # type: ignore[arg-type]
        (lambda: Rules(boosts=("x",)), r"boosts\[0\] is 'x'; expected a Boost"),  # type: ignore[arg-type]
        (lambda: Rules(pins=((0, 0, "a"),)), r"pins\[0\] is \(0, 0, 'a'\); expected a Pin"),  # type: ignore[arg-type]
        (lambda: Rules(blocked_artists=None), "blocked_artists is None"),  # type: ignore[arg-type]
        (lambda: Rules(available_until=[1]), r"available_until is \[1\]"),  # type: ignore[arg-type]
        (lambda: Rules.from_mapping({"available_until": [1]}), r"available_until is \[1\]; expected a date by item id"),
        (lambda: Boost("item", "x", "2"), "boost factor is '2'; expected a finite number"),  # type: ignore[arg-type]
        (lambda: Boost("item", None), "boost name is None; expected a non-empty string"),  # type: ignore[arg-type]
        (lambda: Pin(None, 0, "a"), "pin row is None; expected an integer >= 0"),  # type: ignore[arg-type]
        (lambda: Pin(0, 1.5, "a"), "pin column is 1.5; expected an integer >= 0"),  # type: ignore[arg-type]
        (lambda: Pin(0, 0, 5), "pin item_id is 5; expected a string"),  # type: ignore[arg-type]
    ],
)
def test_values_of_another_type_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pinned_item_is_held_out_at_the_end_wherever_it_came_from() -> None:
    few = ALL.keep(np.array([True, True, True, False, True, False, False, False]))
    rules = replace(NOTHING, pins=(Pin(0, 1, "item-1"), Pin(2, 0, "item-6")))
    candidates, pins = rules.apply(ITEMS, LISTENER, CONTEXT, few)
    assert candidates.item.tolist() == [0, 2, 4, 1, 6]
    assert candidates.shelf.tolist() == [0, 0, 1, -1, -1]
    assert pins == ((0, 1, 3), (2, 0, 4))
    page = PagePolicy(EpsilonGreedy(0.2), EpsilonGreedy(0.2)).decide(
        candidates, np.zeros(5), 2, 2, np.random.default_rng(0), pins=pins
    )
    assert candidates.item[page.card[page.pinned]].tolist() == [1]


def test_a_pinned_item_leaves_every_shelf_in_which_it_stood() -> None:
    candidates = Candidates(np.array([1, 0, 1]), np.array([0, 0, 1]), SHELVES)
    held, pins = replace(NOTHING, pins=(Pin(0, 0, "item-1"),)).apply(ITEMS, LISTENER, CONTEXT, candidates)
    assert held.item.tolist() == [0, 1]
    assert pins == ((0, 0, 1),)


def test_pins_keep_to_their_surface_and_to_the_blocks_but_not_to_recency() -> None:
    rules = Rules(
        block_recent=3,
        pins=(
            Pin(0, 0, "item-0"),  # played recently
            Pin(0, 1, "item-3"),  # not in this country
            Pin(0, 2, "item-6"),  # not yet released
            Pin(0, 3, "unknown"),
            Pin(0, 4, "item-2", surface="radio"),
        ),
    )
    assert [pin[:2] for pin in rules.apply(ITEMS, LISTENER, CONTEXT, ALL)[1]] == [(0, 0)]
    radio = replace(CONTEXT, surface="radio", country="NO")
    assert [pin[:2] for pin in rules.apply(ITEMS, LISTENER, radio, ALL)[1]] == [(0, 0), (0, 1), (0, 4)]
    assert rules.without_effect(ITEMS) == ("the pin of 'unknown'",)


def test_boosts_of_what_no_item_has_are_told() -> None:
    known = (
        Boost("genre", ITEMS.genres.vocabulary[0]),
        Boost("artist", ITEMS.artists.vocabulary[0]),
        Boost("type", "show"),
    )
    typing_errors = (Boost("genre", "jaz"), Boost("artist", "nobody"), Boost("item", "nothing"))
    told = Rules(boosts=(*known, *typing_errors)).without_effect(ITEMS)
    assert told == ("the boost of genre 'jaz'", "the boost of artist 'nobody'", "the boost of item 'nothing'")


def test_an_empty_candidate_set_passes_every_rule() -> None:
    none = Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), SHELVES)
    rules = Rules(
        blocked_artists=frozenset({"ann"}),
        block_recent=1,
        available_until={"item-0": date(2020, 1, 1)},
        boosts=(Boost("genre", "jazz", add=1),),
        cap_per_artist=1,
    )
    candidates, pins = rules.apply(ITEMS, LISTENER, CONTEXT, none)
    assert len(candidates) == 0
    assert pins == ()
    assert len(rules.boost(ITEMS, candidates, np.empty(0))) == 0


def test_equal_rules_have_equal_versions_and_any_change_gives_another() -> None:
    rules = Rules(
        blocked_artists=frozenset({"ann", "bob"}),
        available_until={"b": date(2024, 1, 1), "a": date(2024, 1, 2)},
        pins=(Pin(0, 0, "x"), Pin(1, 0, "y")),
    )
    same = Rules(
        blocked_artists=frozenset({"bob", "ann"}),
        available_until={"a": date(2024, 1, 2), "b": date(2024, 1, 1)},
        pins=(Pin(1, 0, "y"), Pin(0, 0, "x")),
    )
    assert rules.version == same.version
    others = [
        Rules(),
        replace(rules, block_recent=1),
        replace(rules, blocked_items=frozenset({"x"})),
        replace(rules, block_region=False),
        replace(rules, cap_per_artist=2),
        replace(rules, boosts=(Boost("item", "x", add=0.1),)),
        replace(rules, boosts=(Boost("item", "x", add=0.2),)),
        replace(rules, available_until={}),
        replace(rules, pins=()),
    ]
    assert len({rules.version, *(other.version for other in others)}) == len(others) + 1


def test_a_blocked_item_is_shown_to_nobody_in_any_table_and_not_as_a_pin_either() -> None:
    rules = replace(NOTHING, blocked_items=frozenset({"item-2", "item-5", "unknown"}))
    assert kept(rules) == [0, 1, 3, 4, 6, 7]
    renamed = replace(ITEMS, item_id=ITEMS.item_id[::-1].copy())
    shown = rules.apply(renamed, LISTENER, CONTEXT, ALL)[0]
    assert renamed.item_id[shown.item].tolist() == [f"item-{i}" for i in (7, 6, 4, 3, 1, 0)]
    assert kept(rules) == [0, 1, 3, 4, 6, 7]
    pinned = replace(rules, pins=(Pin(0, 0, "item-5"), Pin(0, 1, "item-6")))
    candidates, pins = pinned.apply(ITEMS, LISTENER, CONTEXT, ALL)
    assert [ITEMS.item_id[candidates.item[slot]] for _, _, slot in pins] == ["item-6"]
    because = Shelf("because_you_played", "Because you played Two", parameters=(("item", "item-2"), ("title", "Two")))
    told = Candidates(np.array([0, 1, 3]), np.array([0, 1, 1]), (SHELVES[0], because))
    assert rules.apply(ITEMS, LISTENER, CONTEXT, told)[0].item.tolist() == [0]
    with pytest.raises(ValueError, match="blocked_items is the text 'item-2'; expected a set of items"):
        Rules(blocked_items="item-2")  # type: ignore[arg-type]


def test_the_version_of_the_default_rules_is_the_same_on_every_machine() -> None:
    assert Rules().version == "394dfaefdeed"


def test_rules_come_from_plain_values() -> None:
    rules = Rules.from_mapping(
        {
            "blocked_artists": ["ann"],
            "available_until": {"item-0": "2024-05-01"},
            "boosts": [{"kind": "genre", "name": "jazz", "factor": 1.5}],
            "pins": [{"row": 0, "column": 1, "item_id": "item-1"}],
            "cap_per_artist": 2,
        }
    )
    assert rules == Rules(
        blocked_artists=frozenset({"ann"}),
        available_until={"item-0": date(2024, 5, 1)},
        boosts=(Boost("genre", "jazz", factor=1.5),),
        pins=(Pin(0, 1, "item-1"),),
        cap_per_artist=2,
    )
    assert Rules.from_mapping({}) == Rules()
    with pytest.raises(ValueError, match="rules has an unknown entry 'blok'; expected some of"):
        Rules.from_mapping({"blok": 1})
    with pytest.raises(ValueError, match="rules has a boost or pin with wrong entries"):
        Rules.from_mapping({"pins": [{"row": 1}]})


def test_bad_configuration_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="block_recent is -1; expected an integer >= 0"):
        Rules(block_recent=-1)
    with pytest.raises(ValueError, match="cap_per_artist is 0; expected an integer >= 1, or None"):
        Rules(cap_per_artist=0)
    with pytest.raises(ValueError, match="cap_scope is 'row'; expected one of shelf, page"):
        Rules(cap_scope="row")
    with pytest.raises(ValueError, match="blocked_artists is the text 'ann'; expected a set of artists"):
        Rules(blocked_artists="ann")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"available_until\['a'\] is '2024-01-01'; expected a date"):
        Rules(available_until={"a": "2024-01-01"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"pins\[1\] takes the slot or the item of an earlier pin"):
        Rules(pins=(Pin(0, 0, "a"), Pin(0, 0, "b")))
    with pytest.raises(ValueError, match=r"pins\[1\] takes the slot or the item of an earlier pin"):
        Rules(pins=(Pin(0, 0, "a", surface="radio"), Pin(0, 1, "a")))
    Rules(pins=(Pin(0, 0, "a", surface="radio"), Pin(0, 0, "a", surface="default")))
    with pytest.raises(ValueError, match="pin of 'a' is at"):
        Pin(-1, 0, "a")
    with pytest.raises(ValueError, match="pin item_id is empty"):
        Pin(0, 0, "")
    with pytest.raises(ValueError, match="boost kind is 'mood'; expected one of item, artist"):
        Boost("mood", "sad")
    with pytest.raises(ValueError, match="boost name is 'song'; expected an item type"):
        Boost("type", "song")
    with pytest.raises(ValueError, match="boost factor is nan; expected a finite number"):
        Boost("item", "a", factor=float("nan"))
    with pytest.raises(ValueError, match="boost factor is -1"):
        Boost("item", "a", factor=-1)
    with pytest.raises(ValueError, match=r"score has shape \(2,\); expected \(8,\)"):
        Rules(boosts=(Boost("item", "a"),)).boost(ITEMS, ALL, np.zeros(2))
