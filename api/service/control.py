"""What an operator switches while a run serves: exploration, learning, the fallback, and items taken down.

One SQLite file beside the log, shared by the processes that serve the run; each looks for changes every half second
(`PRAGMA data_version`, microseconds), so that a switch holds everywhere within a second or two and no process has to be
restarted. Switches are applied over the configured exploration and its bounds, and each decision tells of them: epsilon
0, the model `popularity`, the version of the rules, and the arm.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bart.errors import DataError
from recommender.states.sqlite_file import connected, transaction

CONTROL_FILE = "control.sqlite"
SWITCHES = {"explore": "on", "learning": "on", "fallback": "off"}  # each with the state that it has when nobody asks
STATES = ("on", "off")
ARM = "control"  # of a page that was decided under a switch: it belongs to no arm of an experiment

_CHANGES = "SELECT coalesce(max(number), 0) FROM event"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS switch (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS takedown (item_id TEXT PRIMARY KEY, taken_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item (
    item_id TEXT PRIMARY KEY, body TEXT NOT NULL, changed_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY, happened_us INTEGER NOT NULL, what TEXT NOT NULL, why TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Controls:
    """explore: pages explore. learning: the model may learn and be published. fallback: popularity scores instead of
    the model. taken_down: ids of items that no page may hold."""

    explore: bool = True
    learning: bool = True
    fallback: bool = False
    taken_down: frozenset[str] = field(default_factory=frozenset)

    changes: int = field(default=0, compare=False)  # number of the latest one

    @property
    def arm(self) -> str:
        """What is recorded as the arm of a page that is decided under these switches; empty where none is thrown."""
        thrown = [
            name for name, is_thrown in (("explore-off", not self.explore), ("fallback", self.fallback)) if is_thrown
        ]
        return f"{ARM}:{'+'.join(thrown)}" if thrown else ""


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """One thing that an operator (or the service itself) did, and why."""

    happened_at: datetime
    what: str
    why: str


class ControlStore:
    """The switches of one run. Threads and processes may share it; each change is one transaction, synced to disk."""

    def __init__(self, path: Path, busy_timeout_s: float = 5.0) -> None:
        self._lock = threading.Lock()
        self._connection = connected(path, busy_timeout_s)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def read(self) -> Controls:
        """The state of all switches."""
        with self._lock:
            (changes,) = self._connection.execute(_CHANGES).fetchone()  # first: what comes after it is read again
            state = {**SWITCHES, **dict(self._connection.execute("SELECT name, state FROM switch"))}
            taken = frozenset(item for (item,) in self._connection.execute("SELECT item_id FROM takedown"))
        return Controls(state["explore"] == "on", state["learning"] == "on", state["fallback"] == "on", taken, changes)

    def changes(self) -> int:
        """The number of the latest change."""
        with self._lock:
            return int(self._connection.execute(_CHANGES).fetchone()[0])

    def version(self) -> tuple[int, int]:
        """Differs from the last one where anything was changed since, by this process or another."""
        with self._lock:
            (others,) = self._connection.execute("PRAGMA data_version").fetchone()
            return int(others), self._connection.total_changes

    def switch(self, name: str, state: str, at: datetime, why: str = "") -> None:
        """Throws a switch. Raises DataError for a name or a state that there is not."""
        if name not in SWITCHES:
            raise DataError(f"switch is {name!r}; expected one of {', '.join(SWITCHES)}")
        if state not in STATES:
            raise DataError(f"{name} is {state!r}; expected on or off")
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO switch VALUES (?, ?)", (name, state))
            _note(connection, at, f"{name} {state}", why)

    def take_down(self, item_ids: Sequence[str], at: datetime, why: str = "") -> int:
        """Items that no page may hold from now on; how many of them were not taken down before."""
        with self._transaction() as connection:
            rows = [(item_id, _us(at)) for item_id in item_ids]
            fresh = max(connection.executemany("INSERT OR IGNORE INTO takedown VALUES (?, ?)", rows).rowcount, 0)
            if fresh:
                _note(connection, at, f"takedown of {_few(item_ids)}", why)
        return fresh

    def put_back(self, item_ids: Sequence[str], at: datetime, why: str = "") -> int:
        """Takes takedowns back; how many there were."""
        with self._transaction() as connection:
            rows = [(item_id,) for item_id in item_ids]
            gone = max(connection.executemany("DELETE FROM takedown WHERE item_id = ?", rows).rowcount, 0)
            if gone:
                _note(connection, at, f"put back {_few(item_ids)}", why)
        return gone

    def put_item(self, item_id: str, body: str, at: datetime) -> None:
        """Keeps what an item shall be until it is published; the latest word counts."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO item VALUES (?, ?, ?)", (item_id, body, _us(at)))

    def items(self) -> dict[str, tuple[str, int]]:
        """The items that wait to be published, by id: body, and when it came (microseconds)."""
        with self._lock:
            rows = self._connection.execute("SELECT item_id, body, changed_us FROM item ORDER BY item_id")
            return {item_id: (body, changed_us) for item_id, body, changed_us in rows}

    def waiting_since(self) -> datetime | None:
        """Since when the oldest item waits to be published; None where none does."""
        with self._lock:
            (first,) = self._connection.execute("SELECT min(changed_us) FROM item").fetchone()
        return None if first is None else datetime.fromtimestamp(first / 1e6, tz=timezone.utc)

    def drop_items(self, published: Mapping[str, int]) -> None:
        """Forgets items that were published, unless they changed since; published: microseconds by id."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM item WHERE item_id = ? AND changed_us = ?", list(published.items()))

    def drop_item(self, item_id: str) -> None:
        """Forgets an item that waits."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM item WHERE item_id = ?", (item_id,))

    def note(self, what: str, at: datetime, why: str = "") -> None:
        """Writes into the history what was done elsewhere, such as the activation of a bundle."""
        with self._transaction() as connection:
            _note(connection, at, what, why)

    def history(self, n: int = 50) -> list[ControlEvent]:
        """The latest n events, the newest first."""
        query = "SELECT happened_us, what, why FROM event ORDER BY number DESC LIMIT ?"
        with self._lock:
            rows = self._connection.execute(query, (n,)).fetchall()
        return [ControlEvent(datetime.fromtimestamp(us / 1e6, tz=timezone.utc), what, why) for us, what, why in rows]

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._connection) as connection:
            yield connection


def learning_is_frozen(run: Path) -> bool:
    """Whether an operator has frozen learning for a run directory, which may be one that was never served."""
    if not (run / CONTROL_FILE).is_file():
        return False
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        return not store.read().learning


def _note(connection: Any, at: datetime, what: str, why: str) -> None:
    connection.execute("INSERT INTO event (happened_us, what, why) VALUES (?, ?, ?)", (_us(at), what, why))


def _few(item_ids: Sequence[str]) -> str:
    return item_ids[0] if len(item_ids) == 1 else f"{len(item_ids)} items, the first {item_ids[0]}"


def _us(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)
