"""Exports of one listener that overlap are one history; exports of two listeners are two."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart.errors import DataError
from recommender.events.importers import load_events
from recommender.events.merge import Merged, merge
from recommender.events.other_ids import known_as, names_of, near_pairs
from recommender.events.table import LoadedEvents
from recommender.shelves.items import items_of_events


def stream(ts: str, title: str = "A", ms: int = 200_000, **changes: Any) -> dict[str, Any]:
    """A record of Spotify's extended streaming history."""
    return {
        "ts": ts, "ms_played": ms, "platform": "ios", "master_metadata_track_name": title,
        "master_metadata_album_artist_name": "Art", "spotify_track_uri": f"spotify:track:{title}",
        "reason_end": "trackdone", **changes,
    }  # fmt: skip


def account(minute: str, title: str = "A", ms: int = 200_000) -> dict[str, Any]:
    """The same of its account data."""
    return {"endTime": minute, "artistName": "Art", "trackName": title, "msPlayed": ms}


def listen(at: int, msid: str = "m1", mbid: str | None = None, title: str = "A") -> dict[str, Any]:
    """A line of a ListenBrainz user's own export."""
    metadata = {"artist_name": "Art", "track_name": title, "additional_info": {}, "recording_msid": msid}
    return {
        "listened_at": at,
        "track_metadata": {**metadata, "mbid_mapping": None if mbid is None else {"recording_mbid": mbid}},
    }


def exported(path: Path, user: str, *listens: dict[str, Any], score: int = 0) -> None:
    """The ZIP of a ListenBrainz user. score: feedback on the recording m1."""
    feedback = {"recording_msid": "m1", "recording_mbid": None, "score": score, "created": 1_709_278_265}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("user.json", json.dumps({"user_id": 7, "username": user}))
        archive.writestr("listens/2024/3.jsonl", "".join(json.dumps(one) + "\n" for one in listens))
        archive.writestr("feedback.jsonl", json.dumps(feedback) + "\n")


def rows(loaded: LoadedEvents, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(loaded.events[name].to_pylist() for name in names), strict=True))


def test_the_account_data_adds_what_the_extended_history_lacks_under_the_same_ids(tmp_path: Path) -> None:
    history = [
        stream("2024-03-01T07:31:05Z"),
        stream("2024-03-01T07:35:59Z", "B", 240_000),
        stream("2024-03-01T08:00:30Z", "Secret", 90_000, incognito_mode=True),
    ]
    later = account("2024-03-02 09:00", "B", 180_000)
    known = [
        account("2024-03-01 07:31"),
        account("2024-03-01 07:35", "B", 240_000),
        account("2024-03-01 08:00", "Secret", 90_000),
    ]
    (tmp_path / "Streaming_History_Audio_2024_0.json").write_text(json.dumps(history))
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps([*known, later]))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "StreamingHistory_music_0.json").write_text(json.dumps([*known[1:], later]))
    loaded = load_events(tmp_path)
    assert [item for (item,) in rows(loaded, "item_id")] == ["spotify:track:A", "spotify:track:B", "spotify:track:B"]
    assert (loaded.check.rows, loaded.check.kept) == (10, 3)
    refused = {r.reason: r.rows for r in loaded.check.rejected}
    assert refused == {"the same play again": 6, "a private session": 1}
    assert set(loaded.item_text["title"].to_pylist()) == {"A", "B"}


def test_a_time_that_is_refused_is_shown_as_people_write_it(tmp_path: Path) -> None:
    plays = [stream("1970-01-01T00:05:00Z"), stream("2024-03-01T07:31:05Z"), stream("soon"), stream("")]
    (tmp_path / "Streaming_History_Audio_2024_0.json").write_text(json.dumps(plays))
    shown = {r.reason: r.examples[0] for r in load_events(tmp_path).check.rejected}
    assert "started_at=1970-01-01T00:01:40+00:00" in shown["started_at lies outside 1990 to 2100"]
    assert shown["ts cannot be read as a time"] == "row 3"
    assert shown["ts is missing"] == "row 4"


def test_a_play_stands_for_one_of_the_account_data_only(tmp_path: Path) -> None:
    (tmp_path / "Streaming_History_Audio_2024_0.json").write_text(
        json.dumps([stream("2024-03-01T07:31:40Z", ms=5_000)])
    )
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps([account("2024-03-01 07:31", ms=5_000)] * 2))
    assert load_events(tmp_path).check.kept == 2


def test_histories_of_two_accounts_are_not_read_as_one(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        play = stream("2021-03-01T07:31:05Z", username=name)
        (tmp_path / f"endsong_{name}.json").write_text(json.dumps([play]))
    with pytest.raises(DataError, match=r"these files are of 2 accounts; expected one listener's \(--user NAME"):
        load_events(tmp_path)
    assert load_events(tmp_path, user="we").check.kept == 1
    assert load_events(tmp_path / "endsong_ann.json").check.kept == 1


def test_scrobbles_of_two_users_are_not_read_as_one(tmp_path: Path) -> None:
    header = "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid\n"
    for user in ("ann", "bob-x"):
        play = f'1270468794,"05 Apr 2010, 11:59",Band,,,,Song {user},\n'
        (tmp_path / f"recenttracks-{user}-1772395200.csv").write_text(header + play)
    with pytest.raises(DataError, match=r"these files are of ann, bob-x; expected one listener's \(--user NAME"):
        load_events(tmp_path)
    assert load_events(tmp_path, user="we").check.kept == 2
    assert load_events(tmp_path / "recenttracks-ann-1772395200.csv").events["user_id"].to_pylist() == ["me"]


def test_exports_of_two_listenbrainz_users_are_of_two_with_the_feedback_of_each(tmp_path: Path) -> None:
    exported(tmp_path / "a.zip", "ann", listen(1_709_278_265), listen(1_709_278_565, "m2"), score=1)
    exported(tmp_path / "b.zip", "bob", listen(1_709_278_270), score=-1)
    loaded = load_events(tmp_path)
    assert rows(loaded, "user_id", "item_id", "weight") == [
        ("ann", "m1", 4.0),
        ("ann", "m2", None),
        ("bob", "m1", -2.0),
    ]
    with pytest.raises(DataError, match="--user names the listener of an export of one; these are of ann, bob"):
        load_events(tmp_path, user="we")


def test_a_recording_that_was_matched_between_two_exports_is_one_item(tmp_path: Path) -> None:
    exported(tmp_path / "1.zip", "ann", listen(1_709_278_265), listen(1_709_278_565, "m2"), score=-1)
    later = [listen(1_709_278_265, mbid="r1"), listen(1_709_278_565, "m2"), listen(1_709_279_565, "m1", "r1")]
    exported(tmp_path / "2.zip", "ann", *later, score=1)
    loaded = load_events(tmp_path)
    assert rows(loaded, "item_id", "weight") == [("r1", 4.0), ("m2", None), ("r1", None)]
    assert {r.reason: r.rows for r in loaded.check.rejected} == {"the same play again": 2}
    assert sorted(loaded.item_text["item_id"].to_pylist()) == ["m2", "r1"]


def named_by(read: LoadedEvents) -> dict[str, tuple[str, ...]]:
    return names_of(items_of_events(read.item_text))


def merged(old: Path, new: Path) -> tuple[Merged, dict[str, str]]:
    """The export `new` taken into a run of the export `old`, as a retrain does."""
    there, came = load_events(old), load_events(new)
    same = known_as(there.events, came.events, named_by(there), named_by(came))
    return merge(there.events, came.events, None, same), same


def of_a_year(folder: Path) -> tuple[Path, Path]:
    """The extended history of five plays, and the account data of the last four and of one more."""
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    history = [
        stream("2023-01-01T10:00:00Z"),
        stream("2024-03-01T07:31:59Z"),
        stream("2024-03-01T07:35:59Z", "B", 240_000),
        stream("2024-03-01T07:36:04Z", ms=5_000),
        stream("2024-03-01T08:00:00Z", "B", 120_000, offline_timestamp=1_709_278_564),  # paused for 20 minutes
    ]
    (folder / "a" / "Streaming_History_Audio_2023-2024_0.json").write_text(json.dumps(history))
    year = [
        account("2024-03-01 07:31"),
        account("2024-03-01 07:35", "B", 240_000),
        account("2024-03-01 07:36", ms=5_000),
        account("2024-03-01 08:00", "B", 120_000),
        account("2024-03-02 08:00", "C"),
    ]
    (folder / "b" / "StreamingHistory_music_0.json").write_text(json.dumps(year))
    return folder / "a", folder / "b"


def test_a_run_of_one_spotify_export_takes_the_plays_of_the_other_once_under_its_own_ids(tmp_path: Path) -> None:
    extended, year = of_a_year(tmp_path)
    first, same = merged(extended, year)
    assert same == {"Art - A": "spotify:track:A", "Art - B": "spotify:track:B"}
    assert (first.added, first.known, first.fuller) == (1, 4, 0)
    items = first.events["item_id"].to_pylist()
    assert items == [f"spotify:track:{title}" for title in "AABAB"] + ["Art - C"]
    other, back = merged(year, extended)
    assert back == {"spotify:track:A": "Art - A", "spotify:track:B": "Art - B"}
    assert (other.added, other.known, other.fuller) == (1, 4, 4)  # the extended history says more
    assert other.events["item_id"].to_pylist() == [f"Art - {title}" for title in "AABABC"]
    assert other.events["started_at"].to_pylist()[:5] == first.events["started_at"].to_pylist()[:5]


def test_a_run_keeps_the_id_of_a_recording_that_was_matched_since(tmp_path: Path) -> None:
    exported(tmp_path / "1.zip", "ann", listen(1_709_278_265), listen(1_709_278_565, "m2", title="B"))
    exported(tmp_path / "2.zip", "ann", listen(1_709_278_265, "m1", "r1"), listen(1_709_300_000, "m1", "r1"))
    after, same = merged(tmp_path / "1.zip", tmp_path / "2.zip")
    assert same == {"r1": "m1"}
    assert (after.added, after.known) == (1, 1)
    assert after.events["item_id"].to_pylist() == ["m1", "m2", "m1"]


def test_items_of_one_title_that_were_never_played_at_once_are_two(tmp_path: Path) -> None:
    exported(tmp_path / "1.zip", "ann", listen(1_709_278_265))
    exported(tmp_path / "2.zip", "ann", listen(1_709_300_000, "m9", "r9"))
    after, same = merged(tmp_path / "1.zip", tmp_path / "2.zip")
    assert same == {}
    assert after.events["item_id"].to_pylist() == ["m1", "r9"]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([None, 5.0, 200.0])), max_size=12),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([None, 5.0, 200.0])), max_size=12),
)
def test_near_pairs_take_each_play_once_and_the_same_plays_all(old: list[Any], new: list[Any]) -> None:
    def pairs(ours: list[Any], theirs: list[Any]) -> list[list[int]]:
        both = [*ours, *theirs]
        at_us = np.array([at * 1_000_000 for at, _ in both], dtype=np.int64)
        length = np.array([np.nan if s is None else s for _, s in both], dtype=np.float64)
        one = np.zeros(len(both), dtype=np.int64)
        is_new = np.arange(len(both)) >= len(ours)
        return [[int(row) for row in pair] for pair in near_pairs(one, one, at_us, length, is_new, one == 0)]

    found = pairs(old, new)
    assert all(row < len(old) <= other for row, other in found)
    assert len({row for pair in found for row in pair}) == 2 * len(found)
    assert len(pairs(old, old)) == len(old)


def test_ratings_that_were_there_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,started_at,rating\nu,a,2024-03-01,5\nu,b,2024-03-02,1\n")
    loaded = load_events(tmp_path / "a.csv")
    assert merge(loaded.events, loaded.events).lines() == ["2 likes, ratings and the like were there before"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 3, 4, 0, 1]])
def test_account_data_is_read_in_any_order_of_its_minutes(order: list[int], tmp_path: Path) -> None:
    plays = [
        account("2023-01-01 10:00", ms=60_000),
        account("2024-03-01 07:31", ms=5_000),
        account("2024-03-01 07:31", "B", 20_000),
        account("2024-03-01 07:31", "C", 10_000),
        account("2024-03-02 08:00", "D", 180_000),
    ]
    (tmp_path / "StreamingHistory0.json").write_text(json.dumps([plays[k] for k in order]))
    loaded = load_events(tmp_path)
    at = {item: start.strftime("%Y-%m-%d %H:%M:%S") for item, start in rows(loaded, "item_id", "started_at")[1:]}
    assert loaded.events["started_at"].to_pylist()[0].year == 2023
    assert at["Art - D"] == "2024-03-02 07:57:00"
    assert all(start.startswith("2024-03-01 07:3") for item, start in at.items() if item != "Art - D")
    if order != [2, 3, 4, 0, 1]:  # the order in a minute is that of the file
        assert [at[f"Art - {title}"] for title in "ABC"] == [
            "2024-03-01 07:30:55", "2024-03-01 07:31:00", "2024-03-01 07:31:20",
        ]  # fmt: skip
