"""Truths of the event table: what is kept, what is refused and why, and what time it was for the listener."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from bart.errors import DataError
from recommender.events.local_time import hour_and_weekday, offset_of_instant, offset_of_wall_clock
from recommender.events.table import EVENT_SCHEMA, count_sessions, local_clock, read_events
from recommender.sessions.sessions import cut_sessions
from recommender.shelves.profile import Profiles, build_profiles


def table(**columns: list[object]) -> pa.Table:
    n = len(next(iter(columns.values()), [0]))
    own = {"user_id": ["u"] * n, "item_id": [f"i{k}" for k in range(n)], "started_at": list(range(10**9, 10**9 + n))}
    return pa.table({**own, **columns})


def test_only_user_item_and_time_are_needed_and_the_rest_is_null() -> None:
    loaded = read_events(table())
    assert loaded.events.schema == EVENT_SCHEMA
    assert len(loaded.events) == loaded.check.kept == 1
    for name in ("listened_s", "skipped", "device", "source", "duration_s", "utc_offset_min"):
        assert loaded.events[name].null_count == len(loaded.events)


def test_a_missing_listened_time_or_skip_is_null_and_never_zero() -> None:
    events = read_events(table(listened_s=["30", "", None], skipped=["true", None, ""])).events
    assert events["listened_s"].to_pylist() == [30.0, None, None]
    assert events["skipped"].to_pylist() == [True, None, None]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-03-01T07:31:05Z", "2024-03-01T07:31:05+00:00"),
        ("2024-03-01 07:31:05.25", "2024-03-01T07:31:05.250000+00:00"),
        ("2024-03-01T07:31:05+0530", "2024-03-01T02:01:05+00:00"),
        ("2024-03-01T07:31-03:00", "2024-03-01T10:31:00+00:00"),
        ("2024-03-01", "2024-03-01T00:00:00+00:00"),
        ("1709278265", "2024-03-01T07:31:05+00:00"),
        ("1709278265000", "2024-03-01T07:31:05+00:00"),
        ("1709278265.5", "2024-03-01T07:31:05.500000+00:00"),
        (1709278265, "2024-03-01T07:31:05+00:00"),
        (1709278265000, "2024-03-01T07:31:05+00:00"),
        (datetime(2024, 3, 1, 7, 31, 5), "2024-03-01T07:31:05+00:00"),
        (datetime(2024, 3, 1, 7, 31, 5, tzinfo=timezone.utc), "2024-03-01T07:31:05+00:00"),
    ],
)
def test_a_time_is_read_from_text_numbers_and_timestamps(written: object, expected: str) -> None:
    events = read_events(pa.table({"user_id": ["u"], "item_id": ["i"], "started_at": [written]})).events
    assert events["started_at"][0].as_py().isoformat() == expected


def test_every_refused_row_is_counted_once_with_its_reason_and_an_example() -> None:
    loaded = read_events(
        pa.table(
            {
                "user_id": ["a", None, "a", "a", "a", "a", "a", "a", "a"],
                "item_id": ["x", "x", "", "x", "x", "x", "x", "x", "x"],
                "started_at": [
                    "2024-01-01",
                    "2024-01-01",
                    "2024-01-01",
                    "soon",
                    "1970-01-02",
                    None,
                    "2024-01-02",
                    "2024-01-03",
                    "2024-01-01",
                ],
                "listened_s": ["3", "3", "3", "3", "3", "3", "-1", "much", "3"],
            }
        )
    )
    counted = {r.reason: r.rows for r in loaded.check.rejected}
    assert counted == {
        "user_id is missing": 1,
        "item_id is missing": 1,
        "started_at is missing": 1,
        "started_at cannot be read as a time": 1,
        "started_at lies outside 1990 to 2100": 1,
        "listened_s is below 0": 1,
        "listened_s is not a number": 1,
        "the same play again": 1,
    }
    assert loaded.check.kept == 1
    assert loaded.check.rows == 9
    example = next(r.examples[0] for r in loaded.check.rejected if r.reason == "listened_s is not a number")
    assert example.startswith("row 8 (")
    assert "'much'" in example


def test_the_check_prints_what_cannot_be_built() -> None:
    text = "\n".join(read_events(table(title=["t"])).check.lines())
    for word in ("CoSeRNN", "skipped", "device", "local hours", "track vectors", "artist and genre"):
        assert f"cannot build: {word}" in text or word in text
    assert "titles" not in text


def test_columns_are_mapped_by_name_and_a_wrong_name_says_what_there_is() -> None:
    raw = pa.table({"uid": ["u"], "song": ["i"], "when": ["2024-01-01"]})
    mapping = {"user_id": "uid", "item_id": "song", "started_at": "when"}
    assert len(read_events(raw, mapping).events) == 1
    with pytest.raises(DataError, match="no column for user_id; columns: uid, song, when"):
        read_events(raw)
    with pytest.raises(DataError, match="user_id is mapped to 'user', which is not a column"):
        read_events(raw, {**mapping, "user_id": "user"})
    with pytest.raises(DataError, match="column mapping names 'who'; expected one of user_id"):
        read_events(raw, {**mapping, "who": "uid"})


def test_a_file_without_one_good_row_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match="no event can be kept of 1 rows: 1 rows: started_at cannot be read as a time"):
        read_events(pa.table({"user_id": ["u"], "item_id": ["i"], "started_at": ["noon"]}))
    with pytest.raises(DataError, match="no event can be kept of 0 rows"):
        read_events(
            pa.table(
                {
                    "user_id": pa.array([], pa.string()),
                    "item_id": pa.array([], pa.string()),
                    "started_at": pa.array([], pa.int64()),
                }
            )
        )


def test_rows_are_sorted_by_listener_then_time_then_the_order_given() -> None:
    raw = pa.table(
        {
            "user_id": ["b", "a", "a", "a"],
            "item_id": ["1", "2", "3", "4"],
            "started_at": [10**9, 10**9, 10**9, 10**9 - 5],
            "order": [0, 9, 2, 5],
        }
    )
    assert read_events(raw).events["item_id"].to_pylist() == ["4", "3", "2", "1"]


def test_the_same_song_twice_in_one_second_is_one_play_unless_an_order_tells_them_apart() -> None:
    raw = {"user_id": ["a", "a"], "item_id": ["1", "1"], "started_at": [10**9, 10**9]}
    assert len(read_events(pa.table(raw)).events) == 1
    assert len(read_events(pa.table({**raw, "order": [0, 1]})).events) == 2


def test_ids_are_opaque_strings() -> None:
    raw = pa.table({"user_id": [7.0, 8.0], "item_id": ["007", "7"], "started_at": [10**9, 10**9]})
    events = read_events(raw).events
    assert events["user_id"].to_pylist() == ["7", "8"]
    assert events["item_id"].to_pylist() == ["007", "7"]


def test_milliseconds_may_be_mapped_to_seconds() -> None:
    events = read_events(table(played=[1500]), {"listened_ms": "played"}).events
    assert events["listened_s"].to_pylist() == [1.5]


@pytest.mark.parametrize("name", ["Europe/Stockholm", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_offsets_agree_with_the_zone_database_over_two_clock_changes(name: str) -> None:
    at_s = np.arange(1_704_067_200, 1_735_689_600, 5_431, dtype=np.int64)  # 2024
    expected = [
        datetime.fromtimestamp(int(s), ZoneInfo(name)).utcoffset() // timedelta(minutes=1)  # type: ignore[operator]
        for s in at_s
    ]
    assert offset_of_instant(at_s, name).tolist() == expected


def test_a_naive_time_is_the_wall_clock_of_the_zone_given() -> None:
    raw = pa.table(
        {
            "user_id": ["a", "b", "a", "b"],
            "item_id": ["1", "1", "2", "2"],
            # the evening before and after the European change of 31 March 2024; America's was on the 10th
            "started_at": ["2024-03-30T20:00", "2024-03-30T20:00", "2024-03-31T20:00", "2024-03-31T20:00"],
            "tz": ["Europe/Stockholm", "America/New_York", "Europe/Stockholm", "America/New_York"],
        }
    )
    events = read_events(raw).events
    assert [t.hour for t in events["started_at"].to_pylist()] == [19, 18, 0, 0]
    assert events["utc_offset_min"].to_pylist() == [60, 120, -240, -240]
    hour, weekday = local_clock(events)
    assert hour.tolist() == [20, 20, 20, 20]
    assert weekday.tolist() == [5, 6, 5, 6]


def test_the_hour_that_a_clock_change_repeats_is_its_first_and_the_one_it_skips_keeps_the_old_offset() -> None:
    wall = np.array([datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 31, 2, 30)], dtype="datetime64[s]").astype(
        np.int64
    )
    assert offset_of_wall_clock(wall, "Europe/Stockholm").tolist() == [120, 60]


def test_a_written_offset_is_the_listeners_and_z_says_nothing_of_it() -> None:
    events = read_events(table(started_at=["2024-01-01T08:00:00+09:00", "2024-01-01T08:00:00Z"])).events
    assert sorted(events["utc_offset_min"].to_pylist(), key=str) == [540, None]
    local = read_events(table(started_at=["2024-07-01T08:00:00Z"]), default_tz="Europe/Stockholm").events
    assert local_clock(local)[0].tolist() == [10]


def test_an_unknown_zone_is_refused_by_row_in_a_column_and_at_once_as_the_default() -> None:
    checked = read_events(table(started_at=["2024-01-01", "2024-01-01"], tz=["Mars/Olympus", "UTC"])).check
    assert [(r.reason, r.rows) for r in checked.rejected] == [("tz is not a known time zone", 1)]
    with pytest.raises(ValueError, match="time zone is 'Mars/Olympus'; expected an IANA name"):
        read_events(table(), default_tz="Mars/Olympus")


def test_hours_and_weekdays_agree_with_datetime() -> None:
    at_s = np.arange(0, 20 * 86_400, 4_001, dtype=np.int64)
    hour, weekday = hour_and_weekday(at_s, np.full(len(at_s), -330))
    for s, h, w in zip(at_s.tolist(), hour.tolist(), weekday.tolist(), strict=True):
        there = datetime.fromtimestamp(s, timezone(timedelta(minutes=-330)))
        assert (h, w) == (there.hour, there.weekday())


def test_sessions_are_cut_by_twenty_minutes_and_by_listener() -> None:
    at = [10**9, 10**9 + 1200, 10**9 + 2401, 10**9]
    events = read_events(pa.table({"user_id": ["a", "a", "a", "b"], "item_id": list("wxyz"), "started_at": at})).events
    assert count_sessions(events) == 4
    assert count_sessions(events) == len(cut_sessions(events, {}, np.eye(1, dtype=np.float32)))


def test_the_order_of_the_rows_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    raw = pa.table(
        {
            "user_id": rng.integers(5, size=200).astype(str),
            "item_id": rng.integers(20, size=200).astype(str),
            "started_at": rng.integers(10**9, 10**9 + 10**6, size=200),
        }
    )
    shuffled = raw.take(pa.array(rng.permutation(200)))
    assert read_events(raw).events.equals(read_events(shuffled).events)


def test_profiles_list_what_was_played_newest_first_and_most_first() -> None:
    raw = pa.table(
        {
            "user_id": list("aaaaab"),
            "item_id": ["x", "y", "x", "z", "y", "x"],
            "started_at": [10**9 + k for k in range(6)],
            "skipped": [None, False, False, True, True, False],
        }
    )
    profiles = build_profiles(read_events(raw).events, ["x", "y", "z"])
    assert profiles.recent("a").tolist() == [1, 2, 0]
    assert profiles.favourite("a").tolist() == [0, 1]
    assert profiles.recent("b").tolist() == [0]
    assert profiles.recent("nobody").tolist() == []
    assert profiles.first_at("a") == 10**9
    assert profiles.diversity("a") is None
    assert profiles.hours.sum() == 6


def test_profiles_survive_saving(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    raw = pa.table(
        {
            "user_id": rng.integers(30, size=900).astype(str),
            "item_id": rng.integers(80, size=900).astype(str),
            "started_at": rng.integers(10**9, 10**9 + 10**6, size=900),
        }
    )
    built = build_profiles(read_events(raw).events, {str(k): k for k in range(70)}, limit=9)
    built.save(tmp_path)
    again = Profiles.load(tmp_path)
    for user in built.user_id.tolist():
        assert again.recent(user).tolist() == built.recent(user).tolist()
        assert again.favourite(user).tolist() == built.favourite(user).tolist()
        assert len(set(built.recent(user).tolist())) == len(built.recent(user)) <= 9
    np.testing.assert_array_equal(again.hours, built.hours)
    np.testing.assert_array_equal(again.spread, built.spread)


def test_events_of_unknown_items_leave_no_listener() -> None:
    assert len(build_profiles(read_events(table()).events, {"other": 0})) == 0


@pytest.mark.parametrize("column", [True, False])
def test_times_of_an_hour_that_a_clock_has_twice_or_never_are_told(column: bool) -> None:
    local = ["2024-10-27 02:30:00", "2024-10-27 03:30:00", "2024-03-31 02:30:00", "2024-03-31 01:59:59"]
    table = pa.table(
        {"user_id": ["u"] * 5, "item_id": list("abcde"), "started_at": [*local, "2024-10-27T02:30:00+01:00"]}
    )
    if column:
        table = table.append_column("tz", pa.array(["Europe/Berlin"] * 5))
    loaded = read_events(table, default_tz=None if column else "Europe/Berlin")
    at = dict(zip(loaded.events["item_id"].to_pylist(), loaded.events["started_at"].to_pylist(), strict=True))
    assert [at[item].strftime("%m-%d %H:%M:%S") for item in "abcde"] == [
        "10-27 00:30:00", "10-27 02:30:00", "03-31 01:30:00", "03-31 00:59:59", "10-27 01:30:00",
    ]  # fmt: skip
    assert any(note.startswith("2 times without a zone are in an hour that") for note in loaded.check.notes)
    assert not read_events(table.slice(1, 1), default_tz="Europe/Berlin").check.notes
