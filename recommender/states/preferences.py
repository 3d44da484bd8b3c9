"""What listeners ask for, beside their states: of no batch, so that it outlasts builds, retraining and rollbacks.

One SQLite file in the run. A visit reads one row, without a cache, so that what another process wrote holds at once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from bart.errors import StoreError
from bart.types.wishes import NO_WISHES, NOT_PROFILED, Wishes
from recommender.sessions.codes import coded
from recommender.states.sqlite_file import connected, transaction

_EVER = np.iinfo(np.int64).max
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS preference (user_id TEXT PRIMARY KEY, subject BLOB NOT NULL, mode TEXT NOT NULL,"
    " body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS preference_mode ON preference (mode)",
    "CREATE INDEX IF NOT EXISTS preference_subject ON preference (subject)",
    "CREATE TABLE IF NOT EXISTS erased (subject BLOB PRIMARY KEY, erased_us INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS followed (number INTEGER NOT NULL)",
)
_ERASED = (  # the moment never goes back: a request that was under way then tells its own arrival
    "INSERT INTO erased VALUES (?, ?) ON CONFLICT DO UPDATE SET erased_us = max(erased_us, excluded.erased_us)"
)


class Preferences(Protocol):
    """Wishes by listener; threads and processes may share it. A store on another host raises StoreError."""

    def create(self) -> None:
        """Makes the file of this host where there is none."""
        ...

    def get(self, user_id: str) -> Wishes:
        """What a listener asks for; nothing for who never did."""
        ...

    def change(self, user_id: str, change: Callable[[Wishes], Wishes]) -> Wishes:
        """Replaces a listener's wishes by what `change` makes of them, as one step among all writers."""
        ...

    def erase(self, user_id: str, erased_us: int, *, wishes: bool = True) -> int:
        """Notes, by a digest, that what a listener did until a moment must not come back, and removes their wishes
        (unless they stay); how many there were, 0 or 1."""
        ...

    def left_out(self) -> LeftOut:
        """Whose listening no job may read."""
        ...

    def followers(self) -> dict[str, frozenset[str]]:
        """The artists whom each listener follows, by user id; nobody who follows none."""
        ...

    def follow(self) -> bool:
        """Takes over what other hosts changed; whether there was anything."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Whose events are left out: of listeners who are not profiled all, of the erased (by what stands for them) those
    until a moment, microseconds UTC."""

    not_profiled: frozenset[str] = frozenset()
    erased_us: Mapping[bytes, int] = field(default_factory=dict)

    def without(self, events: pa.Table) -> pa.Table:
        """An event table without their rows; the same one where it has none."""
        if not self.not_profiled and not self.erased_us:
            return events
        words, code = coded(events["user_id"])
        names = words.to_pylist()
        until = [_EVER if name in self.not_profiled else self.erased_us.get(subject_of(name), -1) for name in names]
        if max(until, default=-1) < 0:
            return events
        last_us = np.array(until, dtype=np.int64)[code]
        keep = events["started_at"].cast(pa.int64()).to_numpy() > last_us
        return events if keep.all() else events.filter(pa.array(keep))


class SqlitePreferences:
    """`Preferences` in a file, which is made by the first write. Writes are synced: a wish that was taken holds."""

    def __init__(self, path: Path, busy_timeout_s: float = 5.0) -> None:
        self._path, self._busy_timeout_s = Path(path), busy_timeout_s
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def create(self) -> None:
        """Makes the file where there is none."""
        with self._lock:
            self._write()

    def get(self, user_id: str) -> Wishes:
        row = self._one("SELECT body FROM preference WHERE user_id = ?", user_id)
        return NO_WISHES if row is None else wishes_of(row[0])

    def change(self, user_id: str, change: Callable[[Wishes], Wishes]) -> Wishes:
        with self._transaction() as connection:
            row = connection.execute("SELECT body FROM preference WHERE user_id = ?", (user_id,)).fetchone()
            after = change(NO_WISHES if row is None else wishes_of(row[0]))
            _put(connection, user_id, after)
        return after

    def erase(self, user_id: str, erased_us: int, *, wishes: bool = True) -> int:
        """As in the protocol. Pages of the file are overwritten, and the write-ahead log is emptied where no reader is
        in the way."""
        gone, subject = 0, subject_of(user_id)
        with self._transaction() as connection:
            connection.execute(_ERASED, (subject, erased_us))
            if wishes:
                gone = connection.execute("DELETE FROM preference WHERE subject = ?", (subject,)).rowcount
        with self._lock:
            self._write().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return int(gone)

    def left_out(self) -> LeftOut:
        with self._read_lock:
            reader = self._read()
            if reader is None:
                return LeftOut()
            users = reader.execute("SELECT user_id FROM preference WHERE mode = ?", (NOT_PROFILED,)).fetchall()
            erased = reader.execute("SELECT subject, erased_us FROM erased").fetchall()
        return LeftOut(frozenset(user_id for (user_id,) in users), {bytes(subject): at for subject, at in erased})

    def followers(self) -> dict[str, frozenset[str]]:
        told = ((user_id, wishes_of(body).followed_artists) for user_id, body in self.stored())
        return {user_id: artists for user_id, artists in told if artists}

    def follow(self) -> bool:
        """Nobody else's file is followed."""
        return False

    def stored(self) -> Iterator[tuple[str, str]]:
        """User id and body of all."""
        with self._read_lock:
            reader = self._read()
            rows = [] if reader is None else reader.execute("SELECT user_id, body FROM preference").fetchall()
        return iter(rows)

    def followed(self) -> int:
        """The number of the change up to which another host's store was followed."""
        row = self._one("SELECT max(number) FROM followed WHERE ?", 1)
        return 0 if row is None or row[0] is None else int(row[0])

    def users_of(self, subjects: Sequence[bytes]) -> list[str]:
        """Ids of those whose wishes are kept, among listeners for whom these stand."""
        found = (self._one("SELECT user_id FROM preference WHERE subject = ?", subject) for subject in subjects)
        return [row[0] for row in found if row is not None]

    def take_over(self, bodies: Mapping[str, str | None], erased: Mapping[bytes, int], number: int) -> None:
        """What another host's store changed, up to a change of this number; None: nothing is kept any more. erased:
        when, by what stands for the listener."""
        with self._transaction() as connection:
            for user_id, body in bodies.items():
                _put(connection, user_id, NO_WISHES if body is None else wishes_of(body))
            connection.executemany(_ERASED, list(erased.items()))
            connection.execute("DELETE FROM followed")
            connection.execute("INSERT INTO followed VALUES (?)", (number,))

    def close(self) -> None:
        with self._lock, self._read_lock:
            for connection in (self._writer, self._reader):
                if connection is not None:
                    connection.close()
            self._writer = self._reader = None

    def _one(self, query: str, value: object) -> tuple[str, ...] | None:
        with self._read_lock:
            reader = self._read()
            row: tuple[str, ...] | None = None if reader is None else reader.execute(query, (value,)).fetchone()
        return row

    def _read(self) -> sqlite3.Connection | None:
        """Apart from the one that writes, and may wait for another process; None where nobody has asked for anything
        yet."""
        if self._reader is None and self._path.exists():
            self._reader = self._connected()
        return self._reader

    def _write(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._connected()
        return self._writer

    def _connected(self) -> sqlite3.Connection:
        connection = connected(self._path, self._busy_timeout_s)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        for statement in _SCHEMA:
            connection.execute(statement)
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._write()) as connection:
            yield connection


def wishes_of(body: str) -> Wishes:
    """The wishes that `body_of` wrote. Raises StoreError for another text."""
    try:
        return Wishes(**json.loads(body))
    except (ValueError, TypeError) as error:
        raise StoreError(f"stored preferences cannot be read: {error}") from None


def body_of(wishes: Wishes) -> str:
    """Wishes as JSON."""
    told = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in asdict(wishes).items()}
    return json.dumps(told, ensure_ascii=False)


def subject_of(user_id: str) -> bytes:
    """[16 bytes] that stand for a listener."""
    return blake2b(b"bart preferences\0" + user_id.encode(), digest_size=16).digest()


def _put(connection: sqlite3.Connection, user_id: str, wishes: Wishes) -> None:
    """Keeps wishes; of who has none (any more) nothing is kept."""
    if wishes == NO_WISHES:
        connection.execute("DELETE FROM preference WHERE user_id = ?", (user_id,))
        return
    row = user_id, subject_of(user_id), wishes.mode, body_of(wishes)
    connection.execute("INSERT OR REPLACE INTO preference VALUES (?, ?, ?, ?)", row)
