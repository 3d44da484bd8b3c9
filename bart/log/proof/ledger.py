"""The chain in the log's file: its entries, the sealed head beside them, and the leaves of closed days.

The head seals how many entries there are, and the marks that change more often than a day closes: up to where windows
are closed, days are frozen, and records were pruned. Nothing is entered before it is seen to fit, so that what was
altered is never sealed anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256

from bart.errors import LogError
from bart.log.proof.chain import DAY_US, Entry, Flaw, day_of, entry_of, following, sealed, start_of, tag
from bart.log.proof.merkle import BUCKET, bucket_roots, day_root, root
from bart.log.record.record import from_us
from bart.log.store.store import get_meta

MARKS = ("closed_us", "frozen_us", "pruned_us")


def entries_of(connection: sqlite3.Connection) -> list[Entry]:
    """The chain. Raises LogError for an entry that cannot be read."""
    rows = connection.execute("SELECT entry FROM chain ORDER BY number")
    try:
        return [entry_of(json.loads(text)) for (text,) in rows]
    except (json.JSONDecodeError, TypeError) as error:
        raise LogError(f"the chain cannot be read: {error}") from None


def closed_days(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Of each closed day that was not pruned, the entry that says what it holds now."""
    days: dict[str, Entry] = {}
    for entry in entries:
        if entry.kind in ("closed", "amended"):
            days[entry.day] = entry
        elif entry.kind == "pruned":
            days = {day: kept for day, kept in days.items() if start_of(day) >= entry.at_us}
    return days


def append(
    connection: sqlite3.Connection, key: bytes | None, kind: str, *, day: str = "", count: int = 0, root: bytes = b"",
    at_us: int = 0, window_us: int = 0,
) -> Entry:  # fmt: skip
    """Enters something, in the caller's transaction; `seal_head` follows at its end."""
    last = _last(connection)
    entry = following(last, key, kind, day=day, count=count, root=root, at_us=at_us, window_us=window_us)
    connection.execute("INSERT INTO chain VALUES (?, ?)", (entry.number, json.dumps(asdict(entry), sort_keys=True)))
    return entry


def begin(connection: sqlite3.Connection, key: bytes | None) -> Entry:
    """The last entry of a chain that fits its head, or the first one, which is then made.

    Raises LogError where head and chain are not what was sealed, and without a key where there is one.
    """
    last = _last(connection)
    if last is None:
        if connection.execute("SELECT 1 FROM head").fetchone():
            raise LogError("the chain is gone, its head is there: it was altered; verify the log")
        opened = append(connection, key, "opened")
        for (erased_us,) in connection.execute("SELECT DISTINCT erased_us FROM tombstone ORDER BY 1").fetchall():
            opened = append_tombstones(connection, key, erased_us)
        return opened
    if last.keyed and key is None:
        raise LogError("the log is proven with a key; expected it here too (log.proof_key, --proof-key)")
    for flaw in head_flaws(connection, last, key):
        raise LogError(f"{flaw.text}; verify the log")
    return last if key is None or last.keyed else append(connection, key, "keyed")


def seal_head(connection: sqlite3.Connection, key: bytes | None) -> None:
    """Seals the end of the chain and the marks as they are now."""
    last = _last(connection)
    assert last is not None
    connection.execute(
        "INSERT OR REPLACE INTO head VALUES (0, ?, ?)", (last.number + 1, sealed(key, _head(connection, last)))
    )


def head_flaws(connection: sqlite3.Connection, last: Entry | None, key: bytes | None) -> Iterator[Flaw]:
    """What is wrong with the head of a chain that ends with `last`."""
    row = connection.execute("SELECT entries, seal FROM head").fetchone()
    closed_us = get_meta(connection, "closed_us")
    day = "" if closed_us is None else day_of(closed_us)
    if row is None or last is None:
        # A log of an earlier version has marks, and its chain begins with the next closing; but it froze no day.
        if row is not None or last is not None or get_meta(connection, "frozen_us") is not None:
            yield Flaw(day, "", "the chain or its head is missing")
        return
    if row[0] != last.number + 1:
        yield Flaw("", "", f"the chain has {last.number + 1} entries; {row[0]} were sealed")
    elif (key is not None or not last.keyed) and row[1] != sealed(key if last.keyed else None, _head(connection, last)):
        marks = ", ".join(f"{name[:-3]} until {_told(get_meta(connection, name))}" for name in MARKS)
        yield Flaw(day, "", f"the marks ({marks}) are not what was sealed, or the key is another")


def append_tombstones(connection: sqlite3.Connection, key: bytes | None, erased_us: int) -> Entry:
    """Enters the tombstones of a moment."""
    count, root = tombstones(connection, erased_us)
    return append(connection, key, "erased", count=count, root=root, at_us=erased_us)


def tombstones(connection: sqlite3.Connection, erased_us: int) -> tuple[int, bytes]:
    """How many tombstones bear a moment, and the root over them in the order of their request ids."""
    query = "SELECT request_id FROM tombstone WHERE erased_us = ? ORDER BY request_id"
    names = [name for (name,) in connection.execute(query, (erased_us,))]
    return len(names), root([sha256(f"\0bart tombstone\0{name}\0{erased_us}".encode()).digest() for name in names])


# ------------------------------------------------------------------------------------------------------------ leaves


def leaves_of(connection: sqlite3.Connection, day: str, first: int, last: int) -> list[tuple[int, bytes, bytes]]:
    """(sequence, leaf, tag) of a closed day with sequence numbers from `first` to `last`."""
    query = "SELECT seq, hash, tag FROM leaf WHERE day = ? AND seq BETWEEN ? AND ? ORDER BY seq"
    return connection.execute(query, (start_of(day) // DAY_US, first, last)).fetchall()


def put_leaves(connection: sqlite3.Connection, key: bytes | None, day: str, leaves: Mapping[int, bytes]) -> None:
    """Keeps leaves by their sequence numbers."""
    number = start_of(day) // DAY_US
    rows = [(number, seq, one, tag(key, one)) for seq, one in leaves.items()]
    connection.executemany("INSERT OR REPLACE INTO leaf VALUES (?, ?, ?, ?)", rows)


def fits(connection: sqlite3.Connection, entry: Entry, touched: Iterable[int]) -> bool:
    """Whether the stored leaves of a day, as far as the given buckets go, are those under its root."""
    stored = _buckets(connection, entry.day)
    if day_root(stored).hex() != entry.root:
        return False
    return all(_bucket(connection, entry.day, number) == stored.get(number) for number in touched)


def count_and_root(connection: sqlite3.Connection, day: str, touched: Iterable[int]) -> tuple[int, bytes]:
    """How many leaves a day has and their root, after those of the given buckets changed."""
    number = start_of(day) // DAY_US
    for bucket in touched:
        found = _bucket(connection, day, bucket)
        if found is None:
            connection.execute("DELETE FROM bucket WHERE day = ? AND number = ?", (number, bucket))
        else:
            connection.execute("INSERT OR REPLACE INTO bucket VALUES (?, ?, ?)", (number, bucket, found))
    (count,) = connection.execute("SELECT count(*) FROM leaf WHERE day = ?", (number,)).fetchone()
    return int(count), day_root(_buckets(connection, day))


def drop_day(connection: sqlite3.Connection, day: str) -> None:
    """Removes the leaves of a day."""
    for table in ("leaf", "bucket"):
        connection.execute(f"DELETE FROM {table} WHERE day = ?", (start_of(day) // DAY_US,))


def _buckets(connection: sqlite3.Connection, day: str) -> dict[int, bytes]:
    query = "SELECT number, hash FROM bucket WHERE day = ?"
    return dict(connection.execute(query, (start_of(day) // DAY_US,)).fetchall())


def _bucket(connection: sqlite3.Connection, day: str, number: int) -> bytes | None:
    found = leaves_of(connection, day, number * BUCKET, (number + 1) * BUCKET - 1)
    return bucket_roots((seq, one) for seq, one, _ in found).get(number)


def _last(connection: sqlite3.Connection) -> Entry | None:
    row = connection.execute("SELECT entry FROM chain ORDER BY number DESC LIMIT 1").fetchone()
    try:
        return None if row is None else entry_of(json.loads(row[0]))
    except (json.JSONDecodeError, TypeError) as error:
        raise LogError(f"the chain cannot be read: {error}") from None


def _head(connection: sqlite3.Connection, last: Entry) -> bytes:
    marks = {name: get_meta(connection, name) for name in MARKS}
    return b"bart log head 1\0" + json.dumps({"entries": last.number + 1, "last": last.seal, **marks}).encode()


def _told(us: int | None) -> str:
    return "never" if us is None else from_us(us).isoformat(timespec="seconds")
