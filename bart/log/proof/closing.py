"""Closing days: their records' leaves under a root, entered into the chain; and what changes a closed day later.

First the day is frozen: from then on what is reported on its pages waits as an amendment, so its leaves can be worked
out without holding writers up. Then root and entry are written in one transaction. A process that is killed in between
leaves a frozen day, which the next closing enters. One process closes at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

from bart.log.outcomes.outcomes import joined_outcomes
from bart.log.outcomes.received import amend
from bart.log.proof import ledger
from bart.log.proof.chain import DAY_US, Entry, day_of, start_of
from bart.log.proof.merkle import BUCKET, leaves
from bart.log.store.schema import PROVEN
from bart.log.store.store import count_meta, get_meta, raise_meta, set_meta

Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]
AT_ONCE = 500
_LEAVES_A_COMMIT = 5000
FORGOTTEN = "forgotten"  # counts erasures and prunings, for a closing that they come between
_DAY = f"decided_us / {DAY_US} - (decided_us % {DAY_US} < 0)"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What of a stored decision its leaf is made of, beside its outcome."""

    seq: int
    request_id: str
    decided_us: int
    shown: bytes
    checksum: bytes


@dataclass(frozen=True, slots=True)
class Closer:
    """Closes days of one log. read, write: connections; write's is a transaction. key: None for an unkeyed chain."""

    read: Connect
    write: Connect
    window_us: int
    key: bytes | None

    def close(self, at_us: int | None) -> list[Entry]:
        """Closes all windows that are over at a moment (None: no more than are closed), and the days that then are.

        The watermark goes no further than the newest record, so that what comes later is not closed before it came.
        """
        with self.write() as connection:
            ledger.begin(connection, self.key)
            newest = connection.execute("SELECT max(decided_us) FROM decision").fetchone()[0]
            if newest is not None and at_us is not None:
                asked_us = at_us - self.window_us
                raise_meta(connection, "closed_us", min(asked_us, newest))
                raise_meta(connection, "frozen_us", min(_floor(asked_us + 1), _floor(newest) + DAY_US))
            ledger.seal_head(connection, self.key)
            days = ledger.closed_days(ledger.entries_of(connection))
        at_us = at_us or 0
        made = [self._day(day, days.get(day), at_us) for day in self._unclosed(days)]
        with self.read() as connection:
            days = ledger.closed_days(ledger.entries_of(connection))
        made += [self._amended(days[day], seqs, at_us) for day, seqs in self._waiting() if day in days]
        return [entry for entry in made if entry is not None]

    def _unclosed(self, days: Mapping[str, Entry]) -> list[str]:
        """Frozen days that have more or fewer records than under their root."""
        with self.read() as connection:
            query = f"SELECT {_DAY}, count(*) FROM decision WHERE decided_us < ? GROUP BY 1 ORDER BY 1"
            counts = connection.execute(query, (get_meta(connection, "frozen_us"),)).fetchall()
        told = {day: entry.count for day, entry in days.items()}
        return [day for number, n in counts if told.get(day := day_of(number * DAY_US), 0) != n]

    def _day(self, day: str, before: Entry | None, at_us: int) -> Entry | None:
        """Enters the records of a day that have no leaf yet."""
        if before is not None:
            with self.read() as connection:
                seqs = [row.seq for rows in records(connection, day, bare=True) for row in rows]
            return self._amended(before, seqs, at_us) if seqs else None
        with self.write() as connection:  # what a killed closing left
            ledger.drop_day(connection, day)
            forgotten = get_meta(connection, FORGOTTEN)
        buckets: set[int] = set()
        for some in self._leaves(day):
            with self.write() as connection:
                ledger.put_leaves(connection, self.key, day, some)
            buckets |= {seq // BUCKET for seq in some}
        with self.write() as connection:
            last = ledger.begin(connection, self.key)
            if get_meta(connection, FORGOTTEN) != forgotten:
                gone = "NOT EXISTS (SELECT 1 FROM decision WHERE decision.seq = leaf.seq)"
                connection.execute(f"DELETE FROM leaf WHERE day = ? AND {gone}", (start_of(day) // DAY_US,))
            count, root = ledger.count_and_root(connection, day, sorted(buckets))
            if not count:
                return None
            window_us = self.window_us
            entry = ledger.append(
                connection, self.key, "closed", day=day, count=count, root=root, at_us=at_us, window_us=window_us
            )
            assert entry.number == last.number + 1
            ledger.seal_head(connection, self.key)
        return entry

    def _leaves(self, day: str) -> Iterator[dict[int, bytes]]:
        """Leaves of a day's records, some thousands at once."""
        waiting: dict[int, bytes] = {}
        first = -1
        while True:
            with self.read() as connection:
                rows = next(records(connection, day, after=first), [])
                waiting |= leaves_of(connection, rows, self.window_us)
            if waiting and (not rows or len(waiting) >= _LEAVES_A_COMMIT):
                yield waiting
                waiting = {}
            if not rows:
                return
            first = rows[-1].seq

    def _waiting(self) -> list[tuple[str, list[int]]]:
        """Records on which reports wait, by day."""
        query = f"SELECT DISTINCT {_DAY}, seq FROM amendment JOIN decision USING (seq) ORDER BY 1, 2"
        with self.read() as connection:
            rows = connection.execute(query).fetchall()
        return [(day_of(day * DAY_US), [seq for _, seq in some]) for day, some in groupby(rows, lambda row: row[0])]

    def _amended(self, before: Entry, seqs: Sequence[int], at_us: int) -> Entry | None:
        """Merges what waits on records of a closed day and enters its root anew.

        Nothing is done where the stored leaves are not those under the root: `verify` goes on to say so.
        """
        buckets = sorted({seq // BUCKET for seq in seqs})
        with self.write() as connection:
            ledger.begin(connection, self.key)
            if not ledger.fits(connection, before, buckets):
                return None
            rows = [row for some in records(connection, before.day, seqs=seqs) for row in some]
            for row in rows:
                amend(connection, row.seq, row.decided_us + before.window_us)
            ledger.put_leaves(connection, self.key, before.day, leaves_of(connection, rows, before.window_us))
            entry = _again(connection, self.key, before, buckets, at_us)
            ledger.seal_head(connection, self.key)
        return entry


def unclosed_since(connection: sqlite3.Connection, window_us: int) -> int | None:
    """The moment at which the first day that is not closed could be: its last window was over, or will be
    (microseconds); None where no record waits for that."""
    frozen_us = get_meta(connection, "frozen_us")
    query = "SELECT min(decided_us) FROM decision" + ("" if frozen_us is None else " WHERE decided_us >= ?")
    (first,) = connection.execute(query, () if frozen_us is None else (frozen_us,)).fetchone()
    return None if first is None else _floor(first) + DAY_US - 1 + window_us  # with the window of its last moment


def lower(write: Connect, key: bytes | None, to_us: int) -> Entry:
    """Moves the watermark back, and says so in the chain: where a clock was ahead, or the marks were altered.

    Days that are closed stay so; what comes for them is entered by the next closing.
    """
    with write() as connection:
        entries = ledger.entries_of(connection)
        if not entries:
            ledger.begin(connection, key)
        days = ledger.closed_days(entries)
        ends = [start_of(day) + DAY_US for day in days]
        set_meta(connection, "closed_us", to_us)
        set_meta(connection, "frozen_us", max([_floor(to_us + 1), *ends]))
        entry = ledger.append(connection, key, "lowered", at_us=to_us)
        ledger.seal_head(connection, key)
    return entry


def forget_records(
    connection: sqlite3.Connection, key: bytes | None, records: Iterable[tuple[int, int]], at_us: int
) -> None:
    """Takes records out of the closed days that hold them, in the transaction that removes them.

    records: (sequence, decided_us). A day whose leaves do not fit its root keeps its entry, so that it still does not.
    """
    ledger.begin(connection, key)
    count_meta(connection, FORGOTTEN, 1)
    days = ledger.closed_days(ledger.entries_of(connection))
    by_day = groupby(sorted((day_of(decided_us), seq) for seq, decided_us in records), lambda one: one[0])
    for day, some in by_day:
        seqs = [seq for _, seq in some]
        connection.executemany("DELETE FROM amendment WHERE seq = ?", [(seq,) for seq in seqs])
        if day not in days:
            continue
        buckets = sorted({seq // BUCKET for seq in seqs})
        fitted = ledger.fits(connection, days[day], buckets)
        number = start_of(day) // DAY_US
        connection.executemany("DELETE FROM leaf WHERE day = ? AND seq = ?", [(number, seq) for seq in seqs])
        if fitted:
            _again(connection, key, days[day], buckets, at_us)
    ledger.seal_head(connection, key)


def enter_tombstones(connection: sqlite3.Connection, key: bytes | None, erased_us: int) -> None:
    """Seals the tombstones of a moment, in the transaction that writes them."""
    ledger.begin(connection, key)
    ledger.append_tombstones(connection, key, erased_us)
    ledger.seal_head(connection, key)


def prune_days(connection: sqlite3.Connection, key: bytes | None, before_us: int) -> None:
    """Says that the days before a moment are gone, in the transaction that removes their records.

    The chain was seen to fit before that (`ledger.begin`).
    """
    for table in ("leaf", "bucket"):
        connection.execute(f"DELETE FROM {table} WHERE day < ?", (before_us // DAY_US,))
    count_meta(connection, FORGOTTEN, 1)
    ledger.append(connection, key, "pruned", at_us=before_us)
    ledger.seal_head(connection, key)


def records(
    connection: sqlite3.Connection,
    day: str,
    *,
    after: int = -1,
    seqs: Sequence[int] | None = None,
    bare: bool = False,
) -> Iterator[list[Recorded]]:
    """The records of a day in their order, some at once. seqs: only these; bare: only those without a leaf."""
    start = start_of(day)
    span = "SELECT min(seq), max(seq) FROM decision WHERE decided_us >= ? AND decided_us < ?"
    least, most = connection.execute(span, (start, start + DAY_US)).fetchone()
    if least is None:
        return
    wanted = None if seqs is None else set(seqs)
    if wanted is not None:
        least, most = max(least, min(wanted)), min(most, max(wanted))
    without = f"AND seq NOT IN (SELECT seq FROM leaf WHERE day = {start // DAY_US})" if bare else ""
    query = (
        "SELECT seq, request_id, decided_us, shown, checksum FROM decision "
        f"WHERE seq > ? AND seq <= ? AND decided_us >= ? AND decided_us < ? {without} ORDER BY seq LIMIT {AT_ONCE}"
    )
    after = max(after, least - 1)
    while rows := connection.execute(query, (after, most, start, start + DAY_US)).fetchall():
        found = [Recorded(*row) for row in rows if wanted is None or row[0] in wanted]
        if found:
            yield found
        after = rows[-1][0]


def leaves_of(connection: sqlite3.Connection, rows: Sequence[Recorded], window_us: int) -> dict[int, bytes]:
    """Of each record its leaf, with the outcome that is proven."""
    outcomes = joined_outcomes(connection, rows, window_us, PROVEN)
    seqs = [row.seq for row in rows]
    found = leaves(seqs, [row.request_id for row in rows], [row.checksum for row in rows], outcomes)
    return dict(zip(seqs, found, strict=True))


def _again(
    connection: sqlite3.Connection, key: bytes | None, before: Entry, buckets: Sequence[int], at_us: int
) -> Entry:
    """Enters a closed day as it is now."""
    count, root = ledger.count_and_root(connection, before.day, buckets)
    return ledger.append(
        connection, key, "amended", day=before.day, count=count, root=root, at_us=at_us, window_us=before.window_us
    )


def _floor(us: int) -> int:
    """The beginning of a moment's day."""
    return us // DAY_US * DAY_US
