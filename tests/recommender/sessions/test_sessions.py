"""Cutting sessions: boundaries, features and vectors, against what can be said by hand."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_listening import synthetic_listening

from bart.errors import DataError
from recommender.listener.memories import MEMORIES, memory_vectors
from recommender.sessions.sessions import Sessions, cut_sessions, time_split

START = datetime(2024, 3, 4, 23, 30, tzinfo=timezone.utc)  # a Monday
VECTOR = np.eye(4, dtype=np.float32)
ROW = {f"i{k}": k for k in range(4)}


def event(minute: float, item: str = "i0", user: str = "u", **more: Any) -> dict[str, Any]:
    at = START + timedelta(minutes=minute)
    return {"user_id": user, "item_id": item, "started_at": at, "listened_s": 60.0, "skipped": False, **more}


def table(*events: dict[str, Any]) -> pa.Table:
    names = ["user_id", "item_id", "started_at", "utc_offset_min", "listened_s", "skipped", "device", "source"]
    types = [pa.string(), pa.string(), pa.timestamp("us", "UTC"), pa.int32(), pa.float64(), pa.bool_()]
    types += [pa.string(), pa.string()]
    return pa.table({n: pa.array([e.get(n) for e in events], t) for n, t in zip(names, types, strict=True)})


def cut(*events: dict[str, Any], **more: Any) -> Sessions:
    return cut_sessions(table(*events), ROW, VECTOR, **more)


def test_twenty_minutes_of_silence_end_a_session_and_a_second_less_does_not() -> None:
    assert len(cut(event(0), event(21))) == 2  # one minute of play, twenty of silence
    assert len(cut(event(0), event(21 - 1 / 60))) == 1


def test_silence_starts_when_the_listening_ends() -> None:
    assert len(cut(event(0, listened_s=600.0), event(29))) == 1
    assert len(cut(event(0, listened_s=None), event(20))) == 2  # unknown: no time at all


def test_sessions_of_one_listener_do_not_run_into_those_of_the_next() -> None:
    s = cut(event(0, user="a"), event(1, user="b"), event(2, user="a"))
    assert s.user_id.tolist() == ["a", "b"]
    assert s.size.tolist() == [1, 1]
    assert s.columns.n_tracks.tolist() == [2, 1]


def test_the_order_of_the_table_does_not_matter() -> None:
    events = [event(k * 7 + 40 * (k // 3), f"i{k % 4}", "ab"[k % 2]) for k in range(12)]
    one, other = cut(*events), cut(*[events[k] for k in np.random.default_rng(0).permutation(12)])
    assert one.columns.all.tobytes() == other.columns.all.tobytes()
    assert one.columns.started_s.tolist() == other.columns.started_s.tolist()


def test_vectors_are_unit_means_of_all_played_and_skipped_tracks() -> None:
    s = cut(event(0, "i0"), event(1, "i1", skipped=True), event(2, "i0", skipped=None))
    assert s.columns.all[0] == pytest.approx(np.array([2, 1, 0, 0]) / np.sqrt(5))
    assert s.columns.played[0] == pytest.approx([1, 0, 0, 0])  # an unknown skip counts as played
    assert s.columns.skipped[0] == pytest.approx([0, 1, 0, 0])


def test_a_session_without_skips_has_a_zero_skipped_vector() -> None:
    s = cut(event(0))
    assert not s.columns.skipped.any()
    assert s.has_played.tolist() == [True]


def test_only_the_first_ten_tracks_make_the_vector_but_all_are_counted() -> None:
    s = cut(*[event(k, "i0" if k < 10 else "i1") for k in range(14)])
    assert s.columns.all[0].tolist() == [1, 0, 0, 0]
    assert s.columns.n_tracks.tolist() == [14]
    assert s.track.tolist() == [0] * 10


def test_unknown_items_keep_a_session_going_without_a_vector() -> None:
    s = cut(event(0, "elsewhere"), event(15, "elsewhere"), event(30, "i2"))
    assert len(s) == 1
    assert s.columns.all[0].tolist() == [0, 0, 1, 0]
    assert s.track.tolist() == [2]


def test_hour_and_weekday_are_the_listeners_own() -> None:
    s = cut(event(0, utc_offset_min=60), event(0, user="v", utc_offset_min=-600), event(0, user="w"))
    assert s.columns.hour.tolist() == [0, 13, 23]
    assert s.columns.weekday.tolist() == [1, 0, 0]  # already Tuesday at UTC+1


def test_a_session_has_the_context_and_source_of_its_first_track() -> None:
    s = cut(event(0, device="web", source="radio"), event(1, device="mobile", source="library"))
    assert s.columns.device.tolist() == [3]
    assert s.sources[s.columns.source[0]] == "radio"


def test_an_unknown_device_is_other_and_an_unknown_source_is_empty() -> None:
    s = cut(event(0), event(0, user="v", device="fridge", source="x"), sources=("", "y"))
    assert s.columns.device.tolist() == [5, 5]
    assert s.columns.source.tolist() == [0, 0]


def test_the_gap_runs_from_the_end_of_the_last_session() -> None:
    s = cut(event(0), event(61))
    assert np.isnan(s.gap_s[0])
    assert s.gap_s[1] == 3600


def test_optional_columns_may_be_missing() -> None:
    s = cut_sessions(table(event(0), event(1)).select(["user_id", "item_id", "started_at"]), ROW, VECTOR)
    assert s.columns.n_tracks.tolist() == [2]


def test_a_missing_column_or_an_empty_table_is_named() -> None:
    with pytest.raises(DataError, match="started_at"):
        cut_sessions(table(event(0)).drop(["started_at"]), ROW, VECTOR)
    with pytest.raises(DataError, match="no row"):
        cut_sessions(table(event(0)).slice(0, 0), ROW, VECTOR)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3000), st.integers(0, 3)), min_size=1, max_size=60))
def test_cutting_equals_a_walk_over_the_events(plays: list[tuple[int, int, int]]) -> None:
    events = [event(minute, f"i{item}", f"u{user}") for user, minute, item in plays]
    s = cut(*events)
    walked: list[list[int]] = []
    last: tuple[int, int] | None = None
    for user, minute, item in sorted(plays, key=lambda play: play[:2]):
        if last is None or last[0] != user or minute - last[1] - 1 >= 20:
            walked.append([])
        walked[-1].append(item)
        last = (user, minute)
    assert s.columns.n_tracks.tolist() == [len(w) for w in walked]
    assert [s.track[a:b].tolist() for a, b in zip(s.track_offset, s.track_offset[1:], strict=False)] == [
        w[:10] for w in walked
    ]


def test_the_split_puts_the_last_days_into_the_test_set() -> None:
    s = cut(*[event(24 * 60 * day) for day in range(30)])
    part = time_split(s).part(s.columns.started_s)
    assert np.bincount(part).tolist() == [11, 5, 14]


def test_a_span_too_short_to_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"1\.0 days"):
        time_split(cut(event(0), event(24 * 60)))


def test_taking_listeners_and_cutting_time_keep_tracks_with_their_sessions() -> None:
    w = synthetic_listening(np.random.default_rng(0), users=4, days=5)
    s = cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)
    one = s.take_users(np.array([2]))
    rows = slice(s.offset[2], s.offset[3])
    assert one.columns.all.tobytes() == s.columns.all[rows].tobytes()
    assert one.track.tolist() == s.track[s.track_offset[s.offset[2]] : s.track_offset[s.offset[3]]].tolist()
    early = s.before(int(np.median(s.columns.started_s)))
    assert early.n_users == s.n_users
    assert 0 < len(early) < len(s)
    assert early.columns.started_s.max() < np.median(s.columns.started_s)


def test_sources_move_to_another_vocabulary_by_name() -> None:
    s = cut(event(0, source="a"), event(100, source="b")).with_sources(("", "b"))
    assert s.columns.source.tolist() == [0, 1]


def test_the_average_memory_is_equation_1() -> None:
    w = synthetic_listening(np.random.default_rng(1), users=2, days=6)
    s = cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)
    found = memory_vectors(s, ("average",))[s.offset[1] : s.offset[2], 0]
    every = s.columns.all[s.offset[1] : s.offset[2]]
    for t in range(1, len(every)):
        expected = (np.arange(1, t + 1)[:, None] * every[:t]).sum(axis=0)
        assert found[t] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_memories_say_nothing_before_the_first_session_and_are_unit_vectors_after() -> None:
    w = synthetic_listening(np.random.default_rng(2), users=3, days=4)
    s = cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)
    found = memory_vectors(s, tuple(MEMORIES))
    assert not found[s.position == 0].any()
    norm = np.linalg.norm(found, axis=-1)
    assert np.all((np.abs(norm - 1) < 1e-5) | (norm == 0))


def test_the_last_session_in_the_same_context_is_remembered_by_context() -> None:
    w = synthetic_listening(np.random.default_rng(3), users=2, days=5)  # a morning and an evening each day
    s = cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)
    found = memory_vectors(s, ("last_same_context", "last"))
    inside = s.position >= 2
    assert found[inside, 0] == pytest.approx(s.columns.played[np.flatnonzero(inside) - 2], abs=1e-6)
    assert found[inside, 1] == pytest.approx(s.columns.played[np.flatnonzero(inside) - 1], abs=1e-6)
