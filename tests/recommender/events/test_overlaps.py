"""Exports of one listener that overlap are one history; exports of two listeners are two."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bart.errors import DataError
from recommender.events.importers import load_events
from recommender.events.table import LoadedEvents


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
