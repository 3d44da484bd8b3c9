"""The tables of a decision log, and what each version of the file added.

1: decisions, feedback, quarantine, meta. 2: tombstones. 3: the chain that proves closed days, with its leaves; reports
on closed pages wait in `amendment` until the next closing enters them; `erasure` remembers who was erased a while ago,
by a digest, so that pages which were on their way then are refused.
"""

from __future__ import annotations

import sqlite3

SCHEMA_VERSION = 3
READABLE = (1, 2, 3)
EVENTS, PROVEN = "event", "feedback"  # where feedback is read; logs before version 3 have the second only
ADDITIVE = (2,)  # lacks tables only: they are added when such a file is opened to be written

_FIRST = """
CREATE TABLE decision (
    seq INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    decided_us INTEGER NOT NULL,
    shown BLOB NOT NULL,
    checksum BLOB NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX decision_time ON decision (decided_us);
CREATE INDEX decision_user ON decision (user_id);
CREATE TABLE feedback (
    seq INTEGER NOT NULL, event_id TEXT NOT NULL, received_us INTEGER NOT NULL, occurred_us INTEGER NOT NULL,
    row INTEGER, "column" INTEGER,
    displayed INTEGER, seen INTEGER, listened_s REAL, skipped INTEGER, saved INTEGER,
    PRIMARY KEY (seq, event_id)
) WITHOUT ROWID;
CREATE TABLE quarantine (
    request_id TEXT NOT NULL, event_id TEXT NOT NULL, content TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (request_id, event_id, content)
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_SECOND = """
CREATE TABLE IF NOT EXISTS tombstone (request_id TEXT PRIMARY KEY, erased_us INTEGER NOT NULL, checksum BLOB NOT NULL)
    WITHOUT ROWID;
"""
_THIRD = """
CREATE TABLE IF NOT EXISTS chain (number INTEGER PRIMARY KEY, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head (
    number INTEGER PRIMARY KEY CHECK (number = 0), entries INTEGER NOT NULL, seal TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS leaf (
    day INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (day, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bucket (
    day INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (day, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS amendment (
    seq INTEGER NOT NULL, event_id TEXT NOT NULL, received_us INTEGER NOT NULL, occurred_us INTEGER NOT NULL,
    row INTEGER, "column" INTEGER,
    displayed INTEGER, seen INTEGER, listened_s REAL, skipped INTEGER, saved INTEGER,
    PRIMARY KEY (seq, event_id)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS event AS
    SELECT * FROM feedback AS kept
    WHERE NOT EXISTS (SELECT 1 FROM amendment WHERE amendment.seq = kept.seq AND amendment.event_id = kept.event_id)
    UNION ALL SELECT * FROM amendment;
CREATE TABLE IF NOT EXISTS erasure (
    subject BLOB PRIMARY KEY, first_us INTEGER NOT NULL, erased_us INTEGER NOT NULL, pages INTEGER NOT NULL,
    events INTEGER NOT NULL, quarantined INTEGER NOT NULL, exported INTEGER NOT NULL, files INTEGER NOT NULL,
    states INTEGER NOT NULL, sessions INTEGER NOT NULL
) WITHOUT ROWID;
"""


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new log, in the caller's transaction."""
    _execute(connection, _FIRST)
    upgrade(connection)


def upgrade(connection: sqlite3.Connection) -> None:
    """Adds what a log of an older version lacks, in the caller's transaction."""
    _execute(connection, _SECOND + _THIRD)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # executescript would commit first
        connection.execute(statement)
