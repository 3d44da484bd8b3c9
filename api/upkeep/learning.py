"""Online learning in the service: a thread that learns from the log and publishes bundles.

A page is learnt from once, when it is `delay_s` old or its feedback window is over, whichever comes first, whatever its
feedback is by then. A card whose report is late counts as unseen, one that was still playing as not streamed: a short
delay teaches a little too low a rate. So what is learnt here is provisional. The bundle keeps the model of the last
retrain beside it (reward/anchor), and the next retrain goes on from that, with the whole feedback of closed pages.

How far the model has learnt stands in its bundle, so that model and position never part: a process that is killed goes
on from the last bundle, and what it had learnt and not published is learnt again. A published model is a bundle like
any other, which every worker takes up, and which `rollback` leaves. Of several workers one learns: who holds the lock.
While learning is frozen, pages that come of age are passed over.

A new run promises what its settings expect until pages are reported: then its level is followed, even where learning is
off, until `CALIBRATED` pages stand behind it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from api.jobs.attempt import LOCK as RETRAIN_LOCK
from api.jobs.build import ANCHOR, MODEL, save_reward
from api.run.clock import utc_now
from api.run.loops import Loop
from api.run.versions import Versions
from bart.bundle import open_bundle, write_bundle
from bart.directories import exclusive, link_tree
from bart.errors import BundleError
from bart.learning.online import OnlineConfig, OnlineLearner, Outcome, Publication
from bart.log.outcomes.pages import page_batch
from bart.log.record.batch import joined_batch
from bart.log.store.store import read_rows
from bart.reward.model import RewardModel

if TYPE_CHECKING:
    from api.service.service import HomeService
    from bart.bundle import Bundle
    from bart.log.decision_log import DecisionLog
    from bart.types import ItemTable, PageBatch

LOCK = ".learning.lock"
CALIBRATED = 500  # pages behind the level of a model whose promise counts
LEVEL_CARDS = 1_000  # between two publications of a level alone, at least
STALE_S = 600.0  # after a start all pages since the last bundle are learnt from in one round
WHY = "online learning"

_log = logging.getLogger("bart.learning")


class OnlineLearning:
    """Learns for the service that `holder` holds, from a thread of its own between `start` and `stop`.

    `step` does one round. clock: the time, UTC.
    """

    def __init__(self, holder: Any, clock: Callable[[], datetime] | None = None) -> None:
        self._holder = holder
        self._clock = clock or utc_now
        self.loop = Loop("learning", self._round, holder.service.settings.learning.every_s, STALE_S)
        self._place, self._mine = ExitStack(), False
        self._learner: OnlineLearner | None = None
        self._bundle: Bundle | None = None
        self._name: str | None = None
        self._until_s = 0

    def start(self) -> None:
        """Begins, where the settings ask for it or the level of a new run is to be found."""
        if self.due(self._service):
            self.loop.start()

    @staticmethod
    def due(service: HomeService) -> bool:
        """Whether there is something to learn between retrains."""
        return service.settings.learning.online or not calibrated(service.run.bundle)

    def stop(self) -> None:
        """Ends after the round that runs."""
        self.loop.stop()
        self._place.close()

    def step(self) -> Outcome:
        """Learns from the pages that came of age since the last round, and publishes where that is due."""
        service = self._service
        active = service.run.paths.bundle.resolve()
        if self._bundle is None or self._bundle.path != active:
            self._take(active, service)
        assert self._bundle is not None
        asked = service.settings.learning
        now_s = self._clock().timestamp()
        delay_s = min(asked.delay_s, service.log.window_us / 1e6)
        since_s, self._until_s = self._until_s, max(self._until_s, int(now_s - delay_s))
        learner = self._learner
        if learner is None:
            return Outcome(0)
        learner.frozen = not service.controls.learning
        if learner.frozen:
            return Outcome(0)
        if self._until_s <= since_s:
            return self._publish_if_due(learner, now_s)
        reward = service.settings.reward.name
        pages = aged_pages(service.log, service.run.items, self._bundle.batch_id, since_s, self._until_s, reward)
        n_cards = sum(learner.learn(batch, now_s, publish=False).n_cards for batch in pages)
        # After all pages of the round: its end is the position that the bundle tells of.
        return replace(self._publish_if_due(learner, now_s), n_cards=n_cards)

    # ------------------------------------------------------------------------------------------------------ machinery

    @property
    def _service(self) -> HomeService:
        service: HomeService = self._holder.service
        return service

    def _take(self, active: Path, service: HomeService) -> None:
        """Goes on from the active bundle, whoever made it active."""
        bundle = open_bundle(active)
        self._bundle, self._learner, self._name = bundle, None, Versions(service.run.paths.root).active()
        self._until_s = learnt_until_s(bundle, Versions(service.run.paths.root))
        folder = bundle.folder("reward") / MODEL
        if not folder.is_dir():
            _log.warning("%s holds no model that can learn on; nothing is learnt until another one serves", active.name)
            return
        if bundle.batch_id != service.run.bundle.batch_id:
            self._bundle = None  # its items are not open yet: the next round
            raise BundleError(f"{active.name} is of another batch than the one that is open")
        asked = service.settings.learning
        if not asked.online and calibrated(bundle):
            return
        config = OnlineConfig(
            min_s=asked.min_s,
            min_examples=asked.min_examples if asked.online else LEVEL_CARDS,
            max_loss=asked.max_loss,
            max_bias=asked.max_bias,
            steps=asked.online,
        )
        model = RewardModel.load(folder)
        if not (asked.online or model.follows_level):
            return
        now_s, behind = self._clock().timestamp(), _level_cards(bundle)
        self._learner = OnlineLearner(model, service.run.items, self._publish, now_s, config, behind)

    def _publish_if_due(self, learner: OnlineLearner, now_s: float) -> Outcome:
        """What `publish_if_due` says; while a retrain runs, publishing waits and learning goes on."""
        if not learner.due(now_s):
            return Outcome(0)
        try:
            with exclusive(self._service.run.paths.root / RETRAIN_LOCK, "a retrain is running"):
                outcome = learner.publish_if_due(now_s)
        except BundleError:
            return Outcome(0)
        if outcome.refused:
            _log.warning("what was learnt is dropped: %s", outcome.refused)
        return outcome

    def _publish(self, publication: Publication) -> None:
        """Writes the model as a bundle and makes it the active one. Raises BundleError where another became active."""
        service, before = self._service, self._bundle
        assert before is not None
        versions = Versions.of(service.run.paths.root, service.settings)
        evidence = publication.evidence
        told = {k: v for k, v in before.metrics.items() if k not in ("retrain", "online")}
        told["online"] = {
            "until_s": self._until_s,
            "cards": evidence.n_cards,
            "level_cards": _level_cards(before) + evidence.n_cards,
            "pages": _pages_behind(before) + evidence.n_pages,
            "log_loss": evidence.log_loss,
            "serving_log_loss": evidence.serving_log_loss,
            "mean_reward": evidence.mean_reward,
            "mean_prediction": evidence.mean_prediction,
        }
        draft = versions.draft().with_name(f"{versions.draft().name}-online")
        try:
            with write_bundle(
                draft,
                created_at=self._clock().isoformat(timespec="seconds"),
                configuration=before.configuration,
                metrics=told,
                parent=before.model_id,
                learnt_until_s=before.learnt_until_s,  # of the anchor: from there a retrain goes on
            ) as folder:
                for name in ("items", "listener", "index"):
                    link_tree(before.folder(name), folder / name)
                save_reward(publication.model, service.run.items, folder / "reward")
                kept = before.folder("reward")
                link_tree(kept / (ANCHOR if (kept / ANCHOR).is_dir() else MODEL), folder / "reward" / ANCHOR)
            name = versions.add(draft)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        versions.activate(name, WHY, expected=self._name)
        versions.prune()
        self._bundle, self._name = open_bundle(versions.path(name).resolve()), name
        _log.info("%s: learnt from %d cards", name, evidence.n_cards)

    def _round(self) -> None:
        """One round of the process that learns, which goes on being that; of another none."""
        if not self._mine:
            try:
                self._place.enter_context(exclusive(self._service.run.paths.root / LOCK, "another process learns"))
            except BundleError:
                return
            self._mine = True
        try:
            self.step()
        except BaseException:
            self._bundle = None  # on from the bundle that serves
            raise


def calibrated(bundle: Bundle) -> bool:
    """Whether its promise is to be taken at its word: enough pages stand behind the level, or it passed the gates."""
    return _pages_behind(bundle) >= CALIBRATED or "retrain" in bundle.metrics


def _pages_behind(bundle: Bundle) -> int:
    """Pages that the level of a bundle's model was found on: of its training, or online."""
    trained = (bundle.metrics.get("reward") or {}).get("counts") or {}
    online = bundle.metrics.get("online") or {}
    return max(int(online.get("pages", 0)), int(trained.get("used_pages", 0)))


def _level_cards(bundle: Bundle) -> int:
    """Cards that the level of a bundle's model was found on between retrains."""
    return int((bundle.metrics.get("online") or {}).get("level_cards", 0))


def learnt_until_s(bundle: Bundle, versions: Versions) -> int:
    """From when on pages teach something to the model of the active bundle.

    Where it has learnt from none, from when it was made. After a return to it, from that moment on: the pages before it
    are those that taught what was left.
    """
    known = bundle.taught_until_s
    until_s = int(bundle.made_at.timestamp()) if known is None else known
    lines = versions.history()
    if lines and lines[-1].kind == "rollback":
        return max(until_s, int(datetime.fromisoformat(lines[-1].at).timestamp()))
    return until_s


def aged_pages(
    log: DecisionLog, items: ItemTable, batch_id: str, since_s: int, until_s: int, reward: str
) -> Iterator[PageBatch]:
    """Pages of one batch decided in [since_s, until_s) with the feedback so far, taken as closed."""
    item_id = pa.array(items.item_id, pa.string())
    for rows in log.stored_pages(since_s * 1_000_000, until_s * 1_000_000):
        block, outcomes = read_rows(rows), log.outcomes(rows)
        here = np.array([name == batch_id for name in block.named("batch_id").to_pylist()], dtype=np.bool_)
        kept = np.flatnonzero(outcomes.displayed & here)
        if len(kept):
            block, checksum = block.take(kept), [rows[i].checksum for i in kept.tolist()]
            shape = int(block.count("rows_asked").max()), int(block.count("columns_asked").max())
            closed = np.ones(len(kept), dtype=np.bool_)
            batch = joined_batch(block, outcomes.take(kept), closed, checksum, reward, items)
            yield page_batch(batch, items, item_id, shape, None)
