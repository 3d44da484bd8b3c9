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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError
from bart.types import Context, Floats32, Ints, Listener, ListenerTraits
from recommender.cosernn_serving import CoSeRNNListener
from recommender.listener_model import ListenerModel, MemoryListener, Session, compute_states
from recommender.session_table import DAY_S

__all__ = [
    "LISTENER_MODELS",
    "CoSeRNNListener",
    "ListenerModel",
    "ListenerRow",
    "MemoryListener",
    "Session",
    "SqliteListenerStore",
    "compute_states",
    "load_listener_model",
]

LISTENER_MODELS: Mapping[str, Callable[[Path, Mapping[str, Any]], ListenerModel]] = {
    "cosernn": CoSeRNNListener.load,
    "ema": MemoryListener.load,
}

RECENT = 50  # items that stay in `recent` when a session is added


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


@dataclass(frozen=True, slots=True, eq=False)
class ListenerRow:
    """One listener as stored: everything that a visit needs, in rows of the batch's item table.

    state: [s] of the batch's model. made_at_s: when the account was made, seconds UTC, or None. start: [d], the
    vector to serve until the first session, or None. The rest as in `bart.types.Listener` and `ListenerTraits`.
    """

    user_id: str
    state: Floats32
    recent: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    favourite: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rested: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    made_at_s: int | None = None
    diversity: float | None = None
    exploration_success: float | None = None
    blocked_artists: frozenset[str] = frozenset()
    start: Floats32 | None = None

    @property
    def known(self) -> bool:
        """Whether the listener has listened to anything."""
        return self.start is None


class SqliteListenerStore:
    """`bart.types.ListenerStore` over one SQLite file.

    model: of the batch. cold_vector: [d] for listeners without any session or pick, zero by default; the unit mean of
    item vectors weighted by popularity is a good one. Safe for many threads and processes; each write is one
    transaction.
    """

    def __init__(
        self, path: Path | str, model: ListenerModel, batch_id: str, *, cold_vector: Floats32 | None = None
    ) -> None:
        self.path = Path(path)
        self.model = model
        self.batch_id = batch_id
        cold = np.zeros(model.dimension) if cold_vector is None else np.asarray(cold_vector)
        if cold.shape != (model.dimension,):
            raise ValueError(f"cold_vector has shape {cold.shape}; expected ({model.dimension},)")
        self.cold_vector = cold.astype(np.float32)
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._connection()  # an unusable file shows here, not at the first visit

    def listener(self, user_id: str, context: Context, running: Session | None = None) -> Listener:
        """The listener for this context; `running` is the session so far, which is taken in but not committed."""
        row = self.get(user_id)
        if row is None:
            row = ListenerRow(user_id, self.model.initial(np.array([np.nan]))[0], start=self.cold_vector)
        age_d = None if row.made_at_s is None else max(0.0, (context.at.timestamp() - row.made_at_s) / DAY_S)
        if running is not None:
            vector = self.model.predict(self.model.advance(row.state, running), context)
        else:
            vector = self.model.predict(row.state, context) if row.start is None else row.start
        traits = ListenerTraits(age_d, row.diversity, row.exploration_success)
        return Listener(
            user_id, vector, traits, row.recent, row.favourite, row.rested, row.known, row.blocked_artists
        )  # fmt: skip

    def get(self, user_id: str) -> ListenerRow | None:
        """The stored listener of this batch, or None."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM listeners WHERE batch_id = ? AND user_id = ?"
        found = self._connection().execute(query, (self.batch_id, user_id)).fetchone()
        return None if found is None else _decode(found)

    def put_many(self, rows: Iterable[ListenerRow]) -> int:
        """Stores listeners, replacing those of the same id in this batch, in one transaction; how many."""
        size = self.model.state_size
        count = 0

        def values() -> Iterator[tuple[Any, ...]]:
            nonlocal count
            for row in rows:
                if row.state.shape != (size,):
                    raise ValueError(f"state of {row.user_id!r} has shape {row.state.shape}; expected ({size},)")
                count += 1
                yield (self.batch_id, *_encode(row))

        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        with self._transaction() as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO listeners (batch_id, {', '.join(_COLUMNS)}) VALUES ({marks})", values()
            )
        return count

    def advance(self, user_id: str, session: Session, item: Sequence[int] | Ints = ()) -> Listener:
        """Commits a finished session; `item`: rows of its tracks in order, which become the most recent ones.

        An unknown listener is made. Favourites and diversity stay until the next batch. Returns the listener as of the
        session's end, in the session's context.
        """
        with self._transaction():
            row = self.get(user_id)
            if row is None:
                made_at_s = int(session.context.at.timestamp())
                row = ListenerRow(user_id, self.model.initial(np.array([0.0]))[0], made_at_s=made_at_s)
            recent = list(dict.fromkeys([*np.asarray(item, dtype=np.int64)[::-1].tolist(), *row.recent.tolist()]))
            state = self.model.advance(row.state, session)
            row = replace(row, state=state, recent=np.array(recent[:RECENT], dtype=np.int64), start=None)
            self._write(row)
        return self.listener(user_id, replace(session.context, at=session.ended_at))

    def onboard(self, user_id: str, item: Sequence[int] | Ints, vector: Floats32, context: Context) -> Listener:
        """A new listener from picked items: rows `item` [k] with vectors [k, d].

        Until the first session the listener's vector is the unit mean of the picks; the model's state takes them as a
        first session. Raises ValueError for a listener who has listened already, or without picks.
        """
        rows = np.asarray(item, dtype=np.int64)
        if len(rows) == 0 or vector.shape != (len(rows), self.model.dimension):
            raise ValueError(
                f"vector has shape {vector.shape}; expected (picks, {self.model.dimension}), 1 pick or more"
            )
        with self._transaction():
            known = self.get(user_id)
            if known is not None and known.known:
                raise ValueError(f"{user_id!r} has sessions already; expected a new listener")
            picks = Session.of(context, context.at, vector, np.zeros(len(rows), dtype=np.bool_))
            state = self.model.advance(self.model.initial(np.array([0.0]))[0], picks)
            made_at_s = int(context.at.timestamp())
            self._write(ListenerRow(user_id, state, favourite=rows, made_at_s=made_at_s, start=picks.all))
        return self.listener(user_id, context)

    def user_ids(self) -> list[str]:
        """All stored listeners of this batch, by id."""
        query = "SELECT user_id FROM listeners WHERE batch_id = ? ORDER BY user_id"
        return [user_id for (user_id,) in self._connection().execute(query, (self.batch_id,))]

    def __len__(self) -> int:
        query = "SELECT count(*) FROM listeners WHERE batch_id = ?"
        return int(self._connection().execute(query, (self.batch_id,)).fetchone()[0])

    def drop_batch(self, batch_id: str) -> None:
        """Forgets all listeners of a batch that no longer serves."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM listeners WHERE batch_id = ?", (batch_id,))

    def close(self) -> None:
        """Closes the connections of all threads; none may be in use."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()

    def _write(self, row: ListenerRow) -> None:
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        self._connection().execute(
            f"INSERT OR REPLACE INTO listeners (batch_id, {', '.join(_COLUMNS)}) VALUES ({marks})",
            (self.batch_id, *_encode(row)),
        )

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection, in autocommit mode."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            self._local.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction that excludes other writers from its start, so that read, advance, write is one step."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


_COLUMNS = (
    "user_id",
    "state",
    "recent",
    "favourite",
    "rested",
    "made_at_s",
    "diversity",
    "exploration_success",
    "blocked_artists",
    "start",
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS listeners (
    batch_id TEXT NOT NULL, user_id TEXT NOT NULL, state BLOB NOT NULL, recent BLOB NOT NULL, favourite BLOB NOT NULL,
    rested BLOB NOT NULL, made_at_s INTEGER, diversity REAL, exploration_success REAL, blocked_artists TEXT NOT NULL,
    start BLOB, PRIMARY KEY (batch_id, user_id)
)
"""


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
    )


def _decode(value: Sequence[Any]) -> ListenerRow:
    user_id, state, recent, favourite, rested, made_at_s, diversity, exploration_success, blocked, start = value
    recent, favourite, rested = (np.frombuffer(v, "<i4").astype(np.int64) for v in (recent, favourite, rested))
    return ListenerRow(
        user_id, np.frombuffer(state, "<f4"), recent, favourite, rested, made_at_s, diversity, exploration_success,
        frozenset(json.loads(blocked)) if blocked else frozenset(),
        None if start is None else np.frombuffer(start, "<f4"),
    )  # fmt: skip
