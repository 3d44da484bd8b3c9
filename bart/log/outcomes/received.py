"""Feedback as it is received: kept once by page and event id, apart from the decisions.

Every event is kept, late ones too; what counts is chosen when the log is read. Events for a request that is not known
yet wait in quarantine, in the same file, so that they find their decision whichever process brings it. There each
distinct content of an event id waits: only the page can tell which of them fits.

What is reported on a page of a day that is closed, or being closed, waits as an amendment until the next closing enters
it (`amend`): between two closings what is proven does not change.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from bart.errors import FeedbackError
from bart.log.outcomes.merge import check_on_page, joined
from bart.log.record.feedback import FeedbackEvent, FeedbackResult, Rejection
from bart.log.record.record import EncodedDecision, unpack_shown
from bart.log.store.schema import EVENTS, PROVEN
from bart.log.store.store import CONTENT_COLUMNS, count_meta, get_meta
from bart.types import Bools

_COLUMNS = f"event_id, received_us, {CONTENT_COLUMNS}"
_AT_ONCE = 500
_PAGES = 32  # at once: more leave so many objects behind that Python looks for cycles in them
_ROWS = 80  # of 11 values: SQLite before 3.32 takes 999 a statement
Said: TypeAlias = tuple[Any, ...]  # received_us, then the content
Kept: TypeAlias = dict[str, Said]  # by event id


class Report(NamedTuple):
    """What came together for a page: the events that are well formed, by their places, and the others."""

    request_id: str
    good: Mapping[int, FeedbackEvent]
    rejected: Sequence[Rejection]
    received_us: int


@dataclass(slots=True)
class _Page:
    """A page that is reported on. table: where its events go; there: where all of them are, None where none are."""

    seq: int
    decided_us: int
    shown: Bools
    table: str
    there: str | None
    known: Kept = field(default_factory=dict)  # of what was looked up or taken
    changed: Kept = field(default_factory=dict)  # of these what is to be written

    def fitting(self, report: Report) -> tuple[list[tuple[str, Said]], list[Rejection]]:
        """The events on slots with a card, and what is wrong with the others."""
        (rows, columns), slots = self.shown.shape, self.shown.tobytes()
        received_us = report.received_us
        fitting: list[tuple[str, Said]] = []
        refused = list(report.rejected)
        for index, event in report.good.items():
            row, column = event.row, event.column
            on_page = row is not None and column is not None and row < rows and column < columns
            # numpy's small integers would overflow
            if not (on_page and slots[int(row) * columns + int(column)]):  # type: ignore[arg-type]
                try:
                    check_on_page(event, self.shown)
                except FeedbackError as error:
                    refused.append(Rejection(index, event.event_id, str(error)))
                    continue
            fitting.append((event.event_id, (received_us, *event.content)))
        return fitting, refused


def store_feedback(connection: sqlite3.Connection, reports: Sequence[Report], window_us: int) -> list[FeedbackResult]:
    """Keeps the events that can be kept, in the caller's transaction, and says of each report what became of its."""
    out = []
    for start in range(0, len(reports), _PAGES):
        part = reports[start : start + _PAGES]
        pages = _pages(connection, list({report.request_id for report in part}))
        for report in part:
            page = pages.get(report.request_id)
            out.append(_wait(connection, report) if page is None else _take(connection, page, report, window_us))
        for table in (PROVEN, "amendment"):
            changed = [(page.seq, page.changed) for page in pages.values() if page.table == table]
            _write(connection, table, changed)
    count_meta(connection, "conflicting", sum(result.conflicting for result in out))
    count_meta(connection, "rejected", sum(len(result.rejected) for result in out))
    return out


def adopt_quarantined(connection: sqlite3.Connection, seq: int, decision: EncodedDecision, window_us: int) -> None:
    """Moves the events that waited for this decision to it; those that do not fit its page are counted as rejected."""
    query = "SELECT event_id, content, received_us FROM quarantine WHERE request_id = ?"
    waiting = connection.execute(query, (decision.request_id,)).fetchall()
    if not waiting:
        return
    shown = unpack_shown(decision.shown)
    fitting = []
    for event_id, content, received_us in waiting:
        event = FeedbackEvent.of_content(event_id, tuple(json.loads(content)))
        try:
            check_on_page(event, shown)
            fitting.append((event_id, (received_us, *event.content)))
        except FeedbackError:
            count_meta(connection, "rejected", 1)
    count_meta(connection, "conflicting", _upsert(connection, seq, decision.decided_us + window_us, fitting))
    connection.execute("DELETE FROM quarantine WHERE request_id = ?", (decision.request_id,))


def amend(connection: sqlite3.Connection, seq: int, until_us: int) -> None:
    """Merges the reports that wait on a page of a closed day into its feedback; until_us: the end of its window."""
    query = f"SELECT {_COLUMNS} FROM amendment WHERE seq = ?"
    waiting = [(name, tuple(said)) for name, *said in connection.execute(query, (seq,)).fetchall()]
    connection.execute("DELETE FROM amendment WHERE seq = ?", (seq,))
    _upsert(connection, seq, until_us, waiting)


def _pages(connection: sqlite3.Connection, request_ids: Sequence[str]) -> dict[str, _Page]:
    """Those of some pages that are in the log, by their ids."""
    frozen_us = get_meta(connection, "frozen_us")
    any_of = [f"EXISTS (SELECT 1 FROM {table} WHERE {table}.seq = decision.seq)" for table in (PROVEN, "amendment")]
    query = (
        f"SELECT request_id, seq, decided_us, shown, {', '.join(any_of)} "
        f"FROM decision WHERE request_id IN ({','.join('?' * len(request_ids))})"
    )
    out = {}
    for request_id, seq, decided_us, shown, kept, waits in connection.execute(query, request_ids):
        table = "amendment" if frozen_us is not None and decided_us < frozen_us else PROVEN
        there = EVENTS if waits else PROVEN if kept else None  # the view of both takes longer to look up
        out[request_id] = _Page(seq, decided_us, unpack_shown(shown), table, there)
    return out


def _take(connection: sqlite3.Connection, page: _Page, report: Report, window_us: int) -> FeedbackResult:
    """Merges a report into what is known of its page."""
    until_us = page.decided_us + window_us
    events, refused = page.fitting(report)
    if page.there is not None:
        page.known = _stored(connection, page.there, page.seq, events) | page.known
    changed, new, repeated, conflicting = _merged(page.known, until_us, events)
    page.known |= changed
    page.changed |= changed
    accepted, late = (0, new) if report.received_us > until_us else (new, 0)
    refused.sort(key=lambda r: r.index)
    return FeedbackResult(accepted, repeated, conflicting, late, 0, tuple(refused))


def _wait(connection: sqlite3.Connection, report: Report) -> FeedbackResult:
    """Keeps events until their decision comes, unless it was erased."""
    request_id, good, refused, received_us = report
    if connection.execute("SELECT 1 FROM tombstone WHERE request_id = ?", (request_id,)).fetchone():
        erased = [Rejection(i, e.event_id, f"request {request_id!r} was erased") for i, e in good.items()]
        return FeedbackResult(rejected=tuple(sorted([*refused, *erased], key=lambda r: r.index)))
    new = 0
    for event in good.values():
        key = (request_id, event.event_id, json.dumps(event.content))
        cursor = connection.execute("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", (*key, received_us))
        new += cursor.rowcount
        connection.execute(
            "UPDATE quarantine SET received_us = ? "
            "WHERE request_id = ? AND event_id = ? AND content = ? AND received_us > ?",
            (received_us, *key, received_us),
        )
    return FeedbackResult(repeated=len(good) - new, quarantined=new, rejected=tuple(refused))


def _upsert(connection: sqlite3.Connection, seq: int, until_us: int, events: Sequence[tuple[str, Said]]) -> int:
    """Writes events of a page on which nothing waits, and says how many conflict with others."""
    changed, _, _, conflicting = _merged(_stored(connection, PROVEN, seq, events), until_us, events)
    _write(connection, PROVEN, [(seq, changed)])
    return conflicting


def _stored(connection: sqlite3.Connection, table: str, seq: int, events: Sequence[tuple[str, Said]]) -> Kept:
    """What is stored of some events of a page; others of it may be thousands."""
    out: Kept = {}
    names = list(dict.fromkeys(event_id for event_id, *_ in events))
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        query = f"SELECT {_COLUMNS} FROM {table} WHERE seq = ? AND event_id IN ({','.join('?' * len(part))})"
        out |= {event_id: tuple(said) for event_id, *said in connection.execute(query, (seq, *part))}
    return out


def _merged(stored: Kept, until_us: int, events: Sequence[tuple[str, Said]]) -> tuple[Kept, int, int, int]:
    """What events change of a page; how many are new, repeated, conflicting. Their order does not change the outcome.

    until_us: the end of the page's window. What came after it adds nothing to an event that came in time.
    """
    changed: Kept = dict(events)
    if len(changed) == len(events) and stored.keys().isdisjoint(changed):
        return changed, len(events), 0, 0
    changed, known = {}, dict(stored)
    new = repeated = conflicting = 0
    for event_id, after in events:
        before, received_us, content = known.get(event_id), after[0], after[1:]
        if before is None:
            new += 1
        elif before[1:] == content:
            repeated += 1
            after = (min(before[0], received_us), *content)
        else:
            conflicting += 1
            if (before[0] > until_us) == (received_us > until_us):
                after = (min(before[0], received_us), *joined(before[1:], content))
            elif received_us > until_us:
                after = before
        if after != before:
            known[event_id] = changed[event_id] = after
    return changed, new, repeated, conflicting


def _write(connection: sqlite3.Connection, table: str, changed: Sequence[tuple[int, Kept]]) -> None:
    """Writes events of pages, each by its sequence number, over those that are there.

    Many values a statement and none that is null: Python hands a null, as whatever is no number or text, from adapter
    to adapter first, which takes longer than to write it.
    """
    seqs = [seq for seq, events in changed for _ in events]
    if not seqs:
        return
    names = [name for _, events in changed for name in events]
    said: Any = zip(*[said for _, events in changed for said in events.values()], strict=True)
    columns: list[Sequence[Any]] = []
    terms = []
    for column in (seqs, names, *said):
        nulls = column.count(None)
        terms.append("NULL" if nulls == len(column) else "nullif(?, '')" if nulls else "?")
        if nulls < len(column):
            columns.append(["" if value is None else value for value in column] if nulls else column)
    into, row = f"INSERT OR REPLACE INTO {table} (seq, {_COLUMNS}) VALUES ", f"({', '.join(terms)})"
    whole = len(seqs) // _ROWS * _ROWS
    values = list(chain.from_iterable(zip(*(column[:whole] for column in columns), strict=True)))
    for start in range(0, len(values), _ROWS * len(columns)):
        connection.execute(into + ", ".join([row] * _ROWS), values[start : start + _ROWS * len(columns)])
    connection.executemany(into + row, zip(*(column[whole:] for column in columns), strict=True))
