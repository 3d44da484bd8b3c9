"""What a decision log holds, in numbers."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bart.log.record.record import from_us
from bart.log.store.schema import EVENTS, PROVEN, SCHEMA_VERSION
from bart.log.store.store import get_meta


@dataclass(frozen=True, slots=True)
class LogStats:
    """What a log holds. Windows count as of the last `close_windows`; `bytes` includes the write-ahead log.

    undisplayed: closed pages that were never on a screen: no datum. silent: closed and displayed, with no card seen:
    their value is 0. late: events after the window. first_at, last_at: of the decisions, None when empty.
    """

    decisions: int
    users: int
    events: int
    late: int
    quarantined: int
    rejected: int
    conflicting: int
    erased: int
    closed: int
    open: int
    undisplayed: int
    silent: int
    first_at: datetime | None
    last_at: datetime | None
    bytes: int
    version: int


def log_stats(connection: sqlite3.Connection, window_us: int, path: Path, version: int) -> LogStats:
    """The counts, read in the caller's transaction."""

    def one(query: str, *parameters: int) -> int:
        return int(connection.execute(query, parameters).fetchone()[0] or 0)

    events = EVENTS if version == SCHEMA_VERSION else PROVEN
    closed_us = get_meta(connection, "closed_us")
    decisions = one("SELECT count(*) FROM decision")
    closed = 0 if closed_us is None else one("SELECT count(*) FROM decision WHERE decided_us <= ?", closed_us)
    displayed = seen = 0
    if closed_us is not None:
        displayed, seen = connection.execute(
            _OUTCOMES.format(events=events), {"window_us": window_us, "closed_us": closed_us}
        ).fetchone()
    first_us, last_us = connection.execute("SELECT min(decided_us), max(decided_us) FROM decision").fetchone()
    files = (path, path.with_name(path.name + "-wal"))
    return LogStats(
        decisions=decisions,
        users=one("SELECT count(DISTINCT user_id) FROM decision"),
        events=one(f"SELECT count(*) FROM {events}"),
        late=one(
            f"SELECT count(*) FROM {events} JOIN decision USING (seq) WHERE received_us > decided_us + ?", window_us
        ),
        quarantined=one("SELECT count(*) FROM quarantine"),
        rejected=get_meta(connection, "rejected") or 0,
        conflicting=get_meta(connection, "conflicting") or 0,
        erased=one("SELECT count(*) FROM tombstone") if version > 1 else 0,
        closed=closed,
        open=decisions - closed,
        undisplayed=closed - displayed,
        silent=displayed - seen,
        first_at=None if first_us is None else from_us(first_us),
        last_at=None if last_us is None else from_us(last_us),
        bytes=sum(file.stat().st_size for file in files if file.exists()),
        version=version,
    )


# of the closed pages: how many were displayed, and how many of these had a card seen (as `merge` has it)
_OUTCOMES = """
WITH said AS (
    SELECT seq, ifnull(displayed, 0) AS displayed,
           (ifnull(seen, 0) OR ifnull(saved, 0) OR ifnull(listened_s, 0) > 0) AS seen
    FROM {events} JOIN decision USING (seq)
    WHERE decided_us <= :closed_us AND received_us <= decided_us + :window_us
), page AS (SELECT max(displayed OR seen) AS displayed, max(seen) AS seen FROM said GROUP BY seq)
SELECT ifnull(sum(displayed), 0), ifnull(sum(seen), 0) FROM page
"""
