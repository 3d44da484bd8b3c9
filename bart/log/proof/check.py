"""Whether a log is what its chain says: the seals, the marks, the records of every closed day, the tombstones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bart.errors import LogError
from bart.log.proof import ledger
from bart.log.proof.chain import DAY_US, Entry, Flaw, day_of, flaws_of, tag
from bart.log.proof.closing import Recorded, leaves_of, records
from bart.log.proof.merkle import bucket_roots, day_root
from bart.log.record.record import from_us
from bart.log.store.store import snapshot

Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A line that was printed once and kept elsewhere: number, day, kind, count and root of an entry, and its seal."""

    number: int
    day: str
    seal: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What the chain of a log (or of an export of it) proves.

    entries, days: of the chain; keyed: the last entry has a key; checked: with a key, the seals were checked with it.
    waiting: records and reports that the next closing enters. flaws: in the order of their days.
    """

    entries: int
    days: int
    keyed: bool
    checked: bool
    waiting: int
    flaws: tuple[Flaw, ...]

    def told(self) -> str:
        """One line."""
        if not self.entries:
            return "no day is closed yet, so nothing is proven of outcomes"
        seal = "unkeyed: no proof against who can write the log"
        if self.keyed:
            seal = (
                "sealed with the key" if self.checked else "sealed with a key that was not given: seals are not checked"
            )
        return f"chain of {self.entries:,} entries, {self.days:,} closed days, {self.waiting:,} changes wait; {seal}"


def check_log(read: Connect, key: bytes | None, kept: Sequence[Kept] = ()) -> Proof:
    """Compares a log with its chain."""
    try:
        with read() as connection, snapshot(connection):
            entries = ledger.entries_of(connection)
            flaws = [*flaws_of(entries, key), *kept_flaws(entries, kept)]
            flaws += _head_flaws(connection, entries, key)
            flaws += _tombstone_flaws(connection, entries)
            (waiting,) = connection.execute("SELECT count(*) FROM amendment").fetchone()
        days = ledger.closed_days(entries)
        for day in sorted(days):
            with read() as connection, snapshot(connection):  # of one day: a long one would keep checkpoints waiting
                now = _as_it_is(connection, entries, day)
                found, unsealed = _day(connection, now, key) if now is not None else ([], 0)
            flaws += found
            waiting += unsealed
    except LogError as error:
        return Proof(0, 0, False, False, 0, (Flaw("", "", str(error)),))
    flaws.sort(key=lambda flaw: (flaw.day == "", flaw.day))
    keyed = bool(entries) and entries[-1].keyed
    return Proof(len(entries), len(days), keyed, keyed and key is not None, waiting, tuple(flaws))


def _head_flaws(connection: sqlite3.Connection, entries: list[Entry], key: bytes | None) -> Iterator[Flaw]:
    """What is wrong with the head; where entries are missing, of the days that have leaves and no entry any more."""
    known = set(ledger.closed_days(entries))
    for flaw in ledger.head_flaws(connection, entries[-1] if entries else None, key):
        days = [day_of(day * DAY_US) for (day,) in connection.execute("SELECT DISTINCT day FROM leaf ORDER BY 1")]
        missing = [day for day in days if day not in known] if flaw.day == "" else []
        yield Flaw(missing[0], flaw.record, flaw.text) if missing else flaw


def _as_it_is(connection: sqlite3.Connection, entries: list[Entry], day: str) -> Entry | None:
    """The entry of a day in this snapshot: somebody may have entered something since the chain was read."""
    (last,) = connection.execute("SELECT max(number) FROM chain").fetchone()
    if last != entries[-1].number:
        entries = ledger.entries_of(connection)
    return ledger.closed_days(entries).get(day)


def kept_flaws(entries: Sequence[Entry], kept: Sequence[Kept]) -> Iterator[Flaw]:
    """Where a chain is not the one that was printed."""
    for line in kept:
        if line.number >= len(entries):
            yield Flaw(line.day, "", f"entry {line.number} was printed and is gone")
        elif entries[line.number].seal != line.seal:
            yield Flaw(line.day, "", f"entry {line.number} is not the one that was printed")


def read_kept(text: str) -> list[Kept]:
    """The lines that `entry_line` made, others left out. Raises LogError where there is none."""
    out = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 6 and words[0].isdecimal() and len(words[5]) == 64:
            out.append(Kept(int(words[0]), "" if words[2] == "-" else words[2], words[5]))
    if not out:
        raise LogError("no line of a chain is there; expected lines that bart log roots printed")
    return out


def entry_line(entry: Entry) -> str:
    """An entry as it is printed, to be kept elsewhere."""
    return f"{entry.number} {entry.kind} {entry.day or '-'} {entry.count} {entry.root or '-'} {entry.seal}"


def _day(connection: sqlite3.Connection, entry: Entry, key: bytes | None) -> tuple[list[Flaw], int]:
    """What is wrong with a closed day, and how many of its records came after it was closed."""
    flaws: list[Flaw] = []
    unsealed = 0
    buckets: dict[int, bytes] = {}
    stored = iter(ledger.leaves_of(connection, entry.day, -(2**63), 2**63 - 1))
    leaf_keyed = entry.keyed and key is not None
    hashes: list[tuple[int, bytes]] = []
    pending = next(stored, None)

    def take(until: int) -> None:
        """Leaves before a sequence number: their records are gone."""
        nonlocal pending
        while pending is not None and pending[0] < until:
            flaws.append(Flaw(entry.day, "", f"record {pending[0]} is missing or stands in another day"))
            hashes.append(pending[:2])
            pending = next(stored, None)

    for rows in records(connection, entry.day):
        found = _leaves(connection, rows, entry.window_us, flaws, entry.day)
        for row in rows:
            take(row.seq)
            if pending is None or pending[0] != row.seq:
                unsealed += 1
                continue
            seq, one, mark = pending
            if found.get(seq, one) != one:
                flaws.append(Flaw(entry.day, row.request_id, "is not what it was when its day was closed: altered"))
            elif leaf_keyed and mark and mark != tag(key, one):
                flaws.append(Flaw(entry.day, row.request_id, "its leaf is not the one that was sealed: altered"))
            hashes.append((seq, one))
            pending = next(stored, None)
    take(2**63 - 1)
    buckets = bucket_roots(hashes)
    if len(hashes) != entry.count or day_root(buckets).hex() != entry.root:
        what = f"its {len(hashes):,} leaves do not give the root of {entry.count:,} that entry {entry.number} has"
        flaws.append(Flaw(entry.day, "", what))
    return flaws, unsealed


def _leaves(
    connection: sqlite3.Connection, rows: Sequence[Recorded], window_us: int, flaws: list[Flaw], day: str
) -> dict[int, bytes]:
    """Leaves of records, worked out anew; one whose outcome cannot be worked out is a flaw."""
    try:
        return leaves_of(connection, rows, window_us)
    except LogError:
        out: dict[int, bytes] = {}
        for row in rows:
            try:
                out |= leaves_of(connection, [row], window_us)
            except LogError as error:
                flaws.append(Flaw(day, row.request_id, str(error).removeprefix(f"request {row.request_id!r}: ")))
        return out


def _tombstone_flaws(connection: sqlite3.Connection, entries: Sequence[Entry]) -> Iterator[Flaw]:
    there = {int(us) for (us,) in connection.execute("SELECT DISTINCT erased_us FROM tombstone")}
    left = {entry.at_us: (entry.count, entry.root) for entry in entries if entry.kind == "erased"}
    for erased_us in sorted(there | set(left)) if entries else ():
        count, root = ledger.tombstones(connection, erased_us)
        if left.get(erased_us) != (count, root.hex()):
            query = "SELECT min(request_id) FROM tombstone WHERE erased_us = ?"
            named = "" if erased_us in left else str(connection.execute(query, (erased_us,)).fetchone()[0])
            yield Flaw(
                day_of(erased_us), named, f"the {count} tombstones of {from_us(erased_us)} are not what was sealed"
            )
