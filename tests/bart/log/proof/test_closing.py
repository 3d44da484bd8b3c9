"""Days close when their last window has, under the key, and no further than there are pages."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import proof_world as world
import pyarrow.parquet as pq
import pytest

from bart.errors import LogError
from bart.log.care.erasure import erase_user, prune
from bart.log.care.export import export_log
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.proof.key import read_key
from bart.log.proof.merkle import EMPTY, bucket_roots, day_root, root
from bart.log.record.record import from_us, to_us

DAY, HOUR, AT = world.DAY, world.HOUR, world.AT


def kinds(log: DecisionLog) -> list[tuple[str, str, int]]:
    return [(entry.kind, entry.day, entry.count) for entry in log.chain()]


def test_a_day_closes_with_its_last_window_and_what_comes_later_is_an_amendment(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        for i in range(8):  # four a day, the last of the first day at 18:00
            log.append(world.make(i))
        log.close_windows(AT + 41 * HOUR)  # 23:00 of the next day: the day is not over by a window
        assert kinds(log) == [("opened", "", 0)]
        log.close_windows(AT + 42 * HOUR)
        assert kinds(log)[1:] == [("closed", "2026-03-01", 4)]
        page = world.make(0)
        late = log.feedback(page.request_id, [world.event("late", page.decided_at)], page.decided_at + 30 * HOUR)
        delayed = log.feedback(page.request_id, [world.event("delayed", page.decided_at)], page.decided_at + HOUR)
        assert (late.late, delayed.accepted) == (1, 1)
        joined = log.joined(page.request_id)
        assert joined is not None
        assert (joined.events, joined.late) == (1, 1)  # readers need not wait
        log.append(world.make(20, at=AT + HOUR))  # a host had to keep it
        assert verify(tmp_path / "log.sqlite").ok
        log.close_windows(AT + 42 * HOUR)
        assert kinds(log)[2:] == [("amended", "2026-03-01", 5), ("amended", "2026-03-01", 5)]
        log.close_windows(AT + 42 * HOUR)
        assert len(log.chain()) == 4
    assert verify(tmp_path / "log.sqlite").ok


def test_a_day_that_nobody_closes_is_told_from_the_moment_at_which_it_could_be(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        assert log.unclosed_us() is None
        for i in range(8):
            log.append(world.make(i))
        midnight = AT.replace(hour=0, minute=0, second=0, microsecond=0)
        due = log.unclosed_us()
        assert due is not None
        last_window = timedelta(microseconds=log.window_us - 1)
        assert from_us(due) == midnight + DAY + last_window
        log.close_windows(from_us(due - 1))  # not yet
        assert log.unclosed_us() == due
        log.close_windows(from_us(due))
        assert log.unclosed_us() == to_us(midnight + 2 * DAY + last_window)
        log.close_windows(AT + 365 * DAY)
        assert log.unclosed_us() is None


def test_the_watermark_goes_no_further_than_the_newest_page(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        assert log.close_windows(AT + 365 * DAY) == 0
        assert log.closed_us() is None
        for i in range(4):
            log.append(world.make(i))
        assert log.close_windows(AT + 365 * DAY) == 4
        closed_us = log.closed_us()
        assert closed_us is not None
        assert from_us(closed_us) == world.make(3).decided_at


def test_what_comes_after_a_clock_that_was_ahead_is_in_the_export_with_its_feedback(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append(world.make(0))
        export_log(log, tmp_path / "log", now=AT + 365 * DAY)  # the clock was a year ahead
        for i in (1, 5):  # of the same day, which was closed too early, and of the next
            page = world.make(i)
            log.append(page)
            log.feedback(page.request_id, [world.event("e", page.decided_at)], page.decided_at + HOUR)
        first = world.make(0)
        log.feedback(first.request_id, [world.event("e", first.decided_at)], first.decided_at + HOUR)
        result = export_log(log, tmp_path / "log", now=AT + 4 * DAY)
        assert (result.pages, result.open) == (3, 0)
    events = pq.read_table(tmp_path / "log", columns=["request_id", "events"]).to_pylist()
    assert {row["request_id"]: row["events"] for row in events} == dict.fromkeys(
        ("request-000", "request-001", "request-005"), 1
    )
    assert verify(tmp_path / "log").ok
    assert verify(tmp_path / "log.sqlite").ok


def test_the_watermark_can_be_lowered_and_the_chain_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    world.fill(path, key=world.KEY)
    with DecisionLog(path, proof_key=world.KEY) as log:
        entry = log.lower_watermark(AT + 2 * DAY)
        assert (entry.kind, from_us(entry.at_us)) == ("lowered", AT + 2 * DAY)
        closed_us = log.closed_us()
        assert closed_us is not None
        assert from_us(closed_us) == AT + 2 * DAY
        page = world.make(2)  # of a day that stays closed: it waits as an amendment
        log.feedback(page.request_id, [world.event("more", page.decided_at, 2)], page.decided_at + HOUR)
        assert verify(path, proof_key=world.KEY).ok
    with sqlite3.connect(path) as sql:  # marks that were altered stop closings, and are set anew by the same way
        sql.execute("UPDATE meta SET value = value + 86400000000 WHERE name = 'closed_us'")
    sql.close()
    with DecisionLog(path, proof_key=world.KEY) as log:
        with pytest.raises(LogError, match="are not what was sealed, or the key is another; verify the log"):
            log.close_windows(AT + 9 * DAY)
        log.lower_watermark(AT + 5 * DAY)
        log.close_windows(AT + 9 * DAY)
    assert verify(path, proof_key=world.KEY).ok


def test_a_log_that_was_sealed_with_a_key_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    world.fill(path, key=world.KEY)
    with DecisionLog(path) as log:
        export = tmp_path / "log"
        for work in (
            lambda: log.close_windows(AT + 9 * DAY),
            lambda: erase_user(log, "user-1", AT),
            lambda: prune(log, AT + 2 * DAY),
            lambda: export_log(log, export, now=AT + 9 * DAY),
        ):
            with pytest.raises(LogError, match=r"is proven with a key; expected it here too \(log.proof_key"):
                work()
        assert log.stats().decisions == 20  # nothing was removed
        log.append(world.make(50))  # pages and reports need none
    assert verify(path, proof_key=world.KEY).ok
    assert not verify(path, proof_key=b"another key of at least thirty-two").ok


def test_a_chain_that_began_without_a_key_goes_on_with_one(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    world.fill(path)
    with DecisionLog(path, proof_key=world.KEY) as log:
        log.append(world.make(40))
        log.close_windows(AT + 20 * DAY)
        assert [entry.keyed for entry in log.chain()][-1]
        assert not log.chain()[0].keyed
    found = verify(path, proof_key=world.KEY)
    assert found.ok
    assert found.proof is not None
    assert "sealed with the key" in found.proof.told()
    unchecked = verify(path).proof
    assert unchecked is not None
    assert "a key that was not given" in unchecked.told()


def test_a_log_of_version_2_gains_the_chain_when_it_is_opened_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with DecisionLog(path) as log:
        for i in range(8):
            log.append(world.make(i))
    with sqlite3.connect(path) as sql:
        for table in ("chain", "head", "leaf", "bucket", "amendment", "erasure"):
            sql.execute(f"DROP TABLE {table}")
        sql.execute("DROP VIEW event")
        sql.execute("INSERT INTO tombstone VALUES ('gone', 7, zeroblob(16))")
        sql.execute("DELETE FROM tombstone")
        sql.execute("PRAGMA user_version = 2")
    sql.close()
    with DecisionLog(path, create=False) as log:
        assert log.version == 2
        assert log.joined("request-001") is not None
    assert verify(path).ok
    assert verify(path).proof is None
    with DecisionLog(path) as log:
        assert log.version == 3
        log.close_windows(AT + 9 * DAY)
        assert [kind for kind, *_ in kinds(log)] == ["opened", "closed", "closed"]
    assert verify(path).ok


def test_keys_are_long_enough_and_stand_outside_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    key = tmp_path / "proof.key"
    key.write_bytes(b"short\n")
    with pytest.raises(LogError, match="has 5 bytes; expected 32 to"):
        read_key(key)
    key.write_bytes(b"x" * 32 + b"\n")
    assert read_key(key, run) == b"x" * 32
    with pytest.raises(LogError, match="beside what it proves; expected a file outside"):
        (run / "proof.key").write_bytes(b"x" * 32)
        read_key(run / "proof.key", run)
    (tmp_path / "link").symlink_to(run / "proof.key")
    with pytest.raises(LogError, match="beside what it proves"):
        read_key(tmp_path / "link", run)
    with pytest.raises(LogError, match="cannot be read: No such file or directory"):
        read_key(tmp_path / "nothing")


def test_a_root_changes_with_every_leaf_and_with_their_order() -> None:
    hashes = [bytes([i]) * 32 for i in range(5)]
    assert root([]) == EMPTY
    assert root(hashes[:1]) == hashes[0]
    roots = {root(hashes[:n]) for n in range(1, 6)} | {root(hashes[::-1]), root([*hashes, hashes[-1]])}
    assert len(roots) == 7
    leaves = [(i * 1000, one) for i, one in enumerate(hashes)]
    assert bucket_roots(leaves).keys() == {0, 1, 2, 3}
    assert day_root(bucket_roots(leaves)) != day_root(bucket_roots([(seq, hashes[0]) for seq, _ in leaves]))
