"""Who was erased a while ago, by a digest of the id: a page that was on its way then must not come after the erasure.

What an erasure removed is counted up here too (states and sessions: of other stores), in the transaction that removes
it, so that who asks again because an answer was lost is told what was removed. After `KEPT_US` it is forgotten.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

from bart.errors import ErasedError

KEPT_US = 30 * 86_400_000_000  # longer than a page waits in a spool that somebody looks after
AGAIN_US = 3_600_000_000  # within which an erasure of the same user is the one before, asked for again
COUNTS = ("pages", "events", "quarantined", "exported", "files", "states", "sessions")
_ERASED = (
    "SELECT EXISTS (SELECT 1 FROM tombstone WHERE request_id = ?), (SELECT erased_us FROM erasure WHERE subject = ?)"
)


def subject_of(user_id: str) -> bytes:
    """[16 bytes] that stand for a user."""
    return blake2b(b"bart erased\0" + user_id.encode(), digest_size=16).digest()


def refuse_erased(connection: sqlite3.Connection, request_id: str, user_id: str, decided_us: int) -> None:
    """Raises ErasedError for a page that was erased, or was decided before its user was."""
    erased, erased_us = connection.execute(_ERASED, (request_id, subject_of(user_id))).fetchone()
    if erased:
        raise ErasedError(f"request {request_id!r} was erased; its id cannot be used again")
    if erased_us is not None and decided_us <= erased_us:
        raise ErasedError(f"request {request_id!r} was decided before its user was erased; it is not kept")


def erased_since(connection: sqlite3.Connection, user_id: str, since_us: int) -> bool:
    """Whether a user was erased at a moment or after it."""
    query = "SELECT 1 FROM erasure WHERE subject = ? AND erased_us >= ?"
    return connection.execute(query, (subject_of(user_id), since_us)).fetchone() is not None


def count_erasure(connection: sqlite3.Connection, user_id: str, erased_us: int, **counts: int) -> dict[str, int]:
    """Notes an erasure, in the caller's transaction; what it removed so far, with what was asked for just before."""
    connection.execute("DELETE FROM erasure WHERE erased_us < ?", (erased_us - KEPT_US,))
    subject = subject_of(user_id)
    query = f"SELECT first_us, erased_us, {', '.join(COUNTS)} FROM erasure WHERE subject = ?"
    row = connection.execute(query, (subject,)).fetchone()
    first_us, latest_us, total = erased_us, erased_us, {name: counts.get(name, 0) for name in COUNTS}
    if row is not None:
        latest_us = max(row[1], erased_us)
        if abs(erased_us - row[0]) < AGAIN_US:
            first_us = row[0]
            total = {name: total[name] + before for name, before in zip(COUNTS, row[2:], strict=True)}
    connection.execute(
        "INSERT OR REPLACE INTO erasure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (subject, first_us, latest_us, *(total[name] for name in COUNTS)),
    )
    return total
