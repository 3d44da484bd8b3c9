"""Truths of the shelf rules: one contract for every rule, and what each promises in its title."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import places
import pyarrow as pa
import pytest

from api.jobs.build import shelf_rules
from api.run.settings import Settings
from bart.errors import DataError
from bart.types import Context, Ints, ItemTable, Labels, Listener, Wishes
from recommender.events.table import EVENT_SCHEMA
from recommender.shelves.items import popularity
from recommender.shelves.labels import is_telling
from recommender.shelves.rules import (
    RULE_GROUP,
    SHELF_RULES,
    EditorialList,
    Lookups,
    Proposal,
    ShelfInputs,
    ShelfRule,
    installed_rules,
    main_labels,
)
from recommender.shelves.tables import ShelfTables, TableConfig, build_tables, daypart_of
from recommender.vectors.index import build_index
from recommender.vectors.track import unit

N, GENRES, ARTISTS = 600, 6, 60
NOW = datetime(2024, 3, 4, tzinfo=timezone.utc)  # a Monday
NEEDS_HISTORY = {"jump_back_in", "because_you_played", "more_of_artist", "more_of_genre", "outside_your_usual"}
NEEDS_CONTAINERS = {
    "continue", "albums_for_you", "artists_for_you", "playlists_like_yours", "shows_you_may_like",
}  # fmt: skip  # tests/recommender/shelves/test_container_rules.py
NEEDS_WISHES = {"new_from_followed"}
rng = np.random.default_rng(0)
ARTIST: Ints = np.arange(N) % ARTISTS
GENRE: Ints = ARTIST % GENRES
CENTRE = rng.standard_normal((GENRES, 40), dtype=np.float32)
VECTOR = unit(CENTRE[GENRE] + 0.5 * rng.standard_normal((N, 40), dtype=np.float32))
VECTOR[5] = 0  # one item that nobody played often enough
NEW = 17  # released the day before the events end


def make_items() -> ItemTable:
    ids = np.array([f"t{k}" for k in range(N)], dtype=object)
    released = np.full(N, np.datetime64("NaT"), dtype="datetime64[D]")
    released[NEW] = np.datetime64("2024-03-03")
    return ItemTable(
        item_id=ids,
        title=np.array([f"Song {k}" for k in range(N)], dtype=object),
        type=np.zeros(N, dtype=np.int8),
        artists=Labels(ARTIST, np.arange(N + 1), [f"Artist {k}" for k in range(ARTISTS)]),
        genres=Labels(GENRE, np.arange(N + 1), [f"genre {k}" for k in range(GENRES)]),
        released_at=released,
        countries=Labels.of([()] * N),
        explicit=np.zeros(N, dtype=bool),
        popularity=popularity(N - np.arange(N)),
        duration_s=np.where(np.arange(N) % 4 == 0, 100.0, 200.0),
        vector=VECTOR,
    )


def make_events() -> pa.Table:
    """Four weeks; item 30 only at eight in the evening, item 31 only in the last week."""
    row = np.concatenate([rng.integers(N, size=12_000), np.full(60, 30), np.full(60, 31)])
    day = np.concatenate([rng.integers(28, size=12_000), np.arange(60) % 28, 21 + np.arange(60) % 7])
    hour = np.concatenate([rng.integers(24, size=12_000), np.full(60, 20), rng.integers(24, size=60)])
    at_us = ((int(NOW.timestamp()) - 28 * 86_400) + day * 86_400 + hour * 3_600) * 1_000_000
    columns = {name: pa.nulls(len(row), EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names}
    columns["user_id"] = pa.array(["u"] * len(row))
    columns["item_id"] = pa.array([f"t{k}" for k in row.tolist()])
    columns["started_at"] = pa.array(at_us).cast(pa.timestamp("us", "UTC"))
    return pa.table(columns, schema=EVENT_SCHEMA)


ITEMS, EVENTS = make_items(), make_events()
INDEX = build_index(VECTOR, rng=np.random.default_rng(0))
TABLES = build_tables(ITEMS, EVENTS, INDEX, np.random.default_rng(0))
LOOKUPS = Lookups.of(ITEMS, TABLES, INDEX)
RECENT: Ints = np.array([62, 2, 122, 14, 75], dtype=np.int64)
FAVOURITE: Ints = np.array([62, 2, 182, 8], dtype=np.int64)
KNOWN = Listener("u", unit(VECTOR[[62, 2, 122]].mean(axis=0, keepdims=True))[0], recent=RECENT, favourite=FAVOURITE)
COLD = Listener("new", np.zeros(40, np.float32), known=False)


def propose(name: str, listener: Listener = KNOWN, want: int = 50, seed: int = 0, at: datetime = NOW) -> list[Proposal]:
    inputs = ShelfInputs.of(listener, Context(at), LOOKUPS, want, np.random.default_rng(seed))
    return list(SHELF_RULES[name].propose(inputs))


@pytest.mark.parametrize("name", SHELF_RULES)
@pytest.mark.parametrize("listener", [KNOWN, COLD], ids=["known", "cold"])
def test_every_rule_proposes_distinct_rows_with_words_under_its_own_name(name: str, listener: Listener) -> None:
    for shelf, row in propose(name, listener):
        assert shelf.rule == name
        assert shelf.title
        assert shelf.key == name
        assert len(np.unique(row)) == len(row) > 0
        assert row.min() >= 0
        assert row.max() < N


@pytest.mark.parametrize("name", SHELF_RULES)
def test_every_rule_gives_the_same_for_the_same_stream(name: str) -> None:
    for (shelf, row), (shelf_again, row_again) in zip(propose(name, seed=7), propose(name, seed=7), strict=True):
        assert shelf == shelf_again
        assert row.tolist() == row_again.tolist()


def test_new_from_followed_shows_late_releases_of_followed_artists_the_newest_first() -> None:
    released = ITEMS.released_at.copy()
    released[[NEW, 17 + ARTISTS, 18, 19, 77 + ARTISTS]] = np.array(
        ["2024-03-01", "2024-03-03", "2024-02-01", "2023-06-01", "2024-04-01"], dtype="datetime64[D]"
    )
    lookups = Lookups.of(replace(ITEMS, released_at=released), TABLES, INDEX)
    follows = Wishes(followed_artists=frozenset({"Artist 17", "Artist 18", "Artist 19", "nobody"}))
    listener = replace(COLD, wishes=follows)

    def shown(listener: Listener, at: datetime = NOW) -> list[int]:
        inputs = ShelfInputs.of(listener, Context(at), lookups, 50, np.random.default_rng(0))
        (proposal,) = SHELF_RULES["new_from_followed"].propose(inputs)
        return [int(row) for row in proposal[1]]

    assert shown(listener) == [17 + ARTISTS, NEW, 18]  # not 19, which is old, nor what is not out yet
    assert shown(replace(listener, recent=np.array([NEW]))) == [17 + ARTISTS, 18]
    blocked = replace(follows, blocked_artists=frozenset({"Artist 17"}))
    assert shown(replace(listener, wishes=blocked)) == [18]
    later = datetime(2031, 1, 1, tzinfo=timezone.utc)  # of a catalogue that ended years ago
    assert shown(listener, later) == [77 + ARTISTS, 17 + ARTISTS, NEW, 18]


def test_more_of_artist_names_one_who_is_followed_and_says_so() -> None:
    follows = Wishes(followed_artists=frozenset({"Artist 40"}))
    shelves = [shelf for shelf, _ in propose("more_of_artist", replace(KNOWN, wishes=follows))]
    assert [shelf.explanation for shelf in shelves][-1] == "You follow Artist 40"
    assert propose("more_of_artist", replace(COLD, wishes=follows))[0][0].title == "More of Artist 40"
    blocked = replace(follows, blocked_artists=frozenset({"Artist 40"}))
    assert propose("more_of_artist", replace(COLD, wishes=blocked)) == []


@pytest.mark.parametrize("name", sorted(NEEDS_HISTORY))
def test_a_rule_that_needs_a_history_proposes_nothing_to_a_newcomer(name: str) -> None:
    assert propose(name, COLD) == []
    assert propose(name, KNOWN) != []


@pytest.mark.parametrize(
    "name", sorted(set(SHELF_RULES) - NEEDS_HISTORY - NEEDS_CONTAINERS - NEEDS_WISHES - {"made_for_you"})
)
def test_a_newcomer_gets_what_needs_no_history(name: str) -> None:
    assert propose(name, COLD) != []


def test_specificity_ranks_differ() -> None:
    ranks = [rule.specificity for rule in SHELF_RULES.values()]
    assert len(set(ranks)) == len(ranks)


def test_made_for_you_is_what_lies_nearest() -> None:
    ((_, row),) = propose("made_for_you", want=20)
    assert row.tolist() == np.argsort(-(VECTOR @ KNOWN.vector), kind="stable")[:20].tolist()


def test_jump_back_in_holds_known_items_only_and_what_was_played_last_and_most_first() -> None:
    ((_, row),) = propose("jump_back_in")
    assert set(row.tolist()) == set(RECENT.tolist()) | set(FAVOURITE.tolist())
    assert row[0] == 62


def test_because_you_played_names_a_recent_item_and_shows_its_neighbours() -> None:
    shelves = propose("because_you_played")
    assert shelves[0][0].parameters[0] == ("item", "t62")
    assert len({dict(shelf.parameters)["item"] for shelf, _ in shelves}) == len(shelves) <= 3
    for shelf, row in shelves:
        seed = ITEMS.row_of[dict(shelf.parameters)["item"]]
        assert seed in RECENT
        assert seed not in row
        near = np.argsort(-(VECTOR @ VECTOR[seed]), kind="stable")[1:11]
        assert row[:10].tolist() == near.tolist()
    seeds = [ITEMS.row_of[dict(shelf.parameters)["item"]] for shelf, _ in shelves]
    assert len(set(ARTIST[seeds].tolist())) == len(seeds)


def test_an_item_without_a_vector_starts_no_shelf() -> None:
    listener = Listener("u", np.zeros(40, np.float32), recent=np.array([5], dtype=np.int64))
    assert propose("because_you_played", listener) == []


def test_more_of_an_artist_or_genre_holds_nothing_else() -> None:
    for name, labels in (("more_of_artist", ITEMS.artists), ("more_of_genre", ITEMS.genres)):
        shelves = propose(name)
        assert len(shelves) == 2
        for shelf, row in shelves:
            (_, label) = shelf.parameters[0]
            assert all(label in labels[r] for r in row.tolist())
    # artist 2 made items 2, 62, 122 and 182: four of the listener's six
    assert propose("more_of_artist")[0][0].parameters == (("artist", "Artist 2"),)


def test_a_blocked_artist_has_no_shelf() -> None:
    listener = Listener("u", KNOWN.vector, recent=RECENT, favourite=FAVOURITE, blocked_artists=frozenset({"Artist 2"}))
    for seed in range(10):
        for shelf, _ in propose("more_of_artist", listener, seed=seed):
            assert shelf.parameters != (("artist", "Artist 2"),)


def test_the_time_of_day_is_the_listeners_own() -> None:
    evening = Context(datetime(2024, 3, 4, 3, tzinfo=timezone.utc), utc_offset_min=-8 * 60)  # Sunday, 19 o'clock
    inputs = ShelfInputs.of(COLD, evening, LOOKUPS, 50, np.random.default_rng(0))
    ((shelf, row),) = SHELF_RULES["time_of_day"].propose(inputs)
    assert shelf.title == "For your Sunday evening"
    assert 30 in row[:3]
    morning = propose("time_of_day", COLD, want=300, at=datetime(2024, 3, 4, 9, tzinfo=timezone.utc))
    assert 30 not in morning[0][1][:100]


def test_dayparts_tell_six_hours_and_weekends_apart() -> None:
    assert [daypart_of(h, 0) for h in (0, 5, 6, 12, 18, 23)] == [0, 0, 1, 2, 3, 3]
    assert daypart_of(0, 5) == daypart_of(0, 6) == 4


def test_rising_holds_what_is_played_more_than_before_and_new_releases() -> None:
    assert TABLES.rising[0] == 31
    assert NEW in TABLES.rising
    ((_, row),) = propose("new_and_rising", COLD)
    assert row[0] == 31


def test_popular_now_is_the_order_of_plays_in_the_last_week() -> None:
    ((_, row),) = propose("popular_now")
    assert row[0] == 31
    assert row.tolist() == TABLES.popular[:50].tolist()


def test_outside_your_usual_leaves_out_the_listeners_genres_and_the_nearest_items() -> None:
    ((_, row),) = propose("outside_your_usual")
    main = main_labels(ITEMS.genres.first, KNOWN)[:3]
    assert not np.isin(GENRE[row], main).any()
    nearest = np.argsort(-(VECTOR @ KNOWN.vector))[:50]
    assert not np.isin(row, nearest).any()


def test_a_mood_is_named_by_what_is_common_in_it() -> None:
    for shelf, row in propose("mood"):
        words = dict(shelf.parameters)["words"].split(" and ")
        share = np.mean([f"genre {g}" in words for g in GENRE[row].tolist()])
        assert share > 1.5 * len(words) / GENRES


def test_an_editorial_list_keeps_its_order_and_passes_over_unknown_ids() -> None:
    rule = EditorialList("fresh", "Fresh finds", ("t9", "gone", "t3"), "Picked by us")
    ((shelf, row),) = rule(ShelfInputs.of(COLD, Context(NOW), LOOKUPS, 50, np.random.default_rng(0)))
    assert row.tolist() == [9, 3]
    assert (shelf.rule, shelf.title, shelf.explanation) == ("fresh", "Fresh finds", "Picked by us")


def test_an_installed_package_brings_rules_under_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(name: str, value: object) -> EntryPoint:
        monkeypatch.setattr(rule_package, name.replace("-", "_"), value, raising=False)
        return EntryPoint(name, f"{rule_package.__name__}:{name.replace('-', '_')}", RULE_GROUP)

    def installed(*points: EntryPoint) -> dict[str, ShelfRule]:
        monkeypatch.setattr(
            "recommender.shelves.rules.entry_points", lambda group: points if group == RULE_GROUP else ()
        )
        return installed_rules()

    rule_package = ModuleType("rules_of_ours")
    monkeypatch.setitem(sys.modules, rule_package.__name__, rule_package)
    ours = ShelfRule(EditorialList("ours", "Ours", ("t9",)), 4)
    assert installed(point("ours", ours)) == {**SHELF_RULES, "ours": ours}
    with pytest.raises(ValueError, match="'ours' is of type int; expected a ShelfRule"):
        installed(point("ours", 3))
    with pytest.raises(ValueError, match="'mood' is taken"):
        installed(point("mood", ours))


def test_editorial_lists_of_the_settings_become_rules() -> None:
    one = {"title": "Fresh finds", "item_ids": ["t9", "t3"], "specificity": 4}
    rules = shelf_rules(Settings.of({"shelves": {"editorial": {"fresh": one}}}))
    assert rules["fresh"] == ShelfRule(EditorialList("fresh", "Fresh finds", ("t9", "t3")), 4)
    assert set(rules) == {*SHELF_RULES, "fresh"}
    with pytest.raises(DataError, match=r"editorial\.mood is the name of a rule"):
        shelf_rules(Settings.of({"shelves": {"editorial": {"mood": one}}}))


def test_the_documented_table_and_example_are_true() -> None:
    text = (places.ROOT / "docs" / "shelves.md").read_text(encoding="utf-8")
    told = {name: int(rank) for name, rank in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    assert told == {name: rule.specificity for name, rule in SHELF_RULES.items()}
    *_, code = re.findall(r"^```python\n([\s\S]*?)^```", text, re.MULTILINE)
    found: dict[str, object] = {}
    exec(code, found)
    rule = found["SHORT_ONES"]
    assert isinstance(rule, ShelfRule)
    inputs = ShelfInputs.of(KNOWN, Context(NOW), LOOKUPS, 30, np.random.default_rng(0))
    ((shelf, row),) = rule.propose(inputs)
    assert shelf.title == "In a hurry?"
    assert len(row) > 5
    assert (ITEMS.duration_s[row] < 120).all()


def test_a_label_counts_more_the_nearer_the_front_its_items_stand() -> None:
    listener = Listener("u", KNOWN.vector, favourite=np.array([0, 1, 2], dtype=np.int64))
    assert main_labels(np.array([4, 7, 7]), listener) == [7, 4]
    assert main_labels(np.array([-1, -1, -1]), listener) == []


def test_tables_of_items_without_events_words_or_vectors_are_empty_and_harmless() -> None:
    bare = ItemTable(
        ITEMS.item_id, ITEMS.title, ITEMS.type, Labels.of([()] * N), Labels.of([()] * N), ITEMS.released_at,
        ITEMS.countries, ITEMS.explicit, np.zeros(N), ITEMS.duration_s, np.zeros((N, 40), np.float32),
    )  # fmt: skip
    index = build_index(bare.vector, rng=np.random.default_rng(0))
    tables = build_tables(bare, EVENTS.slice(0, 0), index, np.random.default_rng(0))
    lookups = Lookups.of(bare, tables, index)
    for listener in (KNOWN, COLD):
        inputs = ShelfInputs.of(listener, Context(NOW), lookups, 50, np.random.default_rng(0))
        for name, rule in SHELF_RULES.items():
            for _, row in rule.propose(inputs):
                assert name in ("jump_back_in", "popular_now") or not len(row)


def test_the_same_stream_counts_the_same_tables() -> None:
    again = build_tables(ITEMS, EVENTS, INDEX, np.random.default_rng(0))
    for name in ShelfTables.__slots__:
        if name != "replay":
            np.testing.assert_array_equal(getattr(again, name), getattr(TABLES, name))
    np.testing.assert_array_equal(again.replay.recent, TABLES.replay.recent)
    np.testing.assert_allclose(again.replay.item, TABLES.replay.item, rtol=1e-6)


def test_a_table_configuration_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pool is 0; expected more than 0"):
        TableConfig(pool=0)


def test_no_title_speaks_of_the_time_of_day_where_the_listeners_clock_is_not_known() -> None:
    inputs = ShelfInputs.of(KNOWN, Context(NOW, zone_known=False), LOOKUPS, 50, np.random.default_rng(0))
    assert list(SHELF_RULES["time_of_day"].propose(inputs)) == []


@pytest.mark.parametrize("genre", ["other", "Other", "<unknown>", "Unknown genre", "N/A", " - ", "Misc.", ""])
def test_a_genre_that_is_not_known_gives_no_shelf(genre: str) -> None:
    items = replace(ITEMS, genres=Labels(GENRE, np.arange(N + 1), [genre, *(f"genre {k}" for k in range(1, GENRES))]))
    lookups = Lookups.of(items, TABLES, INDEX)
    inputs = ShelfInputs.of(KNOWN, Context(NOW), lookups, 50, np.random.default_rng(0))
    titles = [shelf.title for shelf, _ in SHELF_RULES["more_of_genre"].propose(inputs)]
    assert titles
    assert f"More {genre} for you" not in titles


@pytest.mark.parametrize("genre", ["other worldly", "Unknown Mortal Orchestra", "generica", "nu jazz", "R&B", "未知"])
def test_a_genre_with_a_name_of_its_own_is_kept(genre: str) -> None:
    assert is_telling(genre)
