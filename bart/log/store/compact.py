"""Rebuilding a log's file, so that what was deleted is gone from the disk and not only unlinked.

A reader that does not end (a process that was stopped, a cursor that was left open) keeps the write-ahead log from
being written back. So first it is seen whether that is possible, each time for a moment only: while it is tried, nobody
else writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bart.errors import LogError
from bart.log.store.store import set_meta

DUE = "compact_due"  # 1 while deleted bytes are still in the file
_WAIT_MS = 500


def compact(connection: sqlite3.Connection, path: Path) -> None:
    """Rebuilds the file and empties the write-ahead log.

    Raises LogError where another process reads or writes at this moment: what was deleted is then still there.
    """
    with impatient(connection, _WAIT_MS):
        try:
            _empty(connection, path)
            connection.execute("VACUUM")
            set_meta(connection, DUE, 0)
            try:
                _empty(connection, path)
            except BaseException:
                set_meta(connection, DUE, 1)
                raise
        except sqlite3.Error as error:
            raise LogError(f"{path} cannot be rebuilt: {error}") from None


def _empty(connection: sqlite3.Connection, path: Path) -> None:
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise LogError(f"{path} is read by another process, so that deleted bytes are still there; retry")


@contextmanager
def impatient(connection: sqlite3.Connection, wait_ms: int) -> Iterator[None]:
    """Waits no longer than this for other processes."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(before)}")
