"""Group commit: those who wait for the disk at the same moment share one transaction.

No thread of its own: whoever gets the lock first commits for all that have queued by then, and the others find their
work done when the lock comes to them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from bart.errors import LogError

T = TypeVar("T")


class _Ticket(Generic[T]):
    """One piece of work that waits for a commit, and what came of it."""

    __slots__ = ("done", "error", "job", "result")

    def __init__(self, job: Callable[[sqlite3.Connection], T]) -> None:
        self.job = job
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class _JobFailed(Exception):
    """A job failed after it may have written something."""


class GroupCommit:
    """Runs jobs, many a transaction. begin: opens a transaction that commits at its end.

    lock: held during each transaction; whoever needs the connection alone takes it too.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self.lock = threading.Lock()
        self._begin = begin
        self._queue: list[_Ticket[object]] = []
        self._queue_lock = threading.Lock()

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """The job's result, once it is committed.

        A LogError that a job raises, before it has written anything, is its caller's alone; where a job fails in
        another way, the others run again, each in a transaction of its own. Where a transaction fails, its jobs do.
        """
        (ticket,) = self._done([job])
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]

    def run_each(self, jobs: Sequence[Callable[[sqlite3.Connection], T]]) -> list[BaseException | None]:
        """`run` for many, in one transaction with what else waits: of each the error, None where it is committed."""
        return [ticket.error for ticket in self._done(jobs)]

    def waiting(self) -> int:
        """How many jobs have queued for the next transaction."""
        with self._queue_lock:
            return len(self._queue)

    def _done(self, jobs: Sequence[Callable[[sqlite3.Connection], T]]) -> list[_Ticket[T]]:
        """One ticket a job, each committed or with its error."""
        tickets = [_Ticket(job) for job in jobs]
        with self._queue_lock:
            self._queue += tickets  # type: ignore[arg-type]
        with self.lock:
            if not tickets[-1].done:  # one transaction takes all that has queued, so all of these or none
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        return tickets

    def _commit(self, batch: list[_Ticket[object]]) -> None:
        try:
            if not self._together(batch):
                for ticket in batch:
                    self._alone(ticket)
        except BaseException as error:
            for ticket in batch:  # each raises one of its own: a traceback grows with every raise
                ticket.error = ticket.error or LogError(str(error) or type(error).__name__)
            if not isinstance(error, LogError):
                raise
        finally:
            for ticket in batch:
                ticket.done = True

    def _together(self, batch: list[_Ticket[object]]) -> bool:
        """One transaction for all; False where a job failed midway, so that all of it was rolled back."""
        try:
            with self._begin() as connection:
                for ticket in batch:
                    try:
                        ticket.result = ticket.job(connection)
                    except LogError as error:
                        ticket.error = error
                    except Exception as error:
                        raise _JobFailed from error
        except _JobFailed:
            return False
        return True

    def _alone(self, ticket: _Ticket[object]) -> None:
        ticket.result = ticket.error = None
        try:
            with self._begin() as connection:
                ticket.result = ticket.job(connection)
        except Exception as error:
            ticket.error = error
