"""Likes and ratings count by their value, in plays, and are no plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bart.errors import DataError
from recommender.events.importers import load_events
from recommender.events.merge import merge
from recommender.events.table import LoadedEvents, count_sessions, read_events
from recommender.events.worth import Worth
from recommender.sessions.plays import is_play, only_plays, worth

AT = 1_772_395_200


def loaded(worth: Worth | None = None, **columns: list[Any]) -> LoadedEvents:
    n = len(next(iter(columns.values())))
    named = {
        "user_id": ["u"] * n,
        "item_id": [f"s{i}" for i in range(n)],
        "started_at": [AT + 240 * i for i in range(n)],
    }
    return read_events(pa.table({**named, **columns}), worth=worth)


def counted(found: LoadedEvents) -> list[float]:
    return worth(found.events).tolist()


def test_a_play_counts_one_a_skipped_one_nothing_and_a_signal_its_weight() -> None:
    found = loaded(type=["play", "skip", "like", "Thumbs-Down", None, "listened"])
    assert counted(found) == [1, 0, 3, -3, 1, 1]
    assert is_play(found.events).tolist() == [True, True, False, False, True, True]
    assert found.events["skipped"].to_pylist() == [None, True, None, None, None, None]
    assert found.check.plays == 4
    assert found.check.by_value == ("1 x dislike, -3 each", "1 x like, +3 each")
    assert any(line == "plays: 4; sessions are made of these alone" for line in found.check.summary())


@pytest.mark.parametrize(
    ("rating", "count"),
    [
        ([1, 3, 5], [-3, 0, 3]),
        ([0.5, 2.5, 5], [-2.4, 0, 3]),
        ([0, 1], [-3, 3]),
        ([10, 1], [3, -3]),
        ([100, 50, 0], [3, 0, -3]),
        ([-1, 0, 1], [-3, 0, 3]),
    ],
)
def test_a_rating_counts_by_its_place_on_the_scale_that_the_file_is_of(rating: list[float], count: list[float]) -> None:
    found = loaded(rating=rating)
    assert counted(found) == pytest.approx(count)
    assert found.check.plays == 0


def test_the_scale_and_the_weights_are_settings() -> None:
    rule = Worth({"rating": 4, "like": 2, "tip": 9}, lowest=1, highest=5)
    assert counted(loaded(rule, rating=[2, 3])) == [-2, 0]
    assert counted(loaded(rule, type=["like", "tip", "save"])) == [2, 9, 3]
    outside = loaded(rule, rating=[2, 0, 6]).check.rejected
    assert {one.reason: one.rows for one in outside} == {
        "rating is outside its scale, which ends at 1 (settings)": 1,
        "rating is outside its scale, which ends at 5 (settings)": 1,
    }
    with pytest.raises(DataError, match="ratings go from 5 to 5; expected events.rating_lowest below _highest"):
        loaded(Worth(lowest=5), rating=[5, 5])


def test_a_row_that_says_how_long_it_was_heard_is_a_play_with_a_rating() -> None:
    found = loaded(rating=[5, 5, None], listened_s=[200, None, 100], skipped=[None, None, False])
    assert counted(found) == [4, 3, 1]
    assert is_play(found.events).tolist() == [True, False, True]
    assert found.events["type"].to_pylist() == ["play+rating", "rating", None]


def test_a_like_beside_a_play_adds_to_it() -> None:
    assert counted(loaded(liked=["true", "0", None])) == [4, 1, 1]
    assert counted(loaded(type=["play+like+share", "skip+like"])) == [7, 3]


def test_a_weight_that_is_given_is_taken_and_a_skipped_play_counts_nothing() -> None:
    found = loaded(weight=[2.5, 2.5, None], skipped=[False, True, False])
    assert counted(found) == [2.5, 0, 1]
    assert found.check.plays == 3
    assert found.check.by_value == ("2 rows by the weight that the file gives them",)
    liked = loaded(weight=[7, None], type=["like", "like"])
    assert counted(liked) == [7, 3]
    assert liked.check.by_value == ("1 x like, +3 each", "1 rows by the weight that the file gives them")
    assert liked.check.plays == 0


def test_the_value_of_a_signal_turns_it_round_or_takes_it_back() -> None:
    found = loaded(type=["like", "like", "like", "rating", "play", "save"], value=["1", "-1", "0", "5", "soon", "-1"])
    assert found.events["type"].to_pylist() == ["like", "dislike", "rating", None]
    assert counted(found) == [3, -3, 3, 1]
    assert {one.reason for one in found.check.rejected} == {
        "a signal of value 0: taken back", "a signal of negative value that has no opposite"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"type": ["impression"]}, "type is none that has a weight"),
        ({"type": ["rating"]}, "a rating without a value"),
        ({"type": ["rating"], "value": ["soon"]}, "value is not a number, of a rating"),
        ({"rating": [4_000]}, "rating is beyond 100"),
        ({"rating": ["good"]}, "rating is not a number"),
        ({"weight": [1e9]}, "weight is beyond 1000 plays"),
        ({"liked": ["very"]}, "liked is neither true nor false"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_its_reason(columns: dict[str, list[Any]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        loaded(**columns)


def test_a_like_in_the_middle_of_a_play_is_no_start_and_no_repeat_of_it() -> None:
    rows = {
        "item_id": ["a", "a", "b"],
        "started_at": [AT, AT + 30, AT + 210],
        "listened_s": [200.0, None, 180.0],
        "type": ["play", "like", "play"],
    }
    found = loaded(**rows)
    assert found.events["listened_s"].to_pylist() == [200, None, 180]
    assert (found.check.sessions, count_sessions(found.events)) == (1, 1)
    late = loaded(**{**rows, "started_at": [AT, AT + 9_000, AT + 20_000]})
    assert late.check.sessions == count_sessions(late.events) == 2
    same = loaded(item_id=["a", "a", "a"], started_at=[AT] * 3, type=["play", "like", "like"])
    assert same.check.kept == 2


def test_a_play_that_was_liked_since_is_the_same_play_and_the_fuller_one() -> None:
    old = loaded(item_id=["a", "b"]).events
    new = loaded(item_id=["a", "b"], type=["play+like", "play"]).events
    both = merge(old, new)
    assert (both.added, both.fuller) == (0, 1)
    assert worth(both.events).tolist() == [4, 1]
    turned = merge(both.events, loaded(item_id=["a", "b"], type=["play+dislike", "play"]).events)
    assert (turned.added, turned.fuller, worth(turned.events).tolist()) == (0, 1, [-2, 1])
    again = merge(both.events, loaded(item_id=["a", "b"], type=["like", "like"]).events)
    assert (again.added, again.signals, again.changed, len(only_plays(again.events))) == (0, 2, True, 2)
    assert "2 new likes, ratings and the like: counted with --vectors rebuild" in again.lines()
    assert not merge(again.events, loaded(item_id=["a", "b"], type=["like", "like"]).events).changed


def test_feedback_of_an_export_counts_with_a_listen_and_is_none(tmp_path: Path) -> None:
    (tmp_path / "listens").mkdir()
    listens = [
        {
            "listened_at": AT + n * 300,
            "track_metadata": {"artist_name": "A", "track_name": name, "recording_msid": name},
        }
        for n, name in enumerate(["one", "two", "one", "three"])
    ]
    score = [("one", 1), ("two", -1), ("three", 0), ("other", 1), ("two", 7)]
    feedback = [{"recording_msid": name, "recording_mbid": None, "score": s, "created": AT} for name, s in score]
    (tmp_path / "listens/1.jsonl").write_text("\n".join(map(json.dumps, listens)))
    (tmp_path / "feedback.jsonl").write_text("\n".join(map(json.dumps, feedback)))
    found = load_events(tmp_path)
    assert (found.check.rows, found.check.kept, found.check.plays) == (4, 4, 4)
    assert counted(found) == [4, -2, 1, 1]
    assert (
        "feedback.jsonl: 2 likes and dislikes counted with a listen of their recording, 1 of recordings that no listen "
        "has left out; 1 not read: score is none of 1, 0 and -1"
    ) in found.check.notes


def test_what_a_listener_of_kuairand_did_is_counted_with_the_play(tmp_path: Path) -> None:
    header = "user_id,video_id,time_ms,play_time_ms,duration_ms,is_like,is_follow,is_hate"
    rows = [
        "1,a,1649581149287,46186,45916,1,0,0",
        "1,b,1649581349287,1000,45916,0,0,1",
        "1,c,1649581449287,46186,45916,0,0,0",
    ]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    found = load_events(tmp_path / "log.csv")
    assert counted(found) == [4, -3, 1]
    assert found.check.plays == 3
