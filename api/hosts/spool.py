"""What could not be sent, kept on this host's disk until it can: one SQLite file, in order, synced at every commit."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bart.errors import LogError
from recommender.states.sqlite_file import connected

Kind = Literal["decision", "feedback"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, request_id TEXT NOT NULL, checksum BLOB NOT NULL,
    body BLOB NOT NULL, marks TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS spool_decision ON spool (request_id) WHERE kind = 'decision';
"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One decision or one report of feedback on its way to the log.

    checksum: of a decision's record, empty for feedback. body: the record, or the report. marks: see
    `bart.log.store.marks`.
    """

    kind: Kind
    request_id: str
    checksum: bytes
    body: bytes
    marks: tuple[str, ...] = ()


class Spool:
    """Parcels that wait. Threads and processes of this host may share the file."""

    def __init__(self, path: Path, busy_timeout_s: float = 5.0) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection = connected(path, busy_timeout_s)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.executescript(_SCHEMA)

    def put(self, parcel: Parcel) -> None:
        """Keeps a parcel; it is on the disk when this returns.

        The same decision again is taken as the retry that it is. Raises LogError for another decision of a request id
        that waits here, and where the disk does not take it.
        """
        row = (parcel.kind, parcel.request_id, parcel.checksum, parcel.body, ",".join(parcel.marks))
        try:
            with self._lock:
                self._connection.execute(
                    "INSERT INTO spool (kind, request_id, checksum, body, marks) VALUES (?, ?, ?, ?, ?)", row
                )
        except sqlite3.IntegrityError:
            known = self.decision(parcel.request_id)
            if known is not None and known.checksum != parcel.checksum:
                raise LogError(f"request {parcel.request_id!r} waits already, with another decision") from None
            if known is None:  # it was sent on between the two statements: it may wait again
                self.put(parcel)
        except sqlite3.Error as error:
            raise LogError(f"{self.path} cannot be written: {error}") from error

    def decision(self, request_id: str) -> Parcel | None:
        """The decision of a request that waits here, or None."""
        query = f"SELECT {_COLUMNS} FROM spool WHERE kind = 'decision' AND request_id = ?"
        with self._lock:
            row = self._connection.execute(query, (request_id,)).fetchone()
        return None if row is None else _parcel(row)

    def oldest(self, limit: int) -> list[tuple[int, Parcel]]:
        """The parcels that wait longest, with their numbers."""
        query = f"SELECT seq, {_COLUMNS} FROM spool ORDER BY seq LIMIT ?"
        with self._lock:
            return [(int(seq), _parcel(row)) for seq, *row in self._connection.execute(query, (limit,))]

    def remove(self, seq: int) -> None:
        """Removes a parcel that has arrived."""
        with self._lock:
            self._connection.execute("DELETE FROM spool WHERE seq = ?", (seq,))

    def forget(self, request_ids: list[str]) -> None:
        """Removes all that waits of the given requests."""
        with self._lock:
            self._connection.executemany("DELETE FROM spool WHERE request_id = ?", [(r,) for r in request_ids])
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM spool").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()


_COLUMNS = "kind, request_id, checksum, body, marks"


def _parcel(row: list[object] | tuple[object, ...]) -> Parcel:
    kind, request_id, checksum, body, marks = row
    assert isinstance(checksum, bytes)
    assert isinstance(body, bytes)
    words = tuple(str(marks).split(",")) if marks else ()
    return Parcel("decision" if kind == "decision" else "feedback", str(request_id), checksum, body, words)
