"""SQLite files that say which of them could not be read or written, and transactions in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NamedConnection(sqlite3.Connection):
    """Adds the file's name to what goes wrong: SQLite says that a disk is full and not which file it was writing."""

    _name = ""

    def execute(self, *given: Any) -> sqlite3.Cursor:
        """As of `sqlite3.Connection`."""
        try:
            return super().execute(*given)
        except sqlite3.Error as error:
            if self._name not in str(error):
                error.args = (f"{error} ({self._name})", *error.args[1:])
            raise


def connected(path: Path, timeout_s: float) -> NamedConnection:
    """A connection in autocommit mode that threads may share. timeout_s: for another one's lock."""
    options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "factory": NamedConnection}
    connection: NamedConnection = sqlite3.connect(path, timeout=timeout_s, **options)
    connection._name = Path(path).name
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A write transaction that excludes other writers from its start; rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
