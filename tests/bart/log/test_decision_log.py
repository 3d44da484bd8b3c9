"""The decision log: nothing acknowledged is lost, whoever writes and however they end."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import drawn_pages
import pytest
from drawn_pages import AT, make

from bart.errors import LogError
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.record import encode
from bart.types import Context, Decision

DAY = timedelta(days=1)


def same(one: Decision | None, other: Decision) -> bool:
    return one is not None and encode(one) == encode(other)


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        for i in range(5):
            log.append(make(i))
        assert len(log) == 5
        assert "request-3" in log
        assert "request-9" not in log
        assert log.get("request-9") is None
        assert all(same(log.get(f"request-{i}"), make(i)) for i in range(5))


def test_decisions_come_in_the_order_of_appending_also_after_reopening(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        for i in (3, 1, 2):
            log.append(make(i))
    with DecisionLog(tmp_path / "log.sqlite", create=False) as log:
        assert [d.request_id for d in log.decisions()] == ["request-3", "request-1", "request-2"]
        since, until = AT + timedelta(minutes=2), AT + timedelta(minutes=3)
        assert [d.request_id for d in log.decisions(since, until)] == ["request-2"]


def test_the_same_decision_again_is_a_retry_and_another_one_is_refused(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append(make(1))
        log.append(make(1))
        assert len(log) == 1
        with pytest.raises(LogError, match=r"'request-1' is in the log already, with another decision"):
            log.append(replace(make(2), request_id="request-1"))
        assert same(log.get("request-1"), make(1))


def test_many_are_appended_all_or_none(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        assert log.append_many(make(i) for i in range(10)) == 10
        with pytest.raises(LogError, match="another decision"):
            log.append_many([make(20), replace(make(21), request_id="request-1")])
        assert len(log) == 10
        assert "request-20" not in log


def test_the_same_decisions_make_the_same_rows(tmp_path: Path) -> None:
    rows = []
    for name in ("one", "two"):
        with DecisionLog(tmp_path / name) as log:
            log.append_many(make(i) for i in range(10))
            rows.append(list(log.stored()))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_threads_that_append_at_once_share_commits_and_lose_nothing(
    tmp_path: Path, synchronous: Literal["NORMAL", "FULL"]
) -> None:
    decisions = [make(i) for i in range(160)]
    with DecisionLog(tmp_path / "log.sqlite", synchronous=synchronous) as log:
        errors: list[BaseException] = []

        def work(part: list[Decision]) -> None:
            try:
                for decision in part:
                    log.append(decision)
                    assert decision.request_id in log
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(decisions[k::8],)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert {d.request_id for d in log.decisions()} == {d.request_id for d in decisions}


def test_those_who_wait_share_one_commit_and_a_refused_one_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append(make(0))
        sizes: list[int] = []
        commit = log._commits._commit

        def counted(batch: list[object]) -> None:
            sizes.append(len(batch))
            commit(batch)  # type: ignore[arg-type]

        log._commits._commit = counted  # type: ignore[method-assign, assignment]
        refused: list[str] = []

        def work(decision: Decision) -> None:
            try:
                log.append(decision)
            except LogError as error:
                refused.append(str(error))

        decisions = [*(make(i) for i in range(1, 8)), replace(make(9), request_id="request-0")]
        threads = [threading.Thread(target=work, args=(decision,)) for decision in decisions]
        with log._commits.lock:  # a commit that takes its time
            for thread in threads:
                thread.start()
            while log._commits.waiting() < len(threads):
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert sizes == [8]
        assert refused == ["request 'request-0' is in the log already, with another decision"]
        assert len(log) == 8


def test_full_syncs_and_normal_does_not(tmp_path: Path) -> None:
    for name, value in (("NORMAL", 1), ("FULL", 2)):
        with DecisionLog(tmp_path / name, synchronous=name) as log, log.maintaining() as connection:  # type: ignore[arg-type]
            assert connection.execute("PRAGMA synchronous").fetchone() == (value,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Children are forked from one process that has loaded everything, so that each begins to write at once
FORKS = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from drawn_pages import make
from bart.log.decision_log import DecisionLog
path = sys.argv[2]

def write(decisions):
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    with DecisionLog(path, synchronous="FULL") as log:
        for decision in decisions:
            log.append(decision)
            os.write(write, decision.request_id.encode() + b"\\n")
    os._exit(0)

def rest(read, said=b""):
    while part := os.read(read, 1 << 16):
        said += part
    os.close(read)
    return said[:said.rfind(b"\\n") + 1].decode().split()
"""


def forks(path: Path, code: str) -> list[str]:
    """Runs `code` after FORKS in a process of its own; the words that it prints."""
    run = subprocess.run(
        [sys.executable, "-c", FORKS + code, str(Path(drawn_pages.__file__).parent), str(path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_processes_that_append_to_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    said = forks(
        path,
        """
children = [write([make(i) for i in range(100 * k, 100 * k + 60)]) for k in range(3)]
for child, read in children:
    print(*rest(read))
    assert os.waitpid(child, 0)[1] == 0
""",
    )
    with DecisionLog(path, create=False) as log:
        assert {d.request_id for d in log.decisions()} == set(said)
        assert len(log) == 180


def test_a_writer_that_is_killed_at_any_moment_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    said = forks(
        path,
        """
rng = np.random.default_rng(7)
for turn in range(20):
    child, read = write([make(1000 * turn + i) for i in range(50)])
    first = os.read(read, 1 << 16)
    time.sleep(rng.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acknowledged = rest(read, first)
    assert acknowledged
    with DecisionLog(path, create=False) as log:
        assert all(log.get(request_id) is not None for request_id in acknowledged)
    print(*acknowledged)
""",
    )
    assert len({int(request_id.removeprefix("request-")) // 1000 for request_id in said}) == 20
    result = verify(path)
    assert result.ok
    with DecisionLog(path, create=False) as log:
        assert set(said) <= {decision.request_id for decision in log.decisions()}
        log.append(make(999_999))  # and others go on with it


def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append(make(0))
        with log.maintaining() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LogError, match="cannot be written: database or disk is full"):
            log.append_many(make(i) for i in range(1, 50))
        with log.maintaining() as connection:
            connection.execute("PRAGMA max_page_count = 100000")
        log.append(make(1))
        assert [d.request_id for d in log.decisions()] == ["request-0", "request-1"]


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append_many(make(i) for i in range(4))
        log.append(replace(make(9), context=Context(AT + 3 * DAY)))
        received = AT + timedelta(hours=1)
        log.feedback("request-0", [FeedbackEvent("a", received, 0, 0, True, True, 40.0)], received)
        log.feedback("request-1", [FeedbackEvent("a", received, displayed=True)], received)
        log.feedback("request-2", [FeedbackEvent("a", received, 0, 0, True, True)], AT + 2 * DAY)
        log.feedback("unknown", [FeedbackEvent("a", received, 0, 0)], received)
        log.feedback("request-0", [FeedbackEvent("b", received, 9, 9)], received)
        before = log.stats()
        assert (before.closed, before.open) == (0, 5)
        assert log.close_windows(AT + 2 * DAY) == 4
        assert log.close_windows(AT) == 4  # a window does not open again
        stats = log.stats()
    assert (stats.decisions, stats.users, stats.events) == (5, 5, 3)
    assert (stats.late, stats.quarantined, stats.rejected, stats.conflicting) == (1, 1, 1, 0)
    assert (stats.closed, stats.open, stats.undisplayed, stats.silent) == (4, 1, 2, 1)
    assert (stats.first_at, stats.last_at) == (AT, AT + 3 * DAY)
    assert stats.bytes > 0


def test_an_empty_log_has_statistics(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        stats = log.stats()
    assert (stats.decisions, stats.first_at, stats.closed) == (0, None, 0)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, only words " * 100)
    with pytest.raises(LogError, match="cannot be opened as a decision log: file is not a database"):
        DecisionLog(tmp_path / "text")
    connection = sqlite3.connect(tmp_path / "other")
    connection.execute("CREATE TABLE song (title TEXT)")
    connection.close()
    with pytest.raises(LogError, match="SQLite file of another kind"):
        DecisionLog(tmp_path / "other")
    with pytest.raises(LogError, match="does not exist"):
        DecisionLog(tmp_path / "nothing", create=False)
    with pytest.raises(LogError, match="is not a directory"):
        DecisionLog(tmp_path / "no" / "log.sqlite")
    with pytest.raises(LogError, match="synchronous is 'OFF'; expected NORMAL or FULL"):
        DecisionLog(tmp_path / "log", synchronous="OFF")  # type: ignore[arg-type]
    with pytest.raises(LogError, match="feedback_window"):
        DecisionLog(tmp_path / "log", feedback_window=timedelta(0))


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    DecisionLog(tmp_path / "log").close()
    connection = sqlite3.connect(tmp_path / "log")
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    with pytest.raises(LogError, match="version 4; this code reads 1 to 3: update the software"):
        DecisionLog(tmp_path / "log")


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log")
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append(make(0))


def test_a_job_that_fails_midway_does_not_take_its_batch_along(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        failed: list[BaseException] = []

        def broken(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO meta VALUES ('half', 1)")
            raise OverflowError("too large")

        def work(i: int) -> None:
            try:
                log._commits.run(broken) if i == 3 else log.append(make(i))
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        with log._commits.lock:
            for thread in threads:
                thread.start()
            while log._commits.waiting() < len(threads):
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert [type(error) for error in failed] == [OverflowError]
        assert len(log) == 7
        with log.reading() as connection:
            assert connection.execute("SELECT count(*) FROM meta WHERE name = 'half'").fetchone() == (0,)


def test_a_reader_that_does_not_end_is_told_before_the_disk_is_full_and_nothing_is_lost(tmp_path: Path) -> None:
    """An unfinished cursor is enough, and closing its connection does not end it."""
    path = tmp_path / "log.sqlite"
    with DecisionLog(path, max_wal_bytes=200_000) as log:
        log.append_many(make(i) for i in range(50))
        left_open = sqlite3.connect(path)
        rows = left_open.execute("SELECT record FROM decision")
        next(rows)
        left_open.close()
        kept = 50
        with pytest.raises(LogError, match=r"log.sqlite-wal has 0 MB and a process that reads log.sqlite keeps it"):
            for i in range(50, 400):
                log.append(make(i))
                kept += 1
        assert log.wal_bytes() < 300_000
        assert len(log) == kept
        del rows
        log.append(make(kept))
        assert log.wal_bytes() < 200_000
    assert verify(path).ok


def test_compacting_beside_a_reader_that_does_not_end_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with DecisionLog(path) as log, DecisionLog(path) as other:
        log.append_many(make(i) for i in range(50))
        reader = sqlite3.connect(path)
        rows = reader.execute("SELECT record FROM decision")
        next(rows)
        held = log.wal_bytes()
        with pytest.raises(LogError, match="is read by another process"):
            log.compact()
        assert log.wal_bytes() == held  # the whole file was not written to it
        other.append(make(50))
        assert other.append_at_once(encode(make(51)))
        rows.close()
        reader.close()
        log.compact()
        assert log.wal_bytes() == 0
