"""The service behind the routes: one run, its log, and what happens for each request.

The clock, the seeds and the ids live here, and nowhere below.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from api.hosts.redis_sessions import RedisSessions
from api.hosts.running_sessions import SESSIONS_FILE, RunningSessions
from api.hosts.shared import SPOOL_FILE, Shared, StreamedLog, open_shared, tell_risks
from api.metrics.choices import page_choices
from api.metrics.metrics import Metrics
from api.run.clock import utc_now
from api.run.in_use import served
from api.run.keys import KEY_FILE, run_key
from api.run.loops import Heart
from api.run.runs import OpenRun, RunPaths, open_run, proof_key_of
from api.run.settings import Settings
from api.service.control import ARM as CONTROLLED
from api.service.control import CONTROL_FILE, Controls, ControlStore
from api.service.experiments import Experiment, open_experiment
from api.service.files import Files
from api.service.given_candidates import given_candidates, search_results
from api.service.listening import ListeningService
from api.service.reactions import count_seen, keep_wishes
from api.service.recorder import Recorder
from api.service.report_limits import ReportLimits
from api.service.reports import take_report
from api.service.scorers import scorer_of
from api.service.visit import Visit, under
from api.wire.covers import Covers
from api.wire.decision_json import decision_document
from api.wire.page_json import PageWriter
from api.wire.problems import ProblemError
from api.wire.retries import context_of, id_of, is_of, seed_of
from api.wire.schemas import MAX_COLUMNS, FeedbackRequest, HomeRequest, RankRequest, SessionRequest, VisitFields
from api.wire.why import why_document
from bart.errors import ErasedError, LogError, StoreError
from bart.home import HomeRanker
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackResult
from bart.log.record.record import to_us
from bart.page.shown import ShownPage, shown
from bart.types import Context, Decision, Wishes
from bart.types.caller import reads_caller

BUSY_TIMEOUT_S = 5.0  # a client does not wait longer for another process's commit
CALLER = "caller"  # stands for the model where the caller brought the scores
SHADOW = "shadow"  # arm of a page that nobody saw
WISH = "wish"  # how the arm begins of a page of who takes part in no experiments, or is not profiled

InThread: TypeAlias = Callable[[Callable[[], bytes]], Awaitable[bytes]]


@dataclass(frozen=True)
class HomeService:
    """Decides pages of one run and takes their feedback.

    ranker: of the run, timed, as the switches (`controls`, read from `control`) will have it. key: secret of this run,
    from which request ids of idempotent requests are made. A change of bundle or switches makes another service of
    these parts, and each request uses one service from start to end.
    """

    run: OpenRun
    ranker: HomeRanker
    log: DecisionLog
    settings: Settings
    writer: PageWriter
    listening: ListeningService
    metrics: Metrics
    key: bytes
    control: ControlStore
    limits: ReportLimits
    files: Files
    controls: Controls = field(default_factory=Controls)
    experiment: Experiment = field(default_factory=Experiment)

    def home(self, request: HomeRequest, debug: bool = False) -> bytes:
        """The page for one visit as JSON, recorded before it is returned. debug: with scores and propensities."""
        request_id, received_at = id_of(request, self.key), utc_now()
        known = self._known(request, request_id)
        if known is not None:
            return self._again(known, request, debug=debug)
        visit = self._home(request, request_id)
        try:
            return self._recorded(visit, debug)
        finally:
            if request.onboarding is not None:
                self._forget_if_erased(request.user_id, received_at)

    async def home_soon(
        self, request: HomeRequest, recorder: Recorder, in_thread: InThread, debug: bool = False
    ) -> bytes:
        """`home` in an event loop, which goes on while the page waits to be recorded.

        Deciding takes a millisecond and waits for nothing: readers of the stores' files wait for no writer. Where it
        could wait, for a store on another host or to write picks, and for a key that was used, the work is done
        `in_thread`.
        """
        if self.run.shared is not None or request.onboarding is not None:
            return await in_thread(partial(self.home, request, debug))
        recorder.check_room()
        visit = self._home(request, id_of(request, self.key))
        try:
            with self.metrics.time("rank"):
                decision = visit.decide()
                with self.metrics.committing():
                    await recorder.append(decision)
        except LogError as error:
            return await in_thread(partial(self._first, visit, error, debug))
        return self._told(visit, decision, debug)

    def preview(self, request: HomeRequest) -> ShownPage:
        """The page that `home` would answer with, decided by the same path and neither recorded nor counted."""
        visit = self._home(request, id_of(request, self.key))
        return shown(visit.decide(), self.run.items, known=visit.listener.known)

    def rank(self, request: RankRequest, debug: bool = False) -> bytes:
        """A page of the shelves that the caller brings, or of the results of a query, decided and recorded like any
        other. Results are in the caller's order where the model has never heard of callers."""
        context = context_of(request, request.at or utc_now())
        request_id = id_of(request, self.key)
        known = self._known(request, request_id)
        given, unknown = given_candidates(request.shelves, self.run.items)
        if known is not None:
            return self._again(known, request, unknown, debug)
        with self.metrics.time("listener"):
            listener = self.listening.listener(request.user_id, context)
        ranker, arm = self._arm(request, listener.wishes)
        if request.query is not None:
            given, ranker = search_results(given, request.query, told=listener.wishes.profiled), ranker.for_search()
        if given.by_place and (request.query is None or not reads_caller(ranker.scorer)):
            ranker = replace(ranker, scorer=given, model_id=CALLER)
        ranker, size = replace(ranker, source=given), self._size(request)
        visit = Visit(request, request_id, seed_of(request, self.key), context, listener, ranker, arm, *size, unknown)
        return self._recorded(visit, debug)

    def decision(self, request_id: str) -> dict[str, Any] | None:
        """All that is known of one decision, None where it is not in the log."""
        decision = self.log.get(request_id)
        return None if decision is None else self._document(decision)

    def why(self, request_id: str, row: int, column: int) -> dict[str, Any] | None:
        """Why one card stands where it stands; None where there is no such card."""
        decision = self.log.get(request_id)
        if decision is None:
            return None
        return why_document(decision, self._document(decision), row, column, self.run.items, self.writer.covers)

    def _document(self, decision: Decision) -> dict[str, Any]:
        scorer = scorer_of(decision, self.run, self.experiment.rankers.values())
        return decision_document(decision, self.log, self.run.items, scorer, self.settings.reward.name)

    def feedback(self, request: FeedbackRequest) -> FeedbackResult:
        """Keeps what a client reported; what cannot be taken is in `.rejected`. See `take_report`."""
        received_at = utc_now()
        with self.metrics.time("feedback"):
            result, taken_up = take_report(self.log, self.limits, request, received_at)
        if result.accepted == taken_up:  # a report that comes again is counted once
            try:
                user_id = count_seen(self.run, self.log, request.request_id, request.events, received_at)
                if user_id:
                    self._forget_if_erased(user_id, received_at)
            except StoreError as error:  # the report is kept; cards rest a little later
                logging.getLogger("bart.service").warning("%s", error)
        refused = {one.index for one in result.rejected}
        taken = [event for i, event in enumerate(request.events) if i not in refused]
        user_id = keep_wishes(self.run, self.log, request.request_id, taken)
        if user_id:
            self._forget_if_erased(user_id, received_at)
        self.metrics.count_feedback(result, [received_at - (e.occurred_at or received_at) for e in request.events])
        return result

    def session(self, request: SessionRequest) -> dict[str, Any]:
        """Takes a session that runs or is over; says what became of it. Raises ProblemError, also (409) where the
        listener was erased meanwhile."""
        received_at = utc_now()
        told = self.listening.report(request, received_at)
        if self._forget_if_erased(request.user_id, received_at):
            raise ProblemError(409, "The listener was erased", "user_id: erased while this session was on its way")
        return told

    def _forget_if_erased(self, user_id: str, since: datetime) -> bool:
        """Whether a listener was erased since a request arrived; what the request wrote of the listener goes then.

        An erasure is in the log before it is in the other stores, so what was written before this looks goes either
        here or there.
        """
        erased = self.log.erased_since(user_id, since)
        if erased:
            store = self.run.store
            store.forget(user_id)
            self.listening.sessions.forget(user_id)
            if store.preferences is not None and store.wishes(user_id).profiled:  # else they are why it was erased
                store.preferences.erase(user_id, to_us(since))
        return erased

    def listeners(self, limit: int = 200, prefix: str = "", after: str = "") -> list[str]:
        """Ids of known listeners that begin with `prefix`, in order; the first ones behind `after`."""
        return self.run.store.ids_from(prefix, after, limit)

    @property
    def hearts(self) -> list[Heart]:
        """Of what the log does beside requests."""
        return [self.log.sink.loop.heart] if isinstance(self.log, StreamedLog) else []

    def health(self) -> dict[str, Any]:
        """Which batch and model this process serves."""
        return {"status": "ok", "batch_id": self.run.bundle.batch_id, "model_id": self.run.bundle.model_id}

    def ready(self) -> dict[str, Any]:
        """Whether the log can be written and listeners be read now, in the files that their names stand for.

        Raises LogError, StoreError or sqlite3.Error where they cannot: the disk is full, a file is gone or locked.
        """
        self.files.check(at_once=True)
        self.log.probe()
        self.run.store.probe()
        self.run.store.wishes("")
        return self.health()

    def with_controls(self, controls: Controls) -> HomeService:
        """The service under other switches."""
        return replace(self, controls=controls)._ready()

    def _ready(self) -> HomeService:
        """The service with the rankers of its run: timed, and as the switches will have them."""
        experiment = open_experiment(self.settings.experiment, self.run)
        rankers = {arm: under(self.metrics.timed(one), self.controls) for arm, one in experiment.rankers.items()}
        return replace(
            self,
            ranker=under(self.metrics.timed(self.run.ranker), self.controls),
            experiment=replace(experiment, rankers=rankers),
        )

    def with_run(self, run: OpenRun) -> HomeService:
        """The service of another bundle of the same run directory, warm."""
        run = replace(run, ranker=replace(run.ranker, log=self.log))
        service = replace(
            self,
            run=run,
            writer=PageWriter(run.items, self.writer.covers),
            listening=ListeningService(run.items, run.store, self.listening.sessions),
        )._ready()
        service.warm()
        return service

    def try_bundle(self, folder: Path) -> None:
        """Opens a bundle and decides a page with it, as a worker does that takes it up. Raises what that raises."""
        run = open_run(self.run.paths.root, self.settings, shared=self.run.shared, folder=folder)
        try:
            self.with_run(run)
        finally:
            run.store.close()

    def warm(self) -> None:
        """Decides one page for nobody, so that kernels are compiled and files read before the first visitor comes."""
        context = Context(utc_now())
        rows, columns = self.settings.page.rows, self.settings.page.columns
        for user_id in ("", *self.listeners(1)):
            listener = self.run.store.listener(user_id or "nobody", context)
            decision = self.run.ranker.decide("warm", listener, context, rows, columns, 0)
            page_choices(decision)
            self.writer.page(decision)

    def _arm(self, request: VisitFields, wishes: Wishes) -> tuple[HomeRanker, str]:
        """The ranker for a visit, and what is recorded as its arm: a switch stands over a shadow, that over a wish, and
        that over an experiment."""
        arm = self.experiment.arm(request.user_id) if wishes.experiments else ""
        own = self.experiment.label(arm) if wishes.experiments else f"{WISH}:{wishes.mode}"
        label = self.controls.arm or (SHADOW if request.shadow else own)
        return (self.experiment.rankers[arm] if arm else self.ranker), label

    def _home(self, request: HomeRequest, request_id: str) -> Visit:
        context = context_of(request, request.at or utc_now())
        with self.metrics.time("listener"):
            if request.onboarding is not None:
                self.listening.onboard(request.user_id, request.onboarding, context)
            listener = self.listening.listener(request.user_id, context)
        arm, size = self._arm(request, listener.wishes), self._size(request)
        return Visit(request, request_id, seed_of(request, self.key), context, listener, *arm, *size)

    def _recorded(self, visit: Visit, debug: bool) -> bytes:
        try:
            with self.metrics.time("rank"):
                decision = visit.decide()
                with self.metrics.committing():
                    self.log.append(decision)
        except LogError as error:
            return self._first(visit, error, debug)
        return self._told(visit, decision, debug)

    def _first(self, visit: Visit, error: LogError, debug: bool) -> bytes:
        """The page in the log of a key that was used before, or came twice at once. Raises the error where it was
        another one."""
        known = self._known(visit.request, visit.request_id)
        if known is None:
            if visit.request.idempotency_key is not None:
                self._refuse_erased(visit.request_id)
            if isinstance(error, ErasedError) and visit.request.at is not None:  # coming again would not help
                raise ProblemError(409, "The listener was erased", "at: expected a time after the erasure")
            raise error
        return self._again(known, visit.request, visit.unknown, debug)

    def _told(self, visit: Visit, decision: Decision, debug: bool) -> bytes:
        """The recorded page, counted and written."""
        self.metrics.count_page(decision, known=visit.listener.known, disjoint=visit.unknown is None)
        with self.metrics.time("json"):
            return self.writer.page(decision, visit.unknown, debug)

    def _known(self, request: VisitFields, request_id: str) -> Decision | None:
        """The decision that this is a retry of, where it is one."""
        return None if request.idempotency_key is None else self.log.get(request_id)

    def _again(
        self, decision: Decision, request: VisitFields, unknown: list[str] | None = None, debug: bool = False
    ) -> bytes:
        """The page that was decided for this key. Raises ProblemError where the request is another one."""
        shadow = decision.arm == SHADOW or (request.shadow and decision.arm.startswith(CONTROLLED))
        if not is_of(decision, request, self.key, self._size(request), shadow):
            detail = (
                "idempotency_key: it was used for a request that says something else; expected the same to the letter"
            )
            raise ProblemError(422, "The key was used for another request", detail)
        listener = self.listening.listener(request.user_id, decision.context)
        if self.ranker.rules.refuses(self.run.items, listener, decision):
            detail = "idempotency_key: the page of this key holds what was blocked or taken down since; use another key"
            raise ProblemError(409, "The page must not be shown any more", detail)
        self.metrics.count_retry()
        return self.writer.page(decision, unknown, debug)

    def _refuse_erased(self, request_id: str) -> None:
        with self.log.reading() as connection:
            if connection.execute("SELECT 1 FROM tombstone WHERE request_id = ?", (request_id,)).fetchone():
                detail = "idempotency_key: the page of this key was erased; use another key"
                raise ProblemError(409, "The page was erased", detail)

    def _size(self, request: VisitFields) -> tuple[int, int]:
        page = self.settings.page
        if isinstance(request, RankRequest) and request.query is not None:
            return 1, request.columns or min(len(request.shelves[0].items), MAX_COLUMNS)
        return request.rows or page.rows, request.columns or page.columns


@contextmanager
def open_service(root: Path, settings: Settings) -> Iterator[HomeService]:
    """The service of a run, warm; everything is closed in order at the end.

    Raises BundleError for a run that cannot be served, before anything is written to it.
    """
    paths = RunPaths(Path(root))
    options: dict[str, Any] = {
        "synchronous": "FULL" if settings.serve.durable else "NORMAL",
        "feedback_window": timedelta(hours=settings.reward.window_h),
        "busy_timeout_s": BUSY_TIMEOUT_S,
        "proof_key": proof_key_of(settings, paths.root),
        "max_wal_bytes": settings.log.max_wal_mb << 20,
    }
    with ExitStack() as stack:
        shared = open_shared(settings)
        if shared is not None:
            stack.callback(shared.close)
            tell_risks(shared.client)
        found = open_run(root, settings, shared=shared)
        stack.callback(found.store.close)
        if found.store.preferences is not None:
            found.store.preferences.create()
        stack.enter_context(served(paths.root))
        log = stack.enter_context(
            DecisionLog(paths.log, **options) if shared is None else shared.log(paths.root, paths.log, **options)
        )
        sessions: RunningSessions | RedisSessions = (
            RunningSessions(paths.root / SESSIONS_FILE, BUSY_TIMEOUT_S, settings.serve.durable)
            if shared is None
            else shared.sessions()
        )
        stack.callback(sessions.close)
        control = stack.enter_context(closing(ControlStore(paths.root / CONTROL_FILE, BUSY_TIMEOUT_S)))
        try:
            sessions.forget_old(int(utc_now().timestamp()))
        except StoreError as error:
            logging.getLogger("bart.service").warning("%s", error)
        run = replace(found, ranker=replace(found.ranker, log=log))
        metrics = Metrics(run, log, settings.reward.name)
        controls = control.read()
        service = HomeService(
            run=run,
            ranker=run.ranker,
            log=log,
            settings=settings,
            writer=PageWriter(run.items, Covers.of(settings.serve.image_hosts)),
            listening=ListeningService(run.items, run.store, sessions),
            metrics=metrics,
            key=run_key(paths.root / KEY_FILE),
            control=control,
            limits=ReportLimits(log, settings.limits, metrics.refused),
            files=Files(_files_of(paths, shared)),
            controls=controls,
        )._ready()
        service.warm()
        service.listening.commit_unmet()
        yield service


def _files_of(paths: RunPaths, shared: Shared | None) -> list[Path]:
    """What a service of this run holds open."""
    own = [paths.root / SESSIONS_FILE] if shared is None else [paths.root / SPOOL_FILE] if shared.stream else []
    return [paths.log, paths.listeners, paths.preferences, paths.root / CONTROL_FILE, *own]
