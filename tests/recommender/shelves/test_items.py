"""Truths of the item table: what a file may leave out, what events add, what popularity means."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from bart.errors import DataError
from recommender.events.table import read_events
from recommender.shelves.items import (
    ITEM_SCHEMA,
    complete,
    counts,
    item_table,
    items_of_events,
    popularity,
    read_items,
)


def plays(*item_ids: str, **columns: list[object]) -> pa.Table:
    at = [10**9 + k for k in range(len(item_ids))]
    return pa.table({"user_id": ["u"] * len(at), "item_id": list(item_ids), "started_at": at, **columns})


def test_only_an_id_is_needed() -> None:
    items = read_items(pa.table({"item_id": ["b", "a"]})).items
    assert items.schema == ITEM_SCHEMA
    table = item_table(items)
    assert table.item_id.tolist() == table.title.tolist() == ["a", "b"]
    assert np.isnat(table.released_at).all()
    assert not table.vector.any()


def test_lists_may_be_text_and_years_may_be_dates() -> None:
    items = read_items(
        pa.table(
            {
                "id": ["a", "b", "c"],
                "genre": ["rock; pop", "jazz", None],
                "released_at": ["1999", "2001-05", "2003-02-04"],
                "explicit": ["true", "0", ""],
            }
        ),
        {"item_id": "id"},
    ).items
    assert items["genres"].to_pylist() == [["rock", "pop"], ["jazz"], None]
    assert items["released_at"].to_pylist() == [date(1999, 1, 1), date(2001, 5, 1), date(2003, 2, 4)]
    assert items["explicit"].to_pylist() == [True, False, None]


def test_a_repeated_id_keeps_its_first_row_and_the_note_says_so() -> None:
    loaded = read_items(pa.table({"item_id": ["a", None, "a"], "title": ["first", "lost", "second"]}))
    assert loaded.items["title"].to_pylist() == ["first"]
    assert len(loaded.notes) == 2


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("duration_s", "-3", "duration_s of item 1 is '-3'; expected seconds >= 0"),
        ("released_at", "soon", "released_at of item 1 is 'soon'; expected a date or a year"),
        ("type", "movie", "type of item 1 is 'movie'; expected one of track"),
        ("explicit", "perhaps", "explicit of item 1 is 'perhaps'; expected true or false"),
        ("popularity", "-1", "popularity holds -1; expected numbers >= 0"),
    ],
)
def test_a_value_that_cannot_be_read_names_the_item(column: str, value: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        read_items(pa.table({"item_id": ["a"], column: [value]}))


def test_an_item_file_without_ids_or_with_a_wrong_mapping_is_refused() -> None:
    with pytest.raises(DataError, match="no column for item_id; columns: song"):
        read_items(pa.table({"song": ["a"]}))
    with pytest.raises(DataError, match="item_id is mapped to 'id'"):
        read_items(pa.table({"song": ["a"]}), {"item_id": "id"})


def test_popularity_is_one_for_the_most_played_and_keeps_the_order_of_plays() -> None:
    shown = popularity(np.array([0, 5, 100, 7]))
    assert shown.max() == 1
    assert shown.min() == 0
    assert np.argsort(shown).tolist() == [0, 1, 3, 2]
    assert popularity(np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 0]


def test_a_count_given_as_popularity_is_put_on_the_same_scale() -> None:
    given = read_items(pa.table({"item_id": ["a", "b"], "popularity": [3, 900]})).items["popularity"].to_numpy()
    np.testing.assert_allclose(given, popularity(np.array([3, 900])))
    share = read_items(pa.table({"item_id": ["a", "b"], "popularity": [0.25, 0.5]})).items["popularity"].to_pylist()
    assert share == [0.25, 0.5]


def test_skipped_plays_do_not_make_an_item_popular() -> None:
    events = read_events(plays("a", "a", "b", skipped=[True, None, False])).events
    assert counts(events, pa.array(["a", "b", "c"])).tolist() == [1, 1, 0]


def test_items_can_be_made_from_the_events_alone() -> None:
    loaded = read_events(plays("a", "b", "a", title=[None, "B", "A"], artist=["x", "y", "z"]))
    table = item_table(complete(items_of_events(loaded.item_text), loaded.events))
    assert table.title.tolist() == ["A", "B"]
    assert table.artists[0] == ("x",)
    assert table.popularity.tolist()[0] == 1


def test_the_users_file_wins_and_the_events_fill_what_it_leaves_out() -> None:
    loaded = read_events(plays("a", "b", "c", title=["said A", "said B", None], artist=["x", "y", None]))
    own = read_items(pa.table({"item_id": ["a", "d"], "title": ["Own A", None], "popularity": [0.3, None]})).items
    items = complete(own, loaded.events, loaded.item_text)
    assert items["item_id"].to_pylist() == ["a", "b", "c", "d"]
    assert items["title"].to_pylist() == ["Own A", "said B", "c", "d"]
    assert items["artist_ids"].to_pylist() == [["x"], ["y"], None, None]
    assert items["popularity"].to_pylist() == [0.3, 1.0, 1.0, 0.0]
    assert set(items["type"].to_pylist()) == {"track"}


def test_vectors_must_have_one_row_an_item() -> None:
    items = read_items(pa.table({"item_id": ["a", "b"]})).items
    with pytest.raises(ValueError, match="vector has 3 rows; expected 2"):
        item_table(items, np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("album", [["x"], None], r"album holds list<item: string>; expected text"),
        ("show", [{"id": "s"}, None], r"show holds struct<id: string>; expected text"),
        ("image", [b"\x89PNG", None], r"image holds binary; expected text"),
        ("explicit", [[True], None], r"explicit holds list<item: bool>; expected true or false"),
        ("artist_ids", [[["x"]], None], r"artist_ids holds list<item: list<item: string>>; expected a list of texts"),
        ("item_id", [["a"], ["b"]], r"item_id holds list<item: string>; expected text"),
        ("released_at", ["0000", None], r"released_at of item 1 is '0000'; expected a date or a year"),
    ],
)
def test_a_column_of_a_type_that_cannot_be_read_is_refused_by_its_name(
    column: str, value: list[object], text: str
) -> None:
    with pytest.raises(DataError, match=text):
        read_items(pa.table({"item_id": ["a", "b"], column: value}))


def test_entries_of_lists_that_say_nothing_are_no_labels_and_durations_are_seconds() -> None:
    lists = pa.array([[None, " Ann ", ""], ["Bob"]])
    length = pa.array([1500, None], pa.duration("ms"))
    rows = read_items(pa.table({"item_id": ["a", "b"], "artist_ids": lists, "duration_s": length})).items
    assert rows["artist_ids"].to_pylist() == [["Ann"], ["Bob"]]
    assert rows["duration_s"].to_pylist() == [1.5, None]


def test_an_album_is_named_by_the_title_of_its_row_and_one_that_names_itself_holds_not_itself() -> None:
    given = [
        {"item_id": "a1", "title": "Hits", "type": "album", "artist": "Ann", "album": "Hits"},
        {"item_id": "a2", "title": "Hits", "type": "album", "artist": "Bob", "album": "Other"},
        {"item_id": "t1", "title": "One", "type": "track", "artist": "Ann", "album": "Hits"},
        {"item_id": "t2", "title": "Two", "type": "track", "artist": "Bob", "album": "a2"},
        {"item_id": "t3", "title": "Three", "type": "track", "artist": "Cat", "album": "Hits"},
    ]
    rows = complete(read_items(pa.Table.from_pylist(given)).items, read_events(plays("t1")).events)
    table = item_table(rows)
    held = {str(table.item_id[k]): table.item_id[table.members[k]].tolist() for k in range(len(table))}
    assert {name: members for name, members in held.items() if members} == {
        "a1": ["t1"], "a2": ["t2"], "album:Cat:Hits": ["t3"],
    }  # fmt: skip
    assert len(table) == 6  # an album that names another one makes none
    assert complete(rows, read_events(plays("t1")).events).equals(rows)
