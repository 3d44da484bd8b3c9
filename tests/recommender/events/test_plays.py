"""When a play was and for how long, whatever clocks, players and exporters wrote; and when it is another's copy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recommender.events.importers import load_events
from recommender.events.merge import merge
from recommender.events.table import EVENT_SCHEMA, LoadedEvents, read_events
from recommender.sessions.sessions import cut_sessions

DAY = 86_400
AT = 1_772_395_200  # 2026-03-01T20:00:00Z


def plays(*rows: tuple[str, int, float | None], name: str = "listened_s") -> LoadedEvents:
    """item, seconds after AT, length."""
    table = {"user_id": ["u"] * len(rows), "item_id": [r[0] for r in rows], "started_at": [AT + r[1] for r in rows]}
    return read_events(pa.table({**table, name: pa.array([r[2] for r in rows], pa.float64())}))


def sessions(loaded: LoadedEvents) -> int:
    ids = sorted(set(loaded.events["item_id"].to_pylist()))
    cut = cut_sessions(loaded.events, {x: i for i, x in enumerate(ids)}, np.eye(len(ids), dtype=np.float32))
    assert len(cut) == loaded.check.sessions
    return len(cut)


def bounded(loaded: LoadedEvents) -> dict[str, int]:
    return {b.reason.split(":")[0]: b.rows for b in loaded.check.bounded}


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine in another zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


# Lengths


@pytest.mark.parametrize("name", ["listened_s", "duration_s"])
@pytest.mark.parametrize("gap", [DAY, 7200])
def test_lengths_in_milliseconds_make_as_many_sessions_as_in_seconds(name: str, gap: int) -> None:
    rows = [("a", k * gap, 201_000.0) for k in range(6)]
    loaded = plays(*rows, name=name)
    assert sessions(loaded) == 6
    assert loaded.events[name].to_pylist() == [201.0] * 6
    assert any("milliseconds" in note for note in loaded.check.notes)


@pytest.mark.parametrize("stuck", [432_000.0, 10**9, 90_000.0, 85_000.0, 43_000.0])
@pytest.mark.parametrize("last", [False, True])
def test_a_stuck_player_merges_no_sessions(stuck: float, last: bool) -> None:
    evening = [("a", 0, 200.0), ("b", 240, 200.0), ("c", 480, stuck)]
    after = [] if last else [("a", 43_000, 200.0), ("b", 43_240, 200.0)]
    loaded = plays(*evening, *after)
    assert sessions(loaded) == 1 + (not last)
    assert sum(b.rows for b in loaded.check.bounded) == 1
    assert loaded.events["listened_s"].to_pylist()[2] is None


def test_a_play_lasts_no_longer_than_the_item_and_to_the_next_start() -> None:
    loaded = read_events(
        pa.table(
            {
                "user_id": ["u"] * 4,
                "item_id": ["a", "b", "c", "d"],
                "started_at": [AT, AT + 600, AT + 1200, AT + 1240],
                "listened_s": [500.0, 4000.0, 45.0, 100.0],
                "duration_s": [200.0, None, None, None],
            }
        )
    )
    assert loaded.events["listened_s"].to_pylist() == [200.0, 600.0, 45.0, 100.0]  # clocks differ by seconds
    assert bounded(loaded) == {"longer than the item": 1, "longer than the way to the listener's next start": 1}
    assert any(line.startswith("bounded: 1 plays longer than the item") for line in loaded.check.lines())


def test_a_long_play_that_nothing_contradicts_is_left_as_it_is() -> None:
    loaded = plays(("mix", 0, 6 * 3600.0), ("a", 8 * 3600, 200.0))
    assert loaded.events["listened_s"].to_pylist() == [6 * 3600.0, 200.0]
    assert sessions(plays(("mix", 0, 3600.0), ("a", 3650, 200.0))) == 1


def test_a_start_after_now_is_refused_and_a_play_ends_by_now(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"user_id,item_id,started_at,listened_s\nu,a,{AT},3000\nu,b,1930000000,200\n")
    loaded = load_events(tmp_path / "a.csv", now_s=AT + 500)
    assert [r.reason.split(" (")[0] for r in loaded.check.rejected] == ["started_at lies after now"]
    assert loaded.events["listened_s"].to_pylist() == [500.0]
    assert bounded(loaded) == {"longer than until now": 1}


# Times


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_time_without_a_zone_is_utc_or_the_zone_given_and_never_the_machines(
    zone: str | None, tmp_path: Path
) -> None:
    hour = 7 if zone is None else 6
    row = {"user_id": "u", "item_id": "i", "started_at": "2018-03-01 07:31:05"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "a.csv").write_text("user_id,item_id,started_at\nu,i,2018-03-01 07:31:05\n")
    play = {"ts": "2018-03-01 07:31:05", "ms_played": 0, "spotify_track_uri": "spotify:track:1"}
    (tmp_path / "b.json").write_text(json.dumps([play]))
    for name in ("a.jsonl", "a.csv", "b.json"):
        at = load_events(tmp_path / name, default_tz=zone).events["started_at"][0].as_py()
        expected = 7 if name == "b.json" else hour  # Spotify's times are UTC
        assert (at.hour, at.minute, at.second) == (expected, 31, 5)


@pytest.mark.parametrize("written", ["2026-03-01T10:00:00Z", "2026-03-01T12:00:00+02:00", "2026-03-01 10:00:00 UTC"])
def test_json_lines_keep_the_zone_that_is_written(written: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"user_id": "u", "item_id": "2024-01-01", "started_at": written}))
    event = load_events(tmp_path / "a.jsonl", default_tz="America/New_York").events.to_pylist()[0]
    assert event["started_at"].isoformat() == "2026-03-01T10:00:00+00:00"
    assert event["item_id"] == "2024-01-01"


def test_json_lines_keep_the_digits_of_ids(tmp_path: Path) -> None:
    ids = ["9007199254740993", "9007199254740992", "18446744073709551617", "1.5", "1e3"]
    lines = [f'{{"user_id": {user}, "item_id": "a", "started_at": 1772359200}}' for user in ids]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    loaded = load_events(tmp_path / "a.jsonl")
    assert sorted(loaded.events["user_id"].to_pylist()) == sorted(ids)


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_int96_times_are_instants_and_other_times_without_zone_are_wall_clocks(
    zone: str | None, tmp_path: Path
) -> None:
    at = pa.array([1_772_370_000_000_000]).cast(pa.timestamp("us"))  # 13:00 UTC
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "started_at": at})
    pq.write_table(table, tmp_path / "spark.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    pq.write_table(table, tmp_path / "wall.parquet")
    spark, wall = (
        load_events(tmp_path / f"{name}.parquet", default_tz=zone).events["started_at"][0].as_py().hour
        for name in ("spark", "wall")
    )
    assert spark == 13
    assert wall == (13 if zone is None else 18)


# Order and repeats


def test_equal_seconds_of_a_file_that_is_newest_first_keep_their_order(tmp_path: Path) -> None:
    newest_first = ["e", "d", "c", "b", "a"]
    at = [AT + 300, AT + 60, AT + 60, AT + 60, AT]
    rows = [f'"{s}","","Band","","","","{t}",""' for s, t in zip(at, newest_first, strict=True)]
    header = "uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid"
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    assert "".join(load_events(tmp_path / "a.csv").item_text["title"].to_pylist()) == "abcde"
    assert [x[-1] for x in load_events(tmp_path / "a.csv").events["item_id"].to_pylist()] == list("abcde")
    (tmp_path / "b.csv").write_text("\n".join([header, *reversed(rows)]))
    assert [x[-1] for x in load_events(tmp_path / "b.csv").events["item_id"].to_pylist()] == list("abcde")


def test_the_fuller_of_two_equal_rows_is_kept_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,started_at\nu,i,1709278265\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,started_at,listened_s,device\nu,i,1709278265,30,web\n")
    (tmp_path / "c.csv").write_text("user_id,item_id,started_at,listened_s\nu,i,1709278265,40\n")
    loaded = load_events(tmp_path)
    assert loaded.events["device"].to_pylist() == ["web"]
    assert [(r.reason, r.rows) for r in loaded.check.rejected] == [("the same play again", 2)]


@pytest.mark.parametrize(
    ("written", "lengths", "kept"),
    [
        ("2024-03-01T10:00", ("20", "30"), 2),
        ("2024-03-01T10:00", ("20", "20"), 2),
        ("2024-03-01T10:00", ("200", "20"), 2),
        ("2024-03-01T10:00", ("200", "100"), 1),
        ("2024-03-01T10:00", ("", ""), 1),
        ("2024-03-01T10:00:00", ("20", "30"), 1),
    ],
)
def test_within_a_minute_a_track_can_be_played_twice_if_the_lengths_allow_it(
    written: str, lengths: tuple[str, str], kept: int, tmp_path: Path
) -> None:
    text = "user_id,item_id,started_at,listened_s\n" + "".join(f"u,i,{written},{s}\n" for s in lengths)
    (tmp_path / "a.csv").write_text(text)
    assert load_events(tmp_path / "a.csv").check.kept == kept
    (tmp_path / "b.csv").write_text(text)  # the same export again
    assert load_events(tmp_path).check.kept == kept


def test_account_data_keeps_the_order_within_a_minute_and_tells_copies_from_short_plays(tmp_path: Path) -> None:
    def play(track: str, seconds: float, minute: int = 4) -> dict[str, object]:
        end = f"2023-09-15 14:{minute:02d}"
        return {"endTime": end, "artistName": "A", "trackName": track, "msPlayed": 1000 * seconds}

    rows = [play("long", 200), play("x", 3), play("y", 40), play("x", 3), play("long", 200), play("next", 100, 5)]
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps(rows))
    (tmp_path / "StreamingHistory_music_1.json").write_text(json.dumps(rows[2:]))
    loaded = load_events(tmp_path)
    assert [x.removeprefix("A - ") for x in loaded.events["item_id"].to_pylist()] == ["long", "x", "y", "x", "next"]
    assert loaded.check.rows == 10
    assert loaded.check.kept == 5
    assert loaded.events["started_at"][0].as_py().isoformat() == "2023-09-15T14:00:40+00:00"


# Spotify


def spotify(folder: Path, *records: dict[str, object]) -> LoadedEvents:
    rows = [{"spotify_track_uri": f"spotify:track:{k}", "ms_played": 200_000, **r} for k, r in enumerate(records)]
    (folder / "Streaming_History_Audio_2024.json").write_text(json.dumps(rows))
    return load_events(folder)


PAUSED = 1_709_278_265  # 07:31:05, the end of the first play


@pytest.mark.parametrize(
    ("said", "start"),
    [
        (PAUSED, "07:31:05"),
        (PAUSED + 2, "07:31:07"),
        (float(PAUSED), "07:31:05"),
        (1000 * PAUSED, "07:31:05"),
        (str(PAUSED), "07:31:05"),
        (f"{PAUSED}.0", "07:31:05"),
        (PAUSED - 4000, "07:56:40"),  # the end of no play
        (1, "07:56:40"),
        (0, "07:56:40"),
        (-5, "07:56:40"),
        (PAUSED + 10**6, "07:56:40"),
        ("soon", "07:56:40"),
        ([1], "07:56:40"),
        (None, "07:56:40"),
    ],
)
def test_a_paused_play_begins_when_the_one_before_ended(said: object, start: str, tmp_path: Path) -> None:
    first = {"ts": "2024-03-01T07:31:05Z"}
    paused = {"ts": "2024-03-01T08:00:00Z", "offline": False, "offline_timestamp": said}
    at = spotify(tmp_path, first, paused).events["started_at"][1].as_py()
    assert at.isoformat()[11:19] == start


def test_an_upload_days_later_is_heard_when_it_was_played_if_that_can_be(tmp_path: Path) -> None:
    day = {"ts": "2024-03-20T08:00:00Z", "offline": True}
    loaded = spotify(tmp_path, {**day, "offline_timestamp": PAUSED}, {**day, "offline_timestamp": PAUSED - 40 * DAY})
    assert [t.day for t in loaded.events["started_at"].to_pylist()] == [1, 20]


@pytest.mark.parametrize("ts", ["2024-03-01T07:31:05Z", "2024-03-01 07:31:05 UTC", "2024-03-01 07:31:05", 1709278265])
def test_spotifys_times_are_read_however_they_are_written(ts: object, tmp_path: Path) -> None:
    assert str(spotify(tmp_path, {"ts": ts}).events["started_at"][0].as_py()) == "2024-03-01 07:27:45+00:00"


@pytest.mark.parametrize(
    ("reason", "ms", "flag", "year", "skipped"),
    [
        ("endplay", 5_000, None, 2018, True),
        ("unknown", 5_000, False, 2018, True),
        ("endplay", 5_000, True, 2024, True),
        ("endplay", 5_000, False, 2024, None),
        ("endplay", 31_000, None, 2018, False),
        ("unknown", 31_000, True, 2018, False),
        ("fwdbtn", 5_000, False, 2018, True),
        ("trackdone", 5_000, None, 2018, False),
        ("logout", 5_000, None, 2018, None),
        ("something new", 5_000, True, 2024, True),
    ],
)
def test_spotify_skips_follow_from_the_reason_and_the_length(
    reason: str, ms: int, flag: bool | None, year: int, skipped: bool | None, tmp_path: Path
) -> None:
    play = {"ts": f"{year}-03-01T07:31:05Z", "ms_played": ms, "reason_end": reason, "skipped": flag}
    assert spotify(tmp_path, play).events["skipped"].to_pylist() == [skipped]


def test_copies_in_two_files_of_a_spotify_export_are_one_play(tmp_path: Path) -> None:
    play = {"ts": "2024-03-01T07:31:05Z", "ms_played": 201000, "spotify_track_uri": "spotify:track:1"}
    for name in ("Streaming_History_Audio_2022_0.json", "Streaming_History_Audio_2023_1.json"):
        (tmp_path / name).write_text(json.dumps([play, play]))
    loaded = load_events(tmp_path)
    assert (loaded.check.rows, loaded.check.kept) == (4, 1)
    merged = merge(loaded.events, load_events(tmp_path).events)
    assert (merged.added, merged.known, merged.changed) == (0, 1, False)


# Merging


def test_merging_adds_what_is_new_replaces_what_is_fuller_and_counts_both() -> None:
    old = plays(("a", 0, None), ("b", 300, 200.0)).events
    new = plays(("a", 0, 120.0), ("b", 300, None), ("c", 600, 10.0)).events
    merged = merge(old, new)
    assert (merged.added, merged.known, merged.fuller, merged.bounded) == (1, 2, 1, 0)
    assert merged.events["listened_s"].to_pylist() == [120.0, 200.0, 10.0]
    assert merged.events.schema == EVENT_SCHEMA
    again = merge(merged.events, new)
    assert (again.added, again.changed) == (0, False)


def test_merging_keeps_what_one_file_held_twice_and_bounds_what_a_new_play_contradicts() -> None:
    old = pa.concat_tables([plays(("a", 0, 10.0)).events] * 2)
    assert merge(old, old).events.equals(old)
    last = plays(("a", 0, 3000.0)).events
    merged = merge(last, plays(("b", 600, 10.0)).events)
    assert merged.events["listened_s"].to_pylist() == [600.0, 10.0]
    assert merged.lines() == ["1 plays whose length a new play contradicts: bounded"]


@pytest.mark.parametrize("other", [None, 0, 1000 * PAUSED + 432, float(PAUSED)])
def test_copies_are_one_play_whatever_each_export_says_of_its_beginning(other: object, tmp_path: Path) -> None:
    first = {"ts": "2024-03-01T07:31:05Z", "ms_played": 201000, "spotify_track_uri": "spotify:track:1"}
    paused = {"ts": "2024-03-01T08:00:00Z", "ms_played": 200000, "spotify_track_uri": "spotify:track:2"}
    for name, said in (("endsong_0.json", PAUSED), ("Streaming_History_Audio_2024.json", other)):
        (tmp_path / name).write_text(json.dumps([first, {**paused, "offline_timestamp": said}]))
    loaded = load_events(tmp_path)
    assert (loaded.check.rows, loaded.check.kept) == (4, 2)
    assert loaded.events["started_at"][1].as_py().isoformat() == "2024-03-01T07:31:05+00:00"
