"""Listening sessions as clients report them: the running one of each listener, and which ones were committed.

A running session moves the next page and is committed nowhere; a final one is kept here first, once, and then
committed to the listener's state, so that a repeated report does not count twice and a kill in between loses none. It
is kept for some weeks, in the client's own item ids, so that another batch of vectors can be taught what was heard. One
SQLite file, shared by processes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from recommender.states.sqlite_file import connected

SESSIONS_FILE = "sessions.sqlite"  # in a run
RUNNING_S = 12 * 3600  # a session that was never finished is forgotten after that
UNMET = b"@"  # how the body of a final session begins that no batch has met
CLAIMED_S = 30 * 86_400  # how long a repeated final report is recognised

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    user_id TEXT NOT NULL, session_id TEXT NOT NULL, final INTEGER NOT NULL, plays INTEGER NOT NULL,
    updated_s INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (user_id, session_id)
) WITHOUT ROWID
"""


class RunningSessions:
    """Sessions by listener. Bodies are bytes that mean something to the caller. Threads and processes may share it."""

    def __init__(self, path: Path, busy_timeout_s: float = 5.0, durable: bool = False) -> None:
        self._lock = threading.Lock()
        self._connection = connected(path, busy_timeout_s)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute(_SCHEMA)
        # Apart from the one that writes, and may wait for another process: pages are decided meanwhile.
        self._reader = connected(path, busy_timeout_s)
        self._read_lock = threading.Lock()

    def put(self, user_id: str, session_id: str, plays: int, body: bytes, now_s: int) -> bool:
        """Keeps a running session; False where a final or longer report of it is known already (this one is late)."""
        query = (
            "INSERT INTO session VALUES (?, ?, 0, ?, ?, ?) ON CONFLICT DO UPDATE SET plays = excluded.plays, "
            "updated_s = excluded.updated_s, body = excluded.body WHERE final = 0 AND plays <= excluded.plays"
        )
        with self._lock:
            return self._connection.execute(query, (user_id, session_id, plays, now_s, body)).rowcount == 1

    def claim(self, user_id: str, session_id: str, now_s: int, body: bytes = b"") -> bool:
        """Keeps what a final session held, in one write, so that a process that is killed before it commits the session
        loses nothing; False where it was final already. One that an earlier version claimed and lost is claimed again.
        """
        query = (
            "INSERT INTO session VALUES (?, ?, 1, 0, ?, ?) ON CONFLICT DO UPDATE SET final = 1, body = excluded.body, "
            "updated_s = excluded.updated_s WHERE final = 0 OR (length(body) = 0 AND length(excluded.body) > 0)"
        )
        with self._lock:
            return self._connection.execute(query, (user_id, session_id, now_s, body)).rowcount == 1

    def settle(self, user_id: str, session_id: str, body: bytes) -> None:
        """Keeps which batches a final session is committed to, with what it held: others may have to hear of it."""
        query = "UPDATE session SET body = ? WHERE user_id = ? AND session_id = ? AND final = 1"
        with self._lock:
            self._connection.execute(query, (body, user_id, session_id))

    def kept(self, user_id: str, session_id: str) -> bytes:
        """The body of a final session; empty without one, or where an earlier version kept none."""
        query = "SELECT body FROM session WHERE user_id = ? AND session_id = ? AND final = 1"
        with self._lock:
            row = self._connection.execute(query, (user_id, session_id)).fetchone()
        return b"" if row is None else bytes(row[0])

    def running(self, user_id: str, now_s: int) -> bytes | None:
        """The body of the listener's running session, the one reported last; None without one."""
        query = (
            "SELECT body FROM session WHERE user_id = ? AND final = 0 AND updated_s >= ? "
            "ORDER BY updated_s DESC LIMIT 1"
        )
        with self._read_lock:
            row = self._reader.execute(query, (user_id, now_s - RUNNING_S)).fetchone()
        return None if row is None else bytes(row[0])

    def unmet(self) -> Iterator[tuple[str, str, bytes]]:
        """User id, session id and body of final sessions that no batch has met: who took them was killed."""
        query = "SELECT user_id, session_id, body FROM session WHERE final = 1 AND substr(body, 1, 1) = ?"
        with self._lock:
            found = self._connection.execute(query, (UNMET,)).fetchall()
        return iter([(str(user), str(session), bytes(body)) for user, session, body in found])

    def finished(self, since_s: int, user_id: str | None = None) -> Iterator[tuple[str, str, bytes]]:
        """User id, session id and body of the sessions committed from `since_s` on, of one listener or of all."""
        query = "SELECT user_id, session_id, body FROM session WHERE final = 1 AND updated_s >= ? AND length(body) > 0"
        query, given = (query, (since_s,)) if user_id is None else (f"{query} AND user_id = ?", (since_s, user_id))
        with self._lock:
            found = self._connection.execute(query, given).fetchall()
        return iter([(str(user), str(session), bytes(body)) for user, session, body in found])

    def forget(self, user_id: str) -> int:
        """Removes a listener's sessions; how many there were. Pages of the file are overwritten.

        The write-ahead log is written back and emptied where no reader is in the way.
        """
        with self._lock:
            gone = int(self._connection.execute("DELETE FROM session WHERE user_id = ?", (user_id,)).rowcount)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return gone

    def forget_old(self, now_s: int) -> None:
        """Removes what can matter to nobody any more."""
        query = "DELETE FROM session WHERE updated_s < CASE final WHEN 1 THEN ? ELSE ? END"
        with self._lock:
            self._connection.execute(query, (now_s - CLAIMED_S, now_s - RUNNING_S))

    def close(self) -> None:
        """Closes the file."""
        with self._lock, self._read_lock:
            self._reader.close()
            self._connection.close()
