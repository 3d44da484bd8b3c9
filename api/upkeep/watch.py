"""Keeps a serving process up to date: another active bundle, other switches. Nothing is restarted.

A request uses one service from its start to its end; a change makes another service beside it and puts it in its place
by one assignment, so that no page and no record mixes two bundles or two states of the switches.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any, Protocol

from api.run.clock import utc_now
from api.run.loops import Loop
from api.run.runs import open_run
from api.run.versions import Versions
from api.service.service import HomeService
from api.upkeep.presence import Held, Presence
from recommender.states.states import StoredListeners

EVERY_S = 0.5
LATELY_S = 24 * 3600  # sessions reported before were replayed when the batch was made active
AGAIN_S = 10.0  # until a bundle that could not be opened is tried again; it may have been the machine
GRACE_S = 30.0  # how long what a request may still be using is kept open; more than any request takes

_log = logging.getLogger("bart.watch")


class Holder(Protocol):
    """What holds the service that answers: the state of the application."""

    service: HomeService


class Watcher:
    """Looks for changes from a thread of its own, between `start` and `stop`; `look` does it once."""

    def __init__(self, holder: Holder | Any, every_s: float = EVERY_S) -> None:
        self._holder = holder
        self.loop = Loop("watch", self.look, every_s)
        self._again_at = float("inf")
        self._presence: Presence | None = None
        self._opened = [holder.service.run.store]
        self._replay_again = False
        self._replaced: list[tuple[float, StoredListeners]] = []
        self._versions = Versions(holder.service.run.paths.root)
        self._bundle_seen = self._versions.marker()
        self._controls_seen = holder.service.control.version()

    def start(self) -> None:
        """Begins to look, and to tell the other processes what this one serves."""
        self._presence = Presence(self._holder.service.run.paths.root)
        self._tell()
        self.loop.start()

    def stop(self) -> None:
        """Ends, and closes what it opened itself."""
        self.loop.stop()
        if self._presence is not None:
            self._presence.close()
        for store in self._opened[1:]:
            store.close()

    def look(self) -> bool:
        """Takes up what has changed; whether anything had.

        A bundle that cannot be opened, for whatever reason, is told in the log of the process and tried again; the one
        before serves on.
        """
        changed = self._look_at_controls()
        preferences = self._holder.service.run.store.preferences
        if preferences is not None:
            preferences.follow()  # pages ask for them each time: nothing that they hold is to be replaced
        mark = self._versions.marker()
        if mark and (mark != self._bundle_seen or time.monotonic() >= self._again_at):
            self._bundle_seen, self._again_at = mark, float("inf")
            changed |= self._take_bundle()
        self._tell()
        self._close_replaced()
        return changed

    def _tell(self) -> None:
        if self._presence is not None:
            service = self._holder.service
            self._presence.tell(Held(service.controls.changes, service.run.bundle.path.name))

    def _look_at_controls(self) -> bool:
        service = self._holder.service
        version = service.control.version()
        if version == self._controls_seen:
            return False
        controls = service.control.read()
        if controls == service.controls:
            self._holder.service = replace(service, controls=controls)  # the number of the change is another one
        else:
            self._holder.service = service.with_controls(controls)
        self._controls_seen = version  # where this failed, it is tried again
        return self._holder.service.controls != service.controls

    def _take_bundle(self) -> bool:
        before = self._holder.service.run
        try:
            run = open_run(before.paths.root, self._holder.service.settings, shared=before.shared)
        except Exception:
            self._cannot("opened")
            return False
        if run.bundle.files == before.bundle.files:
            run.store.close()
            return False
        try:
            fresh = self._holder.service.with_run(run)
        except Exception:  # its configuration lacks what rankers ask for: the page for nobody shows it
            run.store.close()
            self._cannot("served")
            return False
        self._opened.append(run.store)
        other_batch = run.bundle.batch_id != before.bundle.batch_id
        if other_batch:  # sessions that were committed while the bundle was made active
            self._replay(fresh)
        fresh.metrics.serve(fresh.run)
        self._holder.service = fresh
        self._replaced.append((time.monotonic(), before.store))
        self._replay_again |= other_batch
        return True

    def _cannot(self, what: str) -> None:
        self._again_at = time.monotonic() + AGAIN_S
        _log.exception("the active bundle cannot be %s, the one before serves on; trying again", what)

    def _replay(self, service: HomeService) -> None:
        try:
            count = service.listening.replay(int(utc_now().timestamp()) - LATELY_S)
        except Exception:
            _log.exception("sessions of the batch before could not be replayed; trying again")
            self._replay_again = True
            return
        _log.info("%d sessions replayed into batch %s", count, service.run.bundle.batch_id)

    def _close_replaced(self) -> None:
        while self._replaced and time.monotonic() - self._replaced[0][0] > GRACE_S:
            _, store = self._replaced.pop(0)
            if self._replay_again and not self._replaced:  # what requests under way had yet to commit to the old batch
                self._replay_again = False
                self._replay(self._holder.service)
            if store is not self._opened[0]:  # that one belongs to who opened the service
                store.close()
                self._opened.remove(store)
