"""Forgetting: an erased user is nowhere, a pruned day is gone from the log and kept in its export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from api.commands import log as commands
from bart.errors import DataError, LogError
from bart.log.care.erasure import TOMBSTONE_FILE, erase_user, prune, tombstone_checksum
from bart.log.care.export import export_log
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.record import to_us
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ListenerTraits, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
LATER = AT + timedelta(days=30)
DAY = timedelta(days=1)


def make(i: int, user_id: str = "", **changes: Any) -> Decision:
    """A drawn page, one every eight hours; what it says about its user stands in it as text."""
    user_id = user_id or f"listener-{i % 3}@example.org"
    shelves = (Shelf("rule", f"Made for {user_id}"),)
    rng = np.random.default_rng(i)
    score = rng.random(6)
    page = PagePolicy(EpsilonGreedy(0.3), EpsilonGreedy(0.3)).decide(
        Candidates(np.arange(6), np.zeros(6, np.int64), shelves), score, 1, 3, np.random.default_rng(i)
    )
    whole = Decision(
        f"request-{i:04d}-of-{user_id}",
        user_id,
        Context(AT + i * timedelta(hours=8)),
        ListenerTraits(),
        rng.normal(size=3).astype(np.float32),
        "batch",
        "epsilon_greedy",
        np.full(1, 0.3),
        np.full(3, 0.3),
        "rules",
        i,
        shelves,
        np.array([f"item-{j}" for j in range(6)], dtype=object),
        np.zeros(6, np.int64),
        score,
        score,
        page,
    )
    return replace(whole, **changes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log.sqlite") as opened:
        opened.append_many(make(i) for i in range(30))
        for i in range(30):
            at = make(i).decided_at
            event = FeedbackEvent(f"event-of-{make(i).user_id}", at, 0, 0, seen=True, listened_s=40.0)
            opened.feedback(make(i).request_id, [event], at)
        opened.feedback("unknown", [FeedbackEvent("waiting", AT, 0, 0)], AT)
        yield opened


def files_with(directory: Path, text: str) -> list[str]:
    return [file.name for file in directory.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_an_erased_user_leaves_no_byte_but_tombstones(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    assert files_with(tmp_path, "event-of-listener-1@")
    result = erase_user(log, "listener-1@example.org", LATER, [tmp_path / "log"])
    assert (result.pages, result.events, result.exported) == (10, 10, 10)
    for text in ("event-of-listener-1@", "Made for listener-1@"):
        assert files_with(tmp_path, text) == []
    assert log.stats().erased == 10
    assert len(log) == 20
    left = [d.user_id for d in log.decisions()]
    assert sorted(set(left)) == ["listener-0@example.org", "listener-2@example.org"]
    rows = [row for f in (tmp_path / "log").rglob("part-*.parquet") for row in pq.read_table(f)["user_id"].to_pylist()]
    assert sorted(rows) == sorted(left)
    for path in (tmp_path / "log.sqlite", tmp_path / "log"):
        assert verify(path).ok
    assert verify(tmp_path / "log.sqlite").tombstones == 10


def test_the_bytes_are_gone_while_the_log_is_still_open(tmp_path: Path, log: DecisionLog) -> None:
    log.append(make(900, user_id="someone@else.example"))
    assert files_with(tmp_path, "someone@else.example")
    erase_user(log, "someone@else.example", LATER)
    with log.maintaining() as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    names = files_with(tmp_path, "someone@else.example")
    assert names == ["log.sqlite"]  # its request id bears the name here, and stays in the tombstone
    request_id = "request-0900-of-someone@else.example"
    assert (tmp_path / "log.sqlite").read_bytes().count(b"someone@else.example") == 1
    with log.reading() as connection:
        erased = connection.execute("SELECT * FROM tombstone WHERE request_id = ?", (request_id,)).fetchone()
    assert erased == (request_id, to_us(LATER), tombstone_checksum(request_id, to_us(LATER)))


def test_an_erased_request_does_not_come_back(log: DecisionLog) -> None:
    erase_user(log, "listener-1@example.org", LATER)
    with pytest.raises(LogError, match="was erased; its id cannot be used again"):
        log.append(make(1))
    result = log.feedback(make(1).request_id, [FeedbackEvent("late", AT, 0, 0)], AT)
    assert [r.reason for r in result.rejected] == [f"request {make(1).request_id!r} was erased"]
    assert log.stats().quarantined == 1


def test_erasing_twice_or_an_unknown_user_finds_nothing(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    erase_user(log, "listener-1@example.org", LATER, [tmp_path / "log"])
    for user_id in ("listener-1@example.org", "nobody"):
        again = erase_user(log, user_id, LATER, [tmp_path / "log"])
        assert (again.pages, again.events, again.exported, again.files) == (0, 0, 0, 0)
    with pytest.raises(LogError, match="user_id is empty"):
        erase_user(log, "", LATER)
    with pytest.raises(LogError, match="is not a directory; expected an export"):
        erase_user(log, "nobody", LATER, [tmp_path / "nowhere"])


def test_exporting_after_an_erasure_changes_nothing_more(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    erase_user(log, "listener-1@example.org", LATER, [tmp_path / "log"])
    erased = {f.name: pq.read_table(f) for f in (tmp_path / "log").rglob("part-*.parquet")}
    export_log(log, tmp_path / "log")
    for name, table in erased.items():
        (found,) = [t for f in (tmp_path / "log").rglob("part-*.parquet") if (t := pq.read_table(f)).equals(table)]
        assert found.equals(table), name
        break


def test_a_day_that_was_all_of_one_user_disappears_from_the_export(tmp_path: Path, log: DecisionLog) -> None:
    log.append(make(300, user_id="alone"))
    export_log(log, tmp_path / "log", now=LATER + 100 * DAY)
    before = len(list((tmp_path / "log").glob("date=*")))
    assert erase_user(log, "alone", LATER, [tmp_path / "log"]).files == 1
    assert len(list((tmp_path / "log").glob("date=*"))) == before - 1
    tombstones = pq.read_table(tmp_path / "log" / TOMBSTONE_FILE).to_pylist()
    assert [row["request_id"] for row in tombstones] == ["request-0300-of-alone"]
    assert tombstones[0]["checksum"] == tombstone_checksum("request-0300-of-alone", to_us(LATER))


def test_pages_that_are_only_in_the_export_are_erased_there_too(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    prune(log, LATER)
    result = erase_user(log, "listener-2@example.org", LATER, [tmp_path / "log"])
    assert (result.pages, result.exported) == (0, 10)
    with pytest.raises(LogError, match="was erased"):
        log.append(make(2))


def test_a_reader_in_the_way_is_named_and_the_next_try_succeeds(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log", busy_timeout_s=0.05) as log, DecisionLog(tmp_path / "log") as other:
        log.append_many(make(i) for i in range(3))
        with other.reading() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM decision").fetchone()
            with pytest.raises(LogError, match="read by another process"):
                erase_user(log, "listener-1@example.org", LATER)
            connection.execute("ROLLBACK")
        erase_user(log, "listener-1@example.org", LATER)
        assert not [name for name in files_with(tmp_path, "Made for listener-1") if name]


def test_pruning_takes_whole_days_with_their_feedback(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    kept = {f.name: f.read_bytes() for f in (tmp_path / "log").rglob("part-*.parquet")}
    result = prune(log, datetime(2026, 3, 4, 17, tzinfo=timezone.utc))
    assert result.before == datetime(2026, 3, 4, tzinfo=timezone.utc)
    assert (result.pages, result.events, result.quarantined) == (8, 8, 1)
    assert log.stats().first_at == datetime(2026, 3, 4, 4, tzinfo=timezone.utc)
    assert {f.name: f.read_bytes() for f in (tmp_path / "log").rglob("part-*.parquet")} == kept
    assert verify(tmp_path / "log.sqlite").ok


def test_an_export_after_pruning_leaves_the_archive_alone(tmp_path: Path, log: DecisionLog) -> None:
    export_log(log, tmp_path / "log", now=LATER)
    prune(log, AT + 3 * DAY)
    log.append(make(2, request_id="came too late"))
    result = export_log(log, tmp_path / "log")
    assert result.pruned_days == 1
    assert sum(pq.read_metadata(f).num_rows for f in (tmp_path / "log").rglob("part-*.parquet")) == 30


def test_what_a_killed_export_left_is_removed_by_the_next_export_and_by_erasure(
    tmp_path: Path, log: DecisionLog
) -> None:
    export_log(log, tmp_path / "export", now=LATER)
    day = next((tmp_path / "export").glob("date=*"))
    left = day / ".part-00000.parquet.99.tmp"
    left.write_bytes(b"rows of listener-1@example.org")
    erase_user(log, "listener-1@example.org", LATER, [tmp_path / "export"])
    assert not left.exists()
    left.write_bytes(b"rows")
    export_log(log, tmp_path / "export", now=LATER)
    assert not left.exists()


def test_feedback_that_came_after_pruning_is_erased_with_its_page(tmp_path: Path, log: DecisionLog) -> None:
    user = "listener-1@example.org"
    request_id = next(d.request_id for d in log.decisions() if d.user_id == user)
    export_log(log, tmp_path / "export", now=LATER)
    prune(log, LATER)
    log.feedback(request_id, [FeedbackEvent("late", AT)], LATER)
    result = erase_user(log, user, LATER, [tmp_path / "export"])
    assert result.quarantined == 1
    with log.reading() as connection:
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


@pytest.mark.parametrize("age", ["9999999d", "99999999999999999999d", "²d", "0d", "-1d", "d", "soon"])
def test_an_age_that_is_none_is_a_mistake_of_one_line(log: DecisionLog, age: str) -> None:
    with pytest.raises(DataError, match="--older-than is .*; expected"):
        commands.prune(log.path, older_than=age)


@pytest.mark.parametrize("hours", [float("inf"), float("nan"), 0.0, -1.0, 1e9])
def test_a_window_that_is_none_is_a_mistake_of_one_line(log: DecisionLog, hours: float) -> None:
    with pytest.raises(DataError, match="--window-h is .*; expected hours"):
        commands.stats(log.path, window_h=hours)
