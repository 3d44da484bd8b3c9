"""What one process does for all that serve a run: publishes items that wait, and guards the model that serves.

Which process it is, a lock decides; when it dies another takes over.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from api.metrics.recent import Recent, recent
from api.run.clock import utc_now
from api.run.loops import Loop
from api.run.versions import Versions
from api.service.service import HomeService
from bart.errors import BundleError, LogError

if TYPE_CHECKING:
    from api.run.settings import GuardSettings
    from api.upkeep.watch import Holder

LOCK_FILE = ".housekeeping.lock"
EVERY_S = 1.0
PUBLISH_AFTER_S = 5.0  # items that come together are published together
PUBLISH_AGAIN_S = 15.0  # after one that failed: each costs seconds of CPU
GUARD_EVERY_S = 15.0
COMPACT_EVERY_S = 15.0
GUARD_PAGES = 500

_log = logging.getLogger("bart.housekeeping")


class Housekeeper:
    """Works from a thread of its own between `start` and `stop`; `look` does it once."""

    def __init__(self, holder: Holder | Any, every_s: float = EVERY_S) -> None:
        self._holder = holder
        self.loop = Loop("housekeeping", self.look, every_s)
        self._lock = (holder.service.run.paths.root / LOCK_FILE).open("a")
        self._holds_lock = False
        self._publishing: subprocess.Popen[bytes] | None = None
        self._publish_at = 0.0
        self._guarded_at = self._compacted_at = float("-inf")

    def start(self) -> None:
        """Begins to look."""
        self.loop.start()

    def stop(self) -> None:
        """Ends; a publication that runs is waited for, since it holds no request up."""
        self.loop.stop()
        if self._publishing is not None:
            self._publishing.wait()
        self._lock.close()

    def look(self) -> None:
        """Does what is due, where this process is the one to do it."""
        if not self._is_mine():
            return
        service: HomeService = self._holder.service
        failed: Exception | None = None
        for work in (self._publish, self._compact, self._guard):
            try:
                work(service)
            except Exception as error:  # what one cannot do holds the others up no more than it must
                failed = failed or error
        if failed is not None:
            raise failed

    def _guard(self, service: HomeService) -> None:
        if time.monotonic() - self._guarded_at >= GUARD_EVERY_S:
            self._guarded_at = time.monotonic()
            guard(service)

    def _is_mine(self) -> bool:
        if not self._holds_lock:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self._holds_lock = True
        return True

    def _publish(self, service: HomeService) -> None:
        """Starts a publication in a process of its own: it costs seconds of CPU, which pages shall not wait for."""
        if self._publishing is not None:
            code = self._publishing.poll()
            if code is None:
                return
            if code:
                _log.error("items could not be published (exit code %d); trying again", code)
                self._publish_at = time.monotonic() + PUBLISH_AGAIN_S
            self._publishing = None
        if time.monotonic() < self._publish_at:
            return
        since = service.control.waiting_since()
        if not publication_is_due(since, utc_now()):
            return
        versions = Versions.of(service.run.paths.root, service.settings)
        command = [sys.executable, "-m", "api.cli", "items", "publish", "--run", str(versions.root)]
        command += ["--keep", str(versions.keep), *(word for name in versions.spared for word in ("--spare", name))]
        self._publishing = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=_be_nice)

    def _compact(self, service: HomeService) -> None:
        """Rebuilds the log's file where somebody held it when bytes were to be erased."""
        if time.monotonic() - self._compacted_at < COMPACT_EVERY_S:
            return
        self._compacted_at = time.monotonic()
        try:
            service.log.compact_where_due()
        except LogError as error:
            _log.warning("%s; trying again", error)


def publication_is_due(since: datetime | None, at: datetime) -> bool:
    """Whether items that wait `since` a moment are to be published now.

    Also where that moment is still to come: the clock was ahead, and they must not wait until it is there again.
    """
    return since is not None and not 0 <= (at - since).total_seconds() < PUBLISH_AFTER_S


def guard(service: HomeService) -> str | None:
    """Rolls back to the bundle before where the one that serves earns too little or shows empty pages; the reason.

    Judged on the pages that it decided itself, among the latest. Nothing is done while an experiment or a switch has
    others decide, or where there is no bundle to return to.
    """
    limits = service.settings.guard
    if not limits.on or service.controls.arm:
        return None
    model_id = service.run.bundle.model_id
    found = recent(service.log, service.run.items, service.settings.reward.name, GUARD_PAGES, model_id)
    why = broken_limit(found, limits)
    if why is None:
        return None
    versions = Versions(service.run.paths.root)
    if versions.before() is None:
        return None
    try:
        done = versions.rollback(f"guard: {why}")
    except BundleError as error:
        _log.error("the guard would roll back (%s) and cannot: %s", why, error)
        return None
    service.control.note(f"rollback {done.name}", utc_now(), f"guard: {why}")
    return why


def broken_limit(found: Recent, limits: GuardSettings) -> str | None:
    """Which limit is broken, in words; None where none is or where too few pages are known."""
    if found.pages >= limits.pages and found.empty_share > limits.max_empty_share:
        return f"{found.empty_share:.1%} of {found.pages} pages are empty, over {limits.max_empty_share:.1%}"
    if found.reported >= limits.pages and found.reward_rate < limits.min_reward_rate:
        rate = f"{found.reward_rate:.4f}"
        return f"the reward rate over {found.reported} pages is {rate}, under {limits.min_reward_rate:g}"
    return None


def _be_nice() -> None:
    os.nice(10)
