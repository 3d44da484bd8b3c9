"""Records pages that are decided in the event loop, which waits neither for a sync of the disk nor for another writer.

Where a commit needs neither, it is done at once: it takes a twentieth of a millisecond, as handing it over would. The
rest is done by a thread; pages that are decided while it commits share its next commit.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from api.run.loops import Heart
from api.wire.problems import busy
from bart.errors import LogError
from bart.log.decision_log import DecisionLog
from bart.log.record.record import EncodedDecision, encode
from bart.types import Decision

IDLE_S = 1.0
MOST_WAITING = 512  # pages; beyond that waiting would take longer than a client does


@dataclass(frozen=True, slots=True)
class _Waiting:
    encoded: EncodedDecision
    recorded: asyncio.Future[None]


class Recorder:
    """Appends to one log. Made, used and closed in one event loop."""

    def __init__(self, log: DecisionLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self.heart = Heart("record")
        self._waiting = 0  # known to the event loop alone
        self._thread = threading.Thread(target=self._keep_recording, name="bart-record", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raises ProblemError (503) where too many pages wait already."""
        if self._waiting >= MOST_WAITING:
            raise busy(self._waiting)

    async def append(self, decision: Decision) -> None:
        """Returns when the decision is committed. Raises LogError as `DecisionLog.append` does.

        Who is cancelled while waiting leaves a decision that is recorded all the same.
        """
        encoded = encode(decision)
        if not self._waiting and self._log.append_at_once(encoded):
            return
        page = _Waiting(encoded, self._loop.create_future())
        self._waiting += 1
        self._queue.put(page)
        await page.recorded

    def close(self) -> None:
        """Waits until all pages are recorded."""
        self._queue.put(None)
        self._thread.join()
        self.heart.ended = True

    def _keep_recording(self) -> None:
        while True:
            try:
                more = self._record()
                self.heart.beat()
                if not more:
                    return
            except BaseException:
                self.heart.fail()

    def _record(self) -> bool:
        """Records what waits, after at most `IDLE_S` in which nothing came; False at the end."""
        try:
            batch = [self._queue.get(timeout=IDLE_S)]
        except Empty:
            return True
        while not self._queue.empty():
            batch.append(self._queue.get())
        pages = [page for page in batch if page is not None]
        errors: list[BaseException | None]
        try:
            errors = self._log.append_each([page.encoded for page in pages]) if pages else []
        except BaseException as error:
            errors = [LogError(str(error) or type(error).__name__) for _ in pages]
        self._loop.call_soon_threadsafe(self._tell, pages, errors)
        return len(pages) == len(batch)

    def _tell(self, pages: list[_Waiting], errors: list[BaseException | None]) -> None:
        self._waiting -= len(pages)
        for page, error in zip(pages, errors, strict=True):
            if page.recorded.done():  # cancelled: nobody waits any more
                continue
            if error is None:
                page.recorded.set_result(None)
            else:
                page.recorded.set_exception(error)
