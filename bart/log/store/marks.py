"""Words beside a decision in the log: how it came about or came here, where that was not the usual way.

They stand apart from the record, which is what was decided and has its checksum, since some are known only later.

    spooled           was kept by the host that decided it while the transport was away, and came later
    embedded_state    was decided with the listener states of that host's own file while the shared store was away

The table is made with the first mark.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

MARKS = ("embedded_state", "spooled")
_TABLE = "CREATE TABLE IF NOT EXISTS mark (request_id TEXT, mark TEXT, PRIMARY KEY (request_id, mark)) WITHOUT ROWID"


def add_marks(connection: sqlite3.Connection, request_id: str, marks: Iterable[str]) -> None:
    """Notes marks of a decision, in the caller's transaction. Raises ValueError for words that are no marks."""
    rows = [(request_id, mark) for mark in marks]
    unknown = [mark for _, mark in rows if mark not in MARKS]
    if unknown:
        raise ValueError(f"mark {unknown[0]!r:.40} is not known; expected one of {', '.join(MARKS)}")
    if rows:
        connection.execute(_TABLE)
        connection.executemany("INSERT OR IGNORE INTO mark VALUES (?, ?)", rows)


def marks_of(connection: sqlite3.Connection, request_id: str) -> tuple[str, ...]:
    """Marks of a decision, in alphabetical order."""
    if not _exists(connection):
        return ()
    query = "SELECT mark FROM mark WHERE request_id = ? ORDER BY mark"
    return tuple(mark for (mark,) in connection.execute(query, (request_id,)))


def count_marks(connection: sqlite3.Connection) -> dict[str, int]:
    """How many decisions bear each mark."""
    if not _exists(connection):
        return {}
    return dict(connection.execute("SELECT mark, count(*) FROM mark GROUP BY mark ORDER BY mark").fetchall())


def remove_marks(connection: sqlite3.Connection, request_ids: Sequence[str]) -> None:
    """Removes the marks of the given decisions."""
    if _exists(connection):
        connection.executemany("DELETE FROM mark WHERE request_id = ?", [(request_id,) for request_id in request_ids])


def remove_orphaned_marks(connection: sqlite3.Connection) -> None:
    """Removes the marks of decisions that are not in the log any more."""
    if _exists(connection):
        connection.execute("DELETE FROM mark WHERE request_id NOT IN (SELECT request_id FROM decision)")


def _exists(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'mark'"
    return connection.execute(query).fetchone() is not None
