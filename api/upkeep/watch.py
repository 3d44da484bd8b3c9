"""Keeps a serving process up to date: another active bundle, other switches. Nothing is restarted.

A request uses one service from its start to its end; a change makes another service beside it and puts it in its place
by one assignment, so that no page and no record mixes two bundles or two states of the switches.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from typing import Any, Protocol

from api.run.clock import utc_now
from api.run.runs import open_run
from api.run.versions import Versions
from api.service.service import HomeService
from bart.errors import BartError
from recommender.states.states import StoredListeners

EVERY_S = 0.5
LATELY_S = 24 * 3600  # sessions reported before were replayed when the batch was made active
GRACE_S = 30.0  # how long what a request may still be using is kept open; more than any request takes

_log = logging.getLogger("bart.watch")


class Holder(Protocol):
    """What holds the service that answers: the state of the application."""

    service: HomeService


class Watcher:
    """Looks for changes from a thread of its own, between `start` and `stop`; `look` does it once."""

    def __init__(self, holder: Holder | Any, every_s: float = EVERY_S) -> None:
        self._holder = holder
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._opened = [holder.service.run.store]
        self._replay_again = False
        self._replaced: list[tuple[float, StoredListeners]] = []
        self._versions = Versions(holder.service.run.paths.root)
        self._bundle_seen = self._versions.marker()
        self._controls_seen = holder.service.control.version()

    def start(self) -> None:
        """Begins to look."""
        self._thread = threading.Thread(target=self._keep_looking, name="bart-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends, and closes what it opened itself."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for store in self._opened[1:]:
            store.close()

    def look(self) -> bool:
        """Takes up what has changed; whether anything had.

        A bundle that cannot be opened is left alone, told in the log of the process, and tried again when it changes;
        the one before serves on.
        """
        changed = self._look_at_controls()
        mark = self._versions.marker()
        if mark and mark != self._bundle_seen:
            self._bundle_seen = mark
            changed |= self._take_bundle()
        self._close_replaced()
        return changed

    def _look_at_controls(self) -> bool:
        service = self._holder.service
        version = service.control.version()
        if version == self._controls_seen:
            return False
        controls = service.control.read()
        self._controls_seen = version
        if controls == service.controls:
            return False
        self._holder.service = service.with_controls(controls)
        return True

    def _take_bundle(self) -> bool:
        service = self._holder.service
        settings = service.settings
        try:
            run = open_run(service.run.paths.root, settings, shared=service.run.shared)
        except (BartError, OSError) as error:
            _log.error("the active bundle cannot be served, the one before serves on: %s", error)
            return False
        before = service.run
        if run.bundle.files == before.bundle.files:
            run.store.close()
            return False
        self._opened.append(run.store)
        fresh = service.with_run(run)
        other_batch = run.bundle.batch_id != before.bundle.batch_id
        if other_batch:  # sessions that were committed while the bundle was made active
            self._replay(fresh)
        service.metrics.serve(fresh.run)
        self._holder.service = fresh
        self._replaced.append((time.monotonic(), before.store))
        self._replay_again |= other_batch
        return True

    def _replay(self, service: HomeService) -> None:
        try:
            count = service.listening.replay(int(utc_now().timestamp()) - LATELY_S)
        except (BartError, OSError, sqlite3.Error) as error:
            _log.error("sessions of the batch before could not be replayed; trying again: %s", error)
            self._replay_again = True
            return
        _log.info("%d sessions replayed into batch %s", count, service.run.bundle.batch_id)

    def _close_replaced(self) -> None:
        while self._replaced and time.monotonic() - self._replaced[0][0] > GRACE_S:
            _, store = self._replaced.pop(0)
            if self._replay_again and not self._replaced:  # what requests under way had yet to commit to the old batch
                self._replay(self._holder.service)
                self._replay_again = False
            if store is not self._opened[0]:  # that one belongs to who opened the service
                store.close()
                self._opened.remove(store)

    def _keep_looking(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except (BartError, OSError, ValueError, sqlite3.Error):
                _log.exception("looking for changes failed; trying again")
