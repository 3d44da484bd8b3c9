"""The decision log: one record a page, the feedback that came for it, and what ties the two.

`append` returns when its record is committed; appenders that wait at the same time share one commit. With
`synchronous="FULL"` a commit is on the disk; with "NORMAL" it survives the process and, but for the last moments, a
power cut.

No clock here: the caller says when feedback was received and when windows are closed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bart.directories import exclusive
from bart.errors import FeedbackError, LogError
from bart.log.outcomes.outcomes import joined_feedback, joined_outcomes
from bart.log.outcomes.received import Report, adopt_quarantined, store_feedback
from bart.log.outcomes.stats import LogStats, log_stats
from bart.log.proof.chain import Entry
from bart.log.proof.closing import Closer, lower, unclosed_since
from bart.log.proof.ledger import entries_of
from bart.log.record.feedback import DEFAULT_WINDOW, FeedbackEvent, FeedbackResult, PageFeedback, Rejection, encodable
from bart.log.record.outcomes import Outcomes
from bart.log.record.record import EncodedDecision, encode, to_us
from bart.log.store.commit import GroupCommit
from bart.log.store.compact import DUE, compact, impatient
from bart.log.store.erased import count_erasure, erased_since, refuse_erased
from bart.log.store.imported import LeftOut, left_out, note_left_out
from bart.log.store.marks import add_marks, marks_of
from bart.log.store.schema import EVENTS, PROVEN, SCHEMA_VERSION
from bart.log.store.store import (
    CHECKPOINT_PAGES,
    PAGE_BYTES,
    SELECT,
    StoredDecision,
    Synchronous,
    get_meta,
    is_locked,
    open_database,
    set_meta,
    snapshot,
    transaction,
)
from bart.types import Decision

_CHECKPOINT_EVERY = 500  # records that are appended at once: about as many as a checkpoint writes back
_LONG_WAL_BYTES = 2 * CHECKPOINT_PAGES * PAGE_BYTES  # beyond that a checkpoint is tried after each commit until it fits
MAX_WAL_BYTES = 1 << 30  # a reader that does not end keeps the write-ahead log growing: the disk must not fill up
_READ_AT_ONCE = 500  # records a query: bounds memory and the time that a reader holds back a checkpoint


class DecisionLog:
    """An open decision log; use it as a context manager. Threads may share one, processes open one each.

    path: the SQLite file, made where there is none (unless `create` is False). feedback_window: how long after
    `decided_at` reports are merged. busy_timeout_s: how long to wait for another process's commit. proof_key: seals
    the closing of windows, erasures and prunings (`bart.log.proof`); needed for these once it has sealed one.
    max_wal_bytes: how long the write-ahead log may become before nothing more is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        feedback_window: timedelta = DEFAULT_WINDOW,
        busy_timeout_s: float = 30.0,
        create: bool = True,
        proof_key: bytes | None = None,
        max_wal_bytes: int = MAX_WAL_BYTES,
    ) -> None:
        if feedback_window <= timedelta(0):
            raise LogError(f"feedback_window is {feedback_window}; expected more than 0")
        self.path = Path(path)
        self.feedback_window = feedback_window
        self.proof_key = proof_key
        self._max_wal_bytes = max_wal_bytes
        self._window_us = feedback_window // timedelta(microseconds=1)
        self._connection, self.version = open_database(
            self.path, synchronous=synchronous, busy_timeout_s=busy_timeout_s, create=create
        )
        self._reader, _ = open_database(self.path, busy_timeout_s=busy_timeout_s, create=False)
        self._read_lock = threading.RLock()
        self._synced = synchronous == "FULL"
        self._wal = f"{self.path}-wal"
        self._at_once: sqlite3.Connection | None = None  # that of append_at_once, from its first use
        self._appended_at_once = 0
        self._commits = GroupCommit(self._writing)

    # ------------------------------------------------------------------------------------------------------- writing

    def append(self, decision: Decision) -> None:
        """Takes one decision; it is committed when this returns.

        The same decision again is taken as the retry that it is. Raises LogError for a request id that is in the log
        with another decision, or was erased.
        """
        encoded = encode(decision)
        self._commits.run(lambda connection: insert_decision(connection, encoded, self._window_us))

    def append_each(self, encoded: Sequence[EncodedDecision]) -> list[BaseException | None]:
        """`append` for one or more encoded decisions that share a commit: of each the error, None where it is kept."""
        window_us = self._window_us
        return self._commits.run_each([partial(insert_decision, encoded=one, window_us=window_us) for one in encoded])

    def append_at_once(self, encoded: EncodedDecision) -> bool:
        """`append` of an encoded decision where nothing has to be waited for, and whether it was; for an event loop.

        Not where commits are synced, nor where somebody else is writing; nor now and then, so that another commit takes
        the time to write the write-ahead log back, nor while that is long: what other processes append during a
        checkpoint keeps the file from starting anew. Called from one thread at a time.
        """
        self._appended_at_once += 1
        if self._synced or self._appended_at_once % _CHECKPOINT_EVERY == 0 or self._wal_is_long():
            return False
        self._check_version()
        try:
            if self._at_once is None:
                self._at_once, _ = open_database(self.path, busy_timeout_s=0, create=False)
                self._at_once.execute("PRAGMA wal_autocheckpoint = 0")
            with transaction(self._at_once) as connection:
                insert_decision(connection, encoded, self._window_us)
        except LogError as error:
            if is_locked(error):
                return False
            raise
        return True

    def append_marked(self, decision: Decision, marks: Sequence[str]) -> None:
        """`append` with words that tell how the decision came about or came here, see `marks`."""
        encoded = encode(decision)

        def job(connection: sqlite3.Connection) -> None:
            insert_decision(connection, encoded, self._window_us)
            add_marks(connection, encoded.request_id, marks)

        self._commits.run(job)

    def append_many(self, decisions: Iterable[Decision]) -> int:
        """Takes many decisions in one transaction, all or none, and says how many; for batch jobs."""
        encoded = [encode(decision) for decision in decisions]  # before the transaction: others wait for that
        with self._alone() as connection:
            for one in encoded:
                insert_decision(connection, one, self._window_us)
        return len(encoded)

    def feedback(
        self,
        request_id: str,
        events: Sequence[FeedbackEvent | Mapping[str, Any]],
        received_at: datetime,
    ) -> FeedbackResult:
        """Keeps what a client reported about one page, and says what became of each event.

        events: as records, or as mappings with their fields. What cannot be taken is listed in `.rejected` and does not
        hold up the others. Events for an unknown request id wait apart until its decision arrives. Committed when this
        returns; any order and any repetition give the same joined log. Raises FeedbackError for what can be no request
        id, or no list of events.
        """
        _check_report(request_id, events)
        report = Report(request_id, *read_events(events), to_us(received_at))
        return self._commits.run(lambda connection: store_feedback(connection, [report], self._window_us))[0]

    def feedback_many(
        self, reports: Iterable[tuple[str, Sequence[FeedbackEvent | Mapping[str, Any]], datetime]]
    ) -> list[FeedbackResult]:
        """`feedback` for many (request_id, events, received_at) in one transaction; for batch jobs."""
        read = []
        for request_id, events, at in reports:
            _check_report(request_id, events)
            read.append(Report(request_id, *read_events(events), to_us(at)))
        with self._alone() as connection:
            return store_feedback(connection, read, self._window_us)

    def probe(self) -> None:
        """Writes a number of no meaning. Raises LogError where the log cannot be written now."""
        self._commits.run(lambda connection: set_meta(connection, "probed", (get_meta(connection, "probed") or 0) + 1))

    def close_windows(self, now: datetime) -> int:
        """Closes the feedback window of all pages that are older than it, and says how many pages are closed.

        The moment is kept in the log and never moves back; `export` and `stats` go by it. It goes no further than the
        newest page, so that a clock that was ahead closes nothing that comes later. Days whose last window is closed
        are entered into the chain, see `close_days`.
        """
        self.close_days(now)
        with self.reading() as connection:
            query = (
                "SELECT count(*) FROM decision WHERE decided_us <= (SELECT value FROM meta WHERE name = 'closed_us')"
            )
            return int(connection.execute(query).fetchone()[0])

    def close_days(self, now: datetime | None = None) -> list[Entry]:
        """`close_windows`; the entries that the chain gained. None: closes no more windows than are closed.

        Days that are over are entered, and what came late for days that had been. Raises LogError where the chain was
        altered, and without the proof key where it has one.
        """
        closer = Closer(self.reading, self._alone, self._window_us, self.proof_key)
        with exclusive(self.path.with_name(f".{self.path.name}.closing")):
            return closer.close(None if now is None else to_us(now))

    def lower_watermark(self, to: datetime) -> Entry:
        """Moves the moment up to which windows are closed back, where a clock was ahead; the entry that says so."""
        with exclusive(self.path.with_name(f".{self.path.name}.closing")):
            return lower(self._alone, self.proof_key, to_us(to))

    # ------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        with self.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM decision").fetchone()[0])

    def __contains__(self, request_id: str) -> bool:
        with self.reading() as connection:
            found = connection.execute("SELECT 1 FROM decision WHERE request_id = ?", (request_id,))
            return found.fetchone() is not None

    def get(self, request_id: str) -> Decision | None:
        """The decision of a request, None where there is none. Raises LogError where it is damaged."""
        with self.reading() as connection:
            row = connection.execute(f"{SELECT} WHERE request_id = ?", (request_id,)).fetchone()
        return None if row is None else StoredDecision(*row).decode()

    def joined(self, request_id: str) -> PageFeedback | None:
        """The merged feedback of a page, None where its decision is not in the log."""
        with self.reading() as connection:
            row = connection.execute(f"{SELECT} WHERE request_id = ?", (request_id,)).fetchone()
            if row is None:
                return None
            return joined_feedback(connection, [StoredDecision(*row)], self._window_us, self._events)[0]

    def marks(self, request_id: str) -> tuple[str, ...]:
        """What is noted beside a decision, in alphabetical order; see `bart.log.store.marks`."""
        with self.reading() as connection:
            return marks_of(connection, request_id)

    def stored(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[StoredDecision]:
        """The rows in the order of appending, not yet decoded; decided at or after `since` and before `until`."""
        for rows in self.stored_pages(None if since is None else to_us(since), None if until is None else to_us(until)):
            yield from rows

    def decisions(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[Decision]:
        """The decisions in the order of appending. Raises LogError at a damaged one."""
        return (row.decode() for row in self.stored(since, until))

    def stored_pages(
        self, since_us: int | None = None, until_us: int | None = None, at_once: int = _READ_AT_ONCE
    ) -> Iterator[list[StoredDecision]]:
        """`stored`, some rows at once, so that memory stays flat whatever the size of the log."""
        seq = -1
        low, high = -(2**63) if since_us is None else since_us, 2**63 - 1 if until_us is None else until_us
        query = f"{SELECT} WHERE seq > ? AND decided_us >= ? AND decided_us < ? ORDER BY seq LIMIT ?"
        while True:
            with self.reading() as connection:
                rows = [StoredDecision(*row) for row in connection.execute(query, (seq, low, high, at_once))]
            if not rows:
                return
            yield rows
            seq = rows[-1].seq

    def join(
        self, rows: Sequence[StoredDecision], proven: bool = False, window_us: int | None = None
    ) -> list[PageFeedback]:
        """The merged feedback of the given rows. proven: without what waits for the next closing of days.

        window_us: another feedback window than that of this log.
        """
        return self.outcomes(rows, proven, window_us).pages()

    def outcomes(self, rows: Sequence[StoredDecision], proven: bool = False, window_us: int | None = None) -> Outcomes:
        """`join` as columns."""
        window_us = self._window_us if window_us is None else window_us
        with self.reading() as connection:
            return joined_outcomes(connection, rows, window_us, PROVEN if proven else self._events)

    def chain(self) -> list[Entry]:
        """The entries that prove closed days; none in a log of an older version."""
        if self.version < SCHEMA_VERSION:
            return []
        with self.reading() as connection:
            return entries_of(connection)

    def closed_us(self) -> int | None:
        """Pages decided at or before this moment are closed (microseconds); None where no window was closed yet."""
        with self.reading() as connection:
            return get_meta(connection, "closed_us")

    def unclosed_us(self) -> int | None:
        """The moment from which on the first day that nobody has closed could be (microseconds); None without one."""
        with self.reading() as connection:
            return unclosed_since(connection, self._window_us)

    def note_left_out(self, file: str, found: LeftOut) -> None:
        """Keeps what the import of a file left out; see `bart.log.store.imported`."""
        self._commits.run(lambda connection: note_left_out(connection, file, found))

    def left_out(self) -> LeftOut:
        """What imports left out for a reason that may depend on what it earned."""
        with self.reading() as connection:
            return left_out(connection)

    def pruned_us(self) -> int | None:
        """Decisions before this moment were pruned (microseconds); None where none were."""
        with self.reading() as connection:
            return get_meta(connection, "pruned_us")

    def stats(self) -> LogStats:
        """Counts of what the log holds, read at one moment."""
        with self.reading() as connection, snapshot(connection):
            return log_stats(connection, self._window_us, self.path, self.version)

    def wal_bytes(self) -> int:
        """Size of the write-ahead log, which a reader that does not end keeps from being written back."""
        try:
            return os.stat(self._wal).st_size
        except FileNotFoundError:
            return 0

    @property
    def window_us(self) -> int:
        """The feedback window in microseconds."""
        return self._window_us

    # --------------------------------------------------------------------------------------------------- maintenance

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for queries, apart from the one that writes; one thread at a time."""
        with self._read_lock:
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise LogError(f"{self.path} cannot be read: {error}") from error

    @contextmanager
    def maintaining(self, any_version: bool = False) -> Iterator[sqlite3.Connection]:
        """The writing connection, held for work that rewrites the log (erasure, migration)."""
        with self._commits.lock, self._read_lock:
            if not any_version:
                self._check_version()
            yield self._connection

    def erased_since(self, user_id: str, since: datetime) -> bool:
        """Whether a user was erased at a moment or after it; remembered as long as `bart.log.store.erased` says."""
        with self.reading() as connection:
            return self.version == SCHEMA_VERSION and erased_since(connection, user_id, to_us(since))

    def count_erased(self, user_id: str, erased_at: datetime, **counts: int) -> dict[str, int]:
        """Adds what other stores removed of a user to what `erase_user` did; see `bart.log.store.erased`."""
        with self._alone() as connection:
            return count_erasure(connection, user_id, to_us(erased_at), **counts)

    def compact_where_due(self) -> None:
        """`compact` where an erasure or a pruning left deleted bytes in the file, which another process held then."""
        with self.reading() as connection:
            due = self.version == SCHEMA_VERSION and get_meta(connection, DUE)
        if due:
            self.compact()

    def compact(self) -> None:
        """Rebuilds the file, so that what was deleted is gone from the disk, and empties the write-ahead log.

        Raises LogError where another process reads or writes at this moment; the log stays whole, and others write on.
        """
        with self.maintaining() as connection:
            compact(connection, self.path)

    def close(self) -> None:
        """Closes the file; what was appended stays."""
        with self._commits.lock, self._read_lock:
            if self._at_once is not None:
                self._at_once.close()
            self._reader.close()
            self._connection.close()

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ machinery

    @property
    def _events(self) -> str:
        return EVENTS if self.version == SCHEMA_VERSION else PROVEN

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own, shared with nobody who waits."""
        with self._commits.lock, self._writing() as connection:
            yield connection

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        self._check_version()
        if self.wal_bytes() > self._max_wal_bytes:
            self._empty_wal()
        return transaction(self._connection)

    def _wal_is_long(self) -> bool:
        return self.wal_bytes() > _LONG_WAL_BYTES

    def _empty_wal(self) -> None:
        """Writes a write-ahead log back that is as long as it may be. Raises LogError where a reader is in the way."""
        with impatient(self._connection, 0):
            busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            held = self.wal_bytes() >> 20
            raise LogError(f"{self._wal} has {held} MB and a process that reads {self.path.name} keeps it from ending")

    def _check_version(self) -> None:
        if self.version != SCHEMA_VERSION:
            raise LogError(f"{self.path} is a decision log of version {self.version}; migrate it before writing to it")


def insert_decision(connection: sqlite3.Connection, encoded: EncodedDecision, window_us: int) -> None:
    """Writes one decision, and joins the feedback that came before it. Raises LogError before it writes anything."""
    request_id = encoded.request_id
    refuse_erased(connection, request_id, encoded.user_id, encoded.decided_us)
    try:
        cursor = connection.execute(
            "INSERT INTO decision (request_id, user_id, decided_us, shown, checksum, record) VALUES (?, ?, ?, ?, ?, ?)",
            (request_id, encoded.user_id, encoded.decided_us, encoded.shown, encoded.checksum, encoded.record),
        )
    except sqlite3.IntegrityError:
        known = connection.execute("SELECT checksum FROM decision WHERE request_id = ?", (request_id,)).fetchone()
        if known is not None and known[0] == encoded.checksum:
            return  # a retry
        raise LogError(f"request {request_id!r} is in the log already, with another decision") from None
    adopt_quarantined(connection, int(cursor.lastrowid or 0), encoded, window_us)


def _check_report(request_id: str, events: Sequence[FeedbackEvent | Mapping[str, Any]]) -> None:
    if not isinstance(request_id, str) or not request_id or not encodable(request_id):
        raise FeedbackError(f"request_id is {request_id!r:.40}; expected a string that is not empty and valid Unicode")
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Iterable):
        raise FeedbackError(f"events is {events!r:.40}; expected a list of events")


def read_events(
    events: Sequence[FeedbackEvent | Mapping[str, Any]],
) -> tuple[dict[int, FeedbackEvent], list[Rejection]]:
    """The events that are well formed, with their places, and what is wrong with the others."""
    events = list(events)
    if set(map(type, events)) == {FeedbackEvent}:
        return dict(enumerate(events)), []  # type: ignore[arg-type]
    good: dict[int, FeedbackEvent] = {}
    rejected: list[Rejection] = []
    for index, event in enumerate(events):
        try:
            good[index] = event if isinstance(event, FeedbackEvent) else FeedbackEvent.of(event)
        except Exception as error:  # a client can send anything; the other events are kept whatever it is
            event_id = event.get("event_id") if isinstance(event, Mapping) else None
            named = event_id if isinstance(event_id, str) and encodable(event_id) else ""
            text = str(error) if isinstance(error, FeedbackError) else f"cannot be read ({type(error).__name__})"
            rejected.append(Rejection(index, named, text))
    return good, rejected
