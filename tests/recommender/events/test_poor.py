"""A check says what will be poor, and which column was meant."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from recommender.events.table import LoadedEvents, read_events

AT = 1_772_395_200


def loaded(rows: list[tuple[str, str, int]], **columns: Any) -> LoadedEvents:
    """user, item, seconds after AT."""
    user, item, at = zip(*rows, strict=True)
    return read_events(pa.table({"user_id": user, "item_id": item, "started_at": [AT + s for s in at], **columns}))


def evenings(listeners: int, days: int, items: int, each: int) -> list[tuple[str, str, int]]:
    """`each` plays an evening, four minutes apart, of items in turn."""
    return [
        (f"u{u}", f"s{(u + day * each + n) % items}", day * 86_400 + n * 240)
        for u in range(listeners)
        for day in range(days)
        for n in range(each)
    ]


def gap(found: LoadedEvents, start: str) -> str:
    return next((one for one in found.check.gaps if one.startswith(start)), "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("listend_s", "listened_s"), ("Skiped", "skipped"), ("utc-offset-mins", "utc_offset_min"), ("genres", "genre")],
)
def test_a_column_with_nearly_a_known_name_is_told(name: str, meant: str) -> None:
    found = loaded([("u", "a", 0), ("u", "b", 240)], **{name: ["1", "0"], "colour": ["red", "red"]})
    assert found.check.slips() == [f"not read: column {name!r}; did you mean {meant}? (--map {meant}={name})"]
    assert f"not read: {name}, colour" in found.check.lines()
    assert found.check.slips()[0] in found.check.summary()


@pytest.mark.parametrize(("name", "ours"), [("stars", "rating"), ("Event Type", "type"), ("is_like", "liked")])
def test_what_other_files_call_a_rating_or_a_like_is_proposed_and_not_guessed(name: str, ours: str) -> None:
    found = loaded([("u", "a", 0), ("u", "b", 240)], **{name: ["1", "1"]})
    assert found.check.slips() == [f"not read: column {name!r}; did you mean {ours}? (--map {ours}={name})"]
    assert found.check.plays == found.check.kept == 2


def test_a_value_of_nothing_is_told() -> None:
    found = loaded([("u", "a", 0)], value=["5"])
    assert found.check.slips() == ["not read: column 'value'; no row counts more or less by what it says"]


def test_a_column_that_is_there_is_not_proposed_for_another() -> None:
    assert loaded([("u", "a", 0)], listened_s=[3.0], listend_s=[3.0]).check.slips() == []


def test_sessions_of_one_item_teach_no_vectors_and_say_so() -> None:
    alone = [(f"u{u}", f"s{day}", day * 86_400) for u in range(30) for day in range(40)]
    found = loaded([*alone, ("u0", "s1", 300), ("u1", "s1", 300)])
    assert (found.check.sessions, found.check.paired_sessions) == (1200, 2)
    assert "2 of 1,200 sessions hold two or more items" in gap(found, "shelves by what is near")
    assert not gap(loaded(evenings(5, 20, 40, 5)), "shelves by what is near")


def test_a_session_of_one_song_again_and_again_is_no_pair() -> None:
    found = loaded([("u", "a", n * 240) for n in range(5)])
    assert (found.check.sessions, found.check.paired_sessions) == (1, 0)


def test_one_listener_and_listeners_of_few_plays_are_told() -> None:
    assert "there is one" in gap(loaded(evenings(1, 20, 40, 5)), "listeners who differ")
    few = [(f"n{u}", "a", u * 10) for u in range(9)]
    assert "9 of 10 have fewer than 5 plays" in gap(loaded([*few, *evenings(1, 2, 9, 5)]), "listeners who differ")
    assert not gap(loaded(evenings(5, 20, 40, 5)), "listeners who differ")


def test_items_without_a_title_or_an_artist_are_counted() -> None:
    rows = [("u", item, n * 240) for n, item in enumerate("abc")]
    found = loaded(rows, title=["A", None, None], artist=["X", "Y", None])
    assert gap(found, "titles").startswith("titles: 2 of 3 items have none")
    assert gap(found, "artist and genre").startswith("artist and genre shelves: 1 of 3 items have neither")
    whole = loaded(rows, title=["A", "B", "C"], artist=["X", "Y", "Z"])
    assert not gap(whole, "titles") + gap(whole, "artist and genre")
