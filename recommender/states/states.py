"""Listeners as serving sees them: their states in SQLite, keyed by batch, and the models that read them.

States of one batch are never read by the model of another, so a new bundle can be filled beside the one that serves.
Every read is one look-up by primary key on a connection of the thread's own (WAL), about 20 microseconds; there is no
cache, so another process's writes are seen at once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError
from bart.types import Floats32, Ints
from recommender.features.history import History
from recommender.features.tables import Histories
from recommender.features.usage import Usage
from recommender.listener.cosernn_serving import CoSeRNNListener
from recommender.listener.model import HEADER, ListenerModel, MemoryListener, Session, compute_states
from recommender.listener.popular import PopularListener
from recommender.states.resting import SCHEMA as EXPOSURES
from recommender.states.resting import RestConfig, count_exposures
from recommender.states.sqlite_file import connected, transaction
from recommender.states.store import LAST_LETTER, NO_USAGE, ListenerRow, StoredListeners

__all__ = [
    "LISTENER_MODELS",
    "CoSeRNNListener",
    "ListenerModel",
    "ListenerRow",
    "MemoryListener",
    "Session",
    "SqliteListenerStore",
    "StoredListeners",
    "carry_batches",
    "compute_states",
    "count_listeners",
    "drop_batches",
    "load_listener_model",
    "stored_batches",
]

LISTENER_MODELS: Mapping[str, Callable[[Path, Mapping[str, Any]], ListenerModel]] = {
    "cosernn": CoSeRNNListener.load,
    "ema": MemoryListener.load,
    "popularity": PopularListener.load,
}


def load_listener_model(directory: Path) -> ListenerModel:
    """The listener model that was saved into `directory`. Raises BundleError where there is none that it knows."""
    directory = Path(directory)
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        load = LISTENER_MODELS[config["name"]]
    except (OSError, ValueError, KeyError) as error:
        known = ", ".join(LISTENER_MODELS)
        raise BundleError(f"{directory} holds no listener model; expected config.json of one of: {known}") from error
    return load(directory, config)


def stored_batches(path: Path) -> set[str]:
    """Ids of the batches of which the file holds listeners."""
    return set(count_listeners(path))


def count_listeners(path: Path) -> dict[str, int]:
    """How many listeners the file holds of each batch."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        _ensure(connection)
        return dict(connection.execute("SELECT batch_id, count(*) FROM listeners GROUP BY batch_id").fetchall())


def carry_batches(source: Path, target: Path) -> None:
    """Copies the listeners of the batches that `target` does not have."""
    missing = sorted(stored_batches(source) - stored_batches(target))
    columns = f"batch_id, {', '.join(_COLUMNS)}"
    copy = f"INSERT INTO main.listeners ({columns}) SELECT {columns} FROM source.listeners WHERE batch_id = ?"
    heard = "INSERT OR REPLACE INTO main.heard SELECT * FROM source.heard WHERE batch_id = ?"
    with closing(sqlite3.connect(target, timeout=10)) as connection:
        connection.execute("ATTACH DATABASE ? AS source", (str(source),))
        with connection:
            for query in (copy, heard):
                connection.executemany(query, [(batch_id,) for batch_id in missing])


def drop_batches(path: Path, batches: set[str]) -> None:
    """Forgets all listeners of batches that serve no more."""
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        _ensure(connection)
        for table in ("listeners", "heard"):
            query = f"DELETE FROM {table} WHERE batch_id = ?"
            connection.executemany(query, [(batch,) for batch in sorted(batches)])


class SqliteListenerStore(StoredListeners):
    """The listeners of one batch in one SQLite file.

    Safe for many threads and processes; each write is one transaction. durable: it is synced to the disk.
    """

    def __init__(
        self,
        path: Path | str,
        model: ListenerModel,
        batch_id: str,
        *,
        cold_vector: Floats32 | None = None,
        durable: bool = False,
        histories: Histories | None = None,
    ) -> None:
        super().__init__(model, batch_id, cold_vector, histories)
        self.path = Path(path)
        self._synchronous = "FULL" if durable else "NORMAL"
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._connection()  # an unusable file shows here, not at the first visit

    def get(self, user_id: str) -> ListenerRow | None:
        """The stored listener of this batch, or None."""
        found = self._connection().execute(_SELECT, (self.batch_id, user_id)).fetchone()
        return None if found is None else self.checked(_decode(found))

    def put_many(self, rows: Iterable[ListenerRow]) -> int:
        """Stores listeners, replacing those of the same id in this batch, in one transaction; how many."""
        count = 0

        def values() -> Iterator[tuple[Any, ...]]:
            nonlocal count
            for row in rows:
                count += 1
                yield (self.batch_id, *_encode(self.checked(row)))

        with self._transaction() as connection:
            connection.executemany(_INSERT, values())
        return count

    def saw(
        self, user_id: str, page: str, seen: Ints, streamed: Ints, at: datetime, config: RestConfig | None = None
    ) -> Ints:
        at_s = int(at.timestamp())
        with self._transaction() as connection:
            key = (self.batch_id, user_id)
            rested = count_exposures(connection, key, seen, streamed, page, at_s, config or RestConfig())
            after = self.resting(user_id, self.get(user_id), rested, at_s)
            if after is not None:
                self._write(after)
        return rested

    def user_ids(self) -> list[str]:
        """All stored listeners of this batch, by id."""
        query = "SELECT user_id FROM listeners WHERE batch_id = ? ORDER BY user_id"
        return [user_id for (user_id,) in self._connection().execute(query, (self.batch_id,))]

    def ids_from(self, prefix: str = "", after: str = "", limit: int = 200) -> list[str]:
        low, high = (
            max(prefix, after),
            prefix + LAST_LETTER,
        )  # one lower end: with two the index would be read from the first
        found = self._connection().execute(_IDS_FROM, (self.batch_id, low, high, after, limit))
        return [user_id for (user_id,) in found]

    def __len__(self) -> int:
        query = "SELECT count(*) FROM listeners WHERE batch_id = ?"
        return int(self._connection().execute(query, (self.batch_id,)).fetchone()[0])

    def heads(self, user_ids: Sequence[str]) -> dict[str, Floats32]:
        found: dict[str, Floats32] = {}
        for first in range(0, len(user_ids), _TOGETHER):
            some = user_ids[first : first + _TOGETHER]
            query = f"{_SELECT_HEADS} ({', '.join('?' * len(some))})"
            rows = self._connection().execute(query, (self.batch_id, *some))
            found |= {user: np.frombuffer(head, "<f4") for user, head in rows}
        return found

    def parts_heard(self) -> dict[str, str]:
        found = self._connection().execute("SELECT part, note FROM heard WHERE batch_id = ?", (self.batch_id,))
        return dict(found.fetchall())

    def note_parts_heard(self, parts: Mapping[str, str]) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM heard WHERE batch_id = ?", (self.batch_id,))
            rows = [(self.batch_id, part, note) for part, note in parts.items()]
            connection.executemany("INSERT INTO heard VALUES (?, ?, ?)", rows)

    def batches_of(self, user_id: str) -> set[str]:
        query = "SELECT batch_id FROM listeners WHERE user_id = ?"
        return {batch_id for (batch_id,) in self._connection().execute(query, (user_id,))}

    def forget(self, user_id: str) -> int:
        """Removes a listener from all batches; how many states there were. Pages of the file are overwritten.

        The write-ahead log still tells of the listener: it is written back and emptied where no reader is in the way.
        """
        with self._transaction() as connection:
            gone = connection.execute("DELETE FROM listeners WHERE user_id = ?", (user_id,)).rowcount
            connection.execute("DELETE FROM exposures WHERE user_id = ?", (user_id,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return int(gone)

    def drop_batch(self, batch_id: str) -> None:
        """Forgets all listeners of a batch that no longer serves."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM listeners WHERE batch_id = ?", (batch_id,))
            connection.execute("DELETE FROM heard WHERE batch_id = ?", (batch_id,))
            connection.execute("DELETE FROM exposures WHERE batch_id = ?", (batch_id,))

    def close(self) -> None:
        """Closes the connections of all threads; none may be in use."""
        super().close()
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()

    def _update(
        self,
        user_id: str,
        change: Callable[[ListenerRow | None], ListenerRow | None],
        once: str = "",  # noqa: ARG002 - a commit that failed was not carried out
    ) -> None:
        with self._transaction():
            after = change(self.get(user_id))
            if after is not None:
                self._write(after)

    def _write(self, row: ListenerRow) -> None:
        self._connection().execute(_INSERT, (self.batch_id, *_encode(row)))

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection, in autocommit mode."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connected(self.path, 10)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # Also of what is only moved: it may be of who is erased later.
            connection.execute("PRAGMA secure_delete = ON")
            _ensure(connection)
            connection.execute(EXPOSURES)
            self._local.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """A write transaction that excludes other writers from its start, so that read, advance, write is one step."""
        return transaction(self._connection())


_COLUMNS = (
    "user_id", "state", "recent", "favourite", "rested", "made_at_s", "diversity", "exploration_success",
    "blocked_artists", "start", "history", "usage",
)  # fmt: skip
_MARKS = ", ".join("?" * (len(_COLUMNS) + 1))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM listeners WHERE batch_id = ? AND user_id = ?"
_SELECT_HEADS = f"SELECT user_id, substr(state, 1, {4 * HEADER}) FROM listeners WHERE batch_id = ? AND user_id IN"
_TOGETHER = 500  # listeners asked for at once
_IDS_FROM = """
SELECT user_id FROM listeners WHERE batch_id = ? AND user_id >= ? AND user_id < ? AND user_id <> ?
ORDER BY user_id LIMIT ?
"""
_INSERT = f"INSERT OR REPLACE INTO listeners (batch_id, {', '.join(_COLUMNS)}) VALUES ({_MARKS})"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS listeners (
    batch_id TEXT NOT NULL, user_id TEXT NOT NULL, state BLOB NOT NULL, recent BLOB NOT NULL, favourite BLOB NOT NULL,
    rested BLOB NOT NULL, made_at_s INTEGER, diversity REAL, exploration_success REAL, blocked_artists TEXT NOT NULL,
    start BLOB, history BLOB, usage BLOB, PRIMARY KEY (batch_id, user_id)
)
"""
_HEARD = """
CREATE TABLE IF NOT EXISTS heard (
    batch_id TEXT NOT NULL, part TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (batch_id, part)
) WITHOUT ROWID
"""


def _ensure(connection: sqlite3.Connection) -> None:
    """Makes the tables, and the columns that files of an earlier version lack."""
    connection.execute(_SCHEMA)
    connection.execute(_HEARD)
    there = [column[1] for column in connection.execute("PRAGMA table_info(listeners)")]
    for name in ("history", "usage"):
        if name in there:
            continue
        try:
            connection.execute(f"ALTER TABLE listeners ADD COLUMN {name} BLOB")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # of another process that opened it at the same time
                raise


def _encode(row: ListenerRow) -> tuple[Any, ...]:
    """Values in the order of _COLUMNS."""
    return (
        row.user_id,
        np.asarray(row.state, "<f4").tobytes(),
        *(np.asarray(rows, "<i4").tobytes() for rows in (row.recent, row.favourite, row.rested)),
        row.made_at_s,
        row.diversity,
        row.exploration_success,
        json.dumps(sorted(row.blocked_artists)) if row.blocked_artists else "",
        None if row.start is None else np.asarray(row.start, "<f4").tobytes(),
        None if row.history is None else row.history.to_bytes(),
        row.usage.to_bytes(),
    )


def _decode(value: Sequence[Any]) -> ListenerRow:
    user_id, state, recent, favourite, rested, made_at_s, diversity, success, blocked, start, history, usage = value
    recent, favourite, rested = (np.frombuffer(v, "<i4").astype(np.int64) for v in (recent, favourite, rested))
    return ListenerRow(
        user_id, np.frombuffer(state, "<f4"), recent, favourite, rested, made_at_s, diversity, success,
        frozenset(json.loads(blocked)) if blocked else frozenset(),
        None if start is None else np.frombuffer(start, "<f4"),
        None if history is None else History.from_bytes(history),
        NO_USAGE if usage is None else Usage.from_bytes(usage),
    )  # fmt: skip
