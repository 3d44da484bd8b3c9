"""The SQLite file under the decision log: its tables, its settings, and which versions of it can be opened.

WAL mode, so that several processes append while others read. `synchronous` FULL syncs each commit to the disk before it
returns; NORMAL syncs at checkpoints, so a killed process loses nothing and a power cut may lose the last commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from bart.errors import LogError
from bart.log.record.block import Block
from bart.log.record.parse import read_block
from bart.log.record.record import decode
from bart.log.store import schema
from bart.types import Decision

Synchronous: TypeAlias = Literal["NORMAL", "FULL"]

_APPLICATION_ID = 0x42615254  # "BaRT" in the file's header
PAGE_BYTES = 4096  # a record takes one or two; on larger pages half of each stays empty

CHECKPOINT_PAGES = 4000  # 16 MB of write-ahead log: index pages are written back once for many commits

CONTENT_COLUMNS = 'occurred_us, row, "column", displayed, seen, listened_s, skipped, saved'
SELECT = "SELECT seq, request_id, user_id, decided_us, shown, checksum, record FROM decision"


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One row as stored, not yet decoded: a reader can go on past a record that is damaged."""

    seq: int
    request_id: str
    user_id: str
    decided_us: int
    shown: bytes
    checksum: bytes
    record: bytes

    def decode(self) -> Decision:
        """The decision. Raises LogError, with the request id, for a damaged one."""
        try:
            return decode(self.record, self.checksum)
        except LogError as error:
            raise LogError(f"request {self.request_id!r}: {error}") from None


def read_rows(rows: Sequence[StoredDecision]) -> Block:
    """The decisions of some rows as columns. Raises LogError, with the request id, for a damaged one."""
    block, position = read_block([row.record for row in rows], [row.checksum for row in rows])
    if len(position) < len(rows):
        damaged = rows[int(np.setdiff1d(np.arange(len(rows)), position)[0])]
        damaged.decode()  # says what is wrong with it
        raise LogError(f"request {damaged.request_id!r}: record cannot be read: it was altered")
    return block


def open_database(
    path: Path, *, synchronous: Synchronous = "NORMAL", busy_timeout_s: float = 30.0, create: bool = True
) -> tuple[sqlite3.Connection, int]:
    """A connection and the version of the file, which is made where there is none (and `create`).

    `create` also adds the tables that a file of an earlier version lacks, where that is all it lacks.
    Transactions are the caller's (autocommit). Raises LogError for a file that is not a decision log, or one of a newer
    version.
    """
    if synchronous not in ("NORMAL", "FULL"):
        raise LogError(f"synchronous is {synchronous!r}; expected NORMAL or FULL")
    if not create and not path.exists():
        raise LogError(f"{path} does not exist; expected a decision log")
    if not path.parent.is_dir():
        raise LogError(f"{path.parent} is not a directory; expected one to hold the decision log")
    try:
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LogError(f"{path} cannot be opened: {error}") from None
    try:
        version = _prepare(connection, path, create)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * PAGE_BYTES}")
    except sqlite3.Error as error:
        connection.close()
        raise LogError(f"{path} cannot be opened as a decision log: {error}") from None
    except LogError:
        connection.close()
        raise
    return connection, version


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction: committed at the end, rolled back on any error. SQLite's own errors become LogError."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled back already
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise LogError(f"the decision log cannot be written: {error} ({_file_of(connection)})") from error


def is_locked(error: LogError) -> bool:
    """Whether a log could not be written because somebody else was writing."""
    return isinstance(error.__cause__, sqlite3.OperationalError) and "locked" in str(error.__cause__)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One reading transaction: everything read in it is of one moment."""
    try:
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise LogError(f"the decision log cannot be read: {error} ({_file_of(connection)})") from error


def _file_of(connection: sqlite3.Connection) -> str:
    """Where a connection leads, for a message."""
    try:
        return Path(connection.execute("PRAGMA database_list").fetchone()[2]).name
    except (sqlite3.Error, TypeError):
        return "closed"


def get_meta(connection: sqlite3.Connection, name: str) -> int | None:
    """A number kept beside the records (a watermark, a counter)."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def raise_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Moves a watermark up to `value`; never down."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (name, value),
    )


def set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Sets a number, up or down."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def count_meta(connection: sqlite3.Connection, name: str, by: int) -> None:
    """Adds to a counter."""
    if by:
        connection.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, by)
        )


def _prepare(connection: sqlite3.Connection, path: Path, create: bool) -> int:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # has an effect on a new file only
    version, application = _versions(connection)
    if application == 0 and version == 0 and not create:  # whoever only reads must not make a log of an empty file
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        raise LogError(f"{path} is {'empty' if empty else 'an SQLite file of another kind'}; expected a decision log")
    if application == 0 and version == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at the same moment
        try:
            version, application = _versions(connection)
            if application == 0:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise LogError(f"{path} is an SQLite file of another kind; expected a decision log")
                schema.create(connection)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        finally:
            connection.execute("COMMIT")
        version, application = _versions(connection)
    if application != _APPLICATION_ID:
        raise LogError(f"{path} is an SQLite file of another kind; expected a decision log")
    least, *_, most = schema.READABLE
    if version not in schema.READABLE:
        raise LogError(
            f"{path} is a decision log of version {version}; this code reads {least} to {most}: "
            "update the software that reads it"
        )
    if create and version in schema.ADDITIVE:
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema.upgrade(connection)
        finally:
            connection.execute("COMMIT")
        version, _ = _versions(connection)
    return version


def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    return version, application & 0xFFFFFFFF
