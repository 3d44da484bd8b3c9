"""Feedback in the decision log: kept once by page and event id, apart from the decisions, and joined on reading.

Every event is kept, late ones too; what counts is chosen when the log is read. Events for a request that is not known
yet wait in quarantine, in the same file, so that they find their decision whichever process brings it. There each
distinct content of an event id waits: only the page can tell which of them fits.

What is reported on a page of a day that is closed, or being closed, waits as an amendment until the next closing enters
it (`amend`): between two closings what is proven does not change. Readers see both (`EVENTS`), but for those who
look at what is proven (`PROVEN`).
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from bart.errors import FeedbackError, LogError
from bart.log.outcomes.merge import Reported, check_on_page, joined, merge_columns
from bart.log.record.feedback import Content, FeedbackEvent, FeedbackResult, PageFeedback, Rejection
from bart.log.record.outcomes import NEVER, Outcomes
from bart.log.record.record import EncodedDecision, unpack_shown
from bart.log.store.store import CONTENT_COLUMNS, count_meta, get_meta
from bart.types import Ints

_COLUMNS = f"event_id, received_us, {CONTENT_COLUMNS}"
_SAID = 'row, "column", displayed, seen, listened_s, skipped, saved'
_SHAPE = struct.Struct("<HH")  # rows and columns, as `pack_shown` packs them
_AT_ONCE = 500
EVENTS, PROVEN = "event", "feedback"  # tables; logs before version 3 have the second only
Event = tuple[str, Content, int]  # event id, content, received_us


class Page(Protocol):
    """What of a stored decision feedback is joined by."""

    @property
    def seq(self) -> int: ...
    @property
    def request_id(self) -> str: ...
    @property
    def decided_us(self) -> int: ...
    @property
    def shown(self) -> bytes: ...


def store_feedback(
    connection: sqlite3.Connection,
    request_id: str,
    good: Sequence[tuple[int, FeedbackEvent]],
    rejected: Sequence[Rejection],
    received_us: int,
    window_us: int,
) -> FeedbackResult:
    """Keeps the events that can be kept, in the caller's transaction, and says what became of each."""
    refused = list(rejected)
    page = connection.execute(
        "SELECT seq, decided_us, shown FROM decision WHERE request_id = ?", (request_id,)
    ).fetchone()
    events: list[FeedbackEvent] = []
    if page is None and connection.execute("SELECT 1 FROM tombstone WHERE request_id = ?", (request_id,)).fetchone():
        refused += [Rejection(i, e.event_id, f"request {request_id!r} was erased") for i, e in good]
    elif page is None:
        events = [event for _, event in good]
    else:
        shown = unpack_shown(page[2])
        for index, event in good:
            try:
                check_on_page(event, shown)
                events.append(event)
            except FeedbackError as error:
                refused.append(Rejection(index, event.event_id, str(error)))
    conflicting = accepted = late = quarantined = 0
    if page is None:
        quarantined = _quarantine(connection, request_id, events, received_us)
        repeated = len(events) - quarantined
    else:
        reports = [(event.event_id, event.content, received_us) for event in events]
        frozen_us = get_meta(connection, "frozen_us")
        table = "amendment" if frozen_us is not None and page[1] < frozen_us else "feedback"
        new, repeated, conflicting = _upsert(connection, table, page[0], page[1] + window_us, reports)
        count_meta(connection, "conflicting", conflicting)
        accepted, late = (0, new) if received_us > page[1] + window_us else (new, 0)
    count_meta(connection, "rejected", len(refused))
    refused.sort(key=lambda r: r.index)
    return FeedbackResult(accepted, repeated, conflicting, late, quarantined, tuple(refused))


def adopt_quarantined(connection: sqlite3.Connection, seq: int, decision: EncodedDecision, window_us: int) -> None:
    """Moves the events that waited for this decision to it; those that do not fit its page are counted as rejected."""
    query = "SELECT event_id, content, received_us FROM quarantine WHERE request_id = ?"
    waiting = connection.execute(query, (decision.request_id,)).fetchall()
    if not waiting:
        return
    shown = unpack_shown(decision.shown)
    fitting: list[Event] = []
    for event_id, content, received_us in waiting:
        event = FeedbackEvent.of_content(event_id, tuple(json.loads(content)))
        try:
            check_on_page(event, shown)
            fitting.append((event_id, event.content, received_us))
        except FeedbackError:
            count_meta(connection, "rejected", 1)
    _, _, conflicting = _upsert(connection, "feedback", seq, decision.decided_us + window_us, fitting)
    count_meta(connection, "conflicting", conflicting)
    connection.execute("DELETE FROM quarantine WHERE request_id = ?", (decision.request_id,))


def amend(connection: sqlite3.Connection, seq: int, until_us: int) -> None:
    """Merges the reports that wait on a page of a closed day into its feedback; until_us: the end of its window."""
    query = f"SELECT {_COLUMNS} FROM amendment WHERE seq = ?"
    waiting = [(name, tuple(content), at) for name, at, *content in connection.execute(query, (seq,)).fetchall()]
    connection.execute("DELETE FROM amendment WHERE seq = ?", (seq,))
    _upsert(connection, "feedback", seq, until_us, waiting)


def joined_outcomes(
    connection: sqlite3.Connection, rows: Sequence[Page], window_us: int, table: str = EVENTS
) -> Outcomes:
    """The merged feedback of each row. Raises LogError, with the request id, where feedback names no slot."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(rows), _AT_ONCE):
        chunk = [row.seq for row in rows[start : start + _AT_ONCE]]
        query = f"SELECT seq, received_us, {_SAID} FROM {table} WHERE seq IN ({','.join('?' * len(chunk))})"
        found += connection.execute(query, chunk).fetchall()
    try:
        shape = np.array([_SHAPE.unpack_from(row.shown) for row in rows], dtype=np.int64).reshape(len(rows), 2)
        return _merged(rows, shape, found, window_us)
    except (IndexError, TypeError, ValueError, OverflowError, struct.error):
        for row in rows if len(rows) > 1 else ():
            joined_outcomes(connection, [row], window_us, table)
        raise LogError(f"request {rows[0].request_id!r}: its feedback names a slot that its page lacks") from None


def _merged(rows: Sequence[Page], shape: Ints, found: Sequence[tuple[Any, ...]], window_us: int) -> Outcomes:
    """The outcomes of some pages by what was reported: sequence number, time of arrival and what was said of each."""
    late, joined_us = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), NEVER)
    if not found:
        return Outcomes.none(shape[:, 0], shape[:, 1])
    seqs, times, *said = zip(*found, strict=True)
    if set(map(type, times)) != {int}:
        raise TypeError("a time of arrival is no integer")
    number = {row.seq: i for i, row in enumerate(rows)}
    page = np.array([number[seq] for seq in seqs], dtype=np.int64)
    received_us = np.array(times, dtype=np.int64)
    in_time = received_us <= np.array([row.decided_us + window_us for row in rows], dtype=np.int64)[page]
    np.add.at(late, page[~in_time], 1)
    np.maximum.at(joined_us, page[in_time], received_us[in_time])
    return merge_columns((shape[:, 0], shape[:, 1]), Reported.of(page, said).keep(in_time), joined_us, late)


def joined_feedback(
    connection: sqlite3.Connection, rows: Sequence[Page], window_us: int, table: str = EVENTS
) -> list[PageFeedback]:
    """`joined_outcomes`, page by page."""
    return joined_outcomes(connection, rows, window_us, table).pages()


def times_reported(connection: sqlite3.Connection, request_id: str, event_ids: Sequence[str]) -> dict[str, int]:
    """The time (microseconds since 1970) that each of these events of a page was stored with, by event id; those known.

    A client that gives no times sends the same event again with none: with the time of its first report it is the same
    event, and not another one that conflicts.
    """
    out: dict[str, int] = {}
    for start in range(0, len(event_ids), _AT_ONCE):
        part = event_ids[start : start + _AT_ONCE]
        among = f"event_id IN ({','.join('?' * len(part))})"
        query = (
            f"SELECT event_id, occurred_us FROM {EVENTS} "
            f"WHERE seq = (SELECT seq FROM decision WHERE request_id = ?) AND {among} UNION ALL "
            f"SELECT event_id, json_extract(content, '$[0]') FROM quarantine WHERE request_id = ? AND {among}"
        )
        for event_id, occurred_us in connection.execute(query, (request_id, *part, request_id, *part)):
            out[event_id] = min(occurred_us, out.get(event_id, occurred_us))
    return out


def count_reported(connection: sqlite3.Connection, request_id: str, most: int) -> tuple[bool, int]:
    """Whether a page is known, and how many events of it are, waiting ones too; counted up to `most`."""
    row = connection.execute("SELECT seq FROM decision WHERE request_id = ?", (request_id,)).fetchone()
    where, given = (
        ("quarantine WHERE request_id = ?", request_id) if row is None else (f"{EVENTS} WHERE seq = ?", row[0])
    )
    (count,) = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {where} LIMIT ?)", (given, most)).fetchone()
    return row is not None, int(count)


def count_quarantined(connection: sqlite3.Connection, most: int) -> int:
    """How many events wait for their pages; counted up to `most`."""
    (count,) = connection.execute("SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT ?)", (most,)).fetchone()
    return int(count)


def _quarantine(
    connection: sqlite3.Connection, request_id: str, events: Sequence[FeedbackEvent], received_us: int
) -> int:
    """Keeps events until their decision comes; how many are new."""
    new = 0
    for event in events:
        key = (request_id, event.event_id, json.dumps(event.content))
        cursor = connection.execute("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", (*key, received_us))
        new += cursor.rowcount
        connection.execute(
            "UPDATE quarantine SET received_us = ? "
            "WHERE request_id = ? AND event_id = ? AND content = ? AND received_us > ?",
            (received_us, *key, received_us),
        )
    return new


def _upsert(
    connection: sqlite3.Connection, table: str, seq: int, until_us: int, events: Sequence[Event]
) -> tuple[int, int, int]:
    """Writes events of one page; (new, repeated, conflicting). The order does not change the outcome.

    until_us: the end of the page's window. What came after it adds nothing to an event that came in time.
    """
    if not events:
        return 0, 0, 0
    known: dict[str, tuple[int, Content]] = {}
    waits = connection.execute("SELECT 1 FROM amendment WHERE seq = ? LIMIT 1", (seq,)).fetchone() is not None
    there = EVENTS if waits else PROVEN  # the view of both takes longer to look up
    names = list(dict.fromkeys(event_id for event_id, *_ in events))  # others of the page may be thousands
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        query = f"SELECT {_COLUMNS} FROM {there} WHERE seq = ? AND event_id IN ({','.join('?' * len(part))})"
        known |= {event_id: (at, tuple(content)) for event_id, at, *content in connection.execute(query, (seq, *part))}
    new = repeated = conflicting = 0
    changed: dict[str, tuple[int, Content]] = {}
    for event_id, content, received_us in events:
        before = known.get(event_id)
        after = (received_us, content)
        if before is None:
            new += 1
        elif before[1] == content:
            repeated += 1
            after = (min(before[0], received_us), content)
        else:
            conflicting += 1
            if (before[0] > until_us) == (received_us > until_us):
                after = (min(before[0], received_us), joined(before[1], content))
            elif received_us > until_us:
                after = before
        if after != before:
            known[event_id] = changed[event_id] = after
    connection.executemany(
        f"INSERT OR REPLACE INTO {table} (seq, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(seq, event_id, at, *content) for event_id, (at, content) in changed.items()],
    )
    return new, repeated, conflicting
