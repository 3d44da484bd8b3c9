"""Work that is done again and again beside requests, and goes on whatever it raises.

A loop beats where a round went well. One whose last beat is too long ago is stale: it hangs or fails, and what it is to
take up (a takedown, a switch, another bundle) is not taken up. Metrics hear of every beat and failure.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

STALE_S = 60.0  # more than a round takes, opening a large bundle included
LONGEST_WAIT_S = 15.0  # between two attempts, however many failed

_log = logging.getLogger("bart.loops")


class Heart:
    """Whether work goes on. beats: told of each beat (True) and failure (False) by name, for metrics."""

    def __init__(self, name: str, stale_s: float = STALE_S) -> None:
        self.name, self.stale_s = name, stale_s
        self.failures = 0  # since the last beat
        self.ended = False
        self.told: Callable[[str, bool], None] = _nobody
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """Tells that work went well, or that there was none."""
        self._beat_at = time.monotonic()
        self.failures = 0
        self._tell(True)

    def fail(self) -> None:
        """Tells, from an except block, that it did not."""
        self.failures += 1
        _log.exception("%s failed, %d times since it went well; trying again", self.name, self.failures)
        self._tell(False)

    def _tell(self, beat: bool) -> None:
        """Whoever hears of work, such as metrics in files of a full disk, does not end it."""
        try:
            self.told(self.name, beat)
        except Exception:
            _log.exception("%s cannot be told of", self.name)

    @property
    def age_s(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._beat_at

    @property
    def stale(self) -> bool:
        """Whether the last beat is too long ago, unless the work was ended in order."""
        return not self.ended and self.age_s > self.stale_s


class Loop:
    """Does a round of work every `every_s`, from a thread of its own between `start` and `stop`; after failures less
    and less often, up to `LONGEST_WAIT_S`."""

    def __init__(self, name: str, work: Callable[[], object], every_s: float, stale_s: float = STALE_S) -> None:
        self.heart = Heart(name, max(stale_s, 10 * every_s))
        self._stopped, self._awake = threading.Event(), threading.Event()
        self._work, self._every_s = work, every_s
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins."""
        self._thread = threading.Thread(target=self._run, name=f"bart-{self.heart.name}", daemon=True)
        self.heart.beat()
        self._thread.start()

    def wake(self) -> None:
        """Has the next round begin at once."""
        self._awake.set()

    def stop(self) -> None:
        """Ends after the round that runs."""
        self.heart.ended = True
        self._stopped.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        wait_s = self._every_s
        while True:
            self._awake.wait(wait_s)
            self._awake.clear()
            if self._stopped.is_set():
                return
            try:
                self._work()
                self.heart.beat()
            except BaseException:  # nothing is above this to take it, and nobody to begin again
                self.heart.fail()
            wait_s = min(self._every_s * 2 ** min(self.heart.failures, 10), max(LONGEST_WAIT_S, self._every_s))


def stale(hearts: Sequence[Heart]) -> str:
    """The stale ones in words; empty where all go on."""
    return ", ".join(f"{heart.name} (for {heart.age_s:.0f} s)" for heart in hearts if heart.stale)


def _nobody(name: str, beat: bool) -> None:
    """Hears nothing."""
