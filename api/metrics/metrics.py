"""Prometheus metrics of one process: how fast, how much, how well, and whether the log keeps up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from api.metrics.choices import choice_sums
from api.metrics.recent import recent
from api.metrics.stages import Stages
from api.metrics.stores import StoreMetrics
from api.run.clock import utc_now
from api.run.runs import OpenRun
from bart.home import HomeRanker
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackResult
from bart.types import (
    Candidates,
    CandidateSource,
    Context,
    Decision,
    Floats,
    Floats32,
    Listener,
    PageBatch,
    PageScorer,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # set where several processes serve; prometheus_client reads it when it is imported
_LAGS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
REWARD_PAGES = 500  # read for the reward rate, the latest
FRESH_S = 15.0  # what is read from the log is read that often at most
# in the order of `PageChoices`
_CHOICES = {
    "choices": "Shelves and cards drawn among two or more",
    "choices_explored": "Of these, not the best of what was left",
    "choice_weight": "Sum of 1 / (actions left x propensity); divided by bart_choices it tends to 1",
    "choice_weight_expected": "What bart_choice_weight should be",
    "choice_weight_variance": "Variance of bart_choice_weight where propensities are right",
    "choice_greedy": "Choices that are the best of what was left",
    "choice_greedy_expected": "What bart_choice_greedy should be by the recorded propensities",
    "choice_greedy_variance": "Variance of bart_choice_greedy where propensities are right",
    "choice_tie_place": "Where among equal best ones choices stood, 0 to 1 each",
    "choice_tie_expected": "What bart_choice_tie_place should be",
    "choice_tie_variance": "Variance of bart_choice_tie_place where ties are shared",
}


class Metrics:
    """The metrics of one served run, in a registry of their own."""

    def __init__(self, run: OpenRun, log: DecisionLog, reward: str = "streamed_30s") -> None:
        self._run, self._log, self._reward = run, log, reward
        self.registry = CollectorRegistry()
        r = self.registry
        self._stages = Stages(r)
        self.time = self._stages.time
        self._pages = Counter("bart_pages", "Pages decided and logged", registry=r)
        self._forced = Counter("bart_pages_forced", "Pages whose seed or time was set by hand", registry=r)
        self._retries = Counter("bart_pages_retried", "Pages asked for again with the same key", registry=r)
        self._unknown = Counter("bart_pages_unknown_listener", "Pages for listeners who are not known", registry=r)
        self._empty = Counter("bart_pages_empty", "Pages without a card", registry=r)
        self._choices = {name: Counter(f"bart_{name}", words, registry=r) for name, words in _CHOICES.items()}
        # Of pages that the counters have not been told of: eleven counters a page would cost a hundredth of it.
        self._sums, self._sums_lock = np.zeros(len(_CHOICES)), threading.Lock()
        events = Counter("bart_feedback_events", "Feedback events by what became of them", ("outcome",), registry=r)
        self._events = {
            name: events.labels(name)
            for name in ("accepted", "repeated", "conflicting", "late", "quarantined", "rejected")
        }
        self._feedback_lag = Histogram(
            "bart_feedback_lag_seconds", "From what happened to its report", registry=r, buckets=_LAGS
        )
        self._waiting = Gauge(
            "bart_log_waiting", "Decisions that wait for a commit", registry=r, multiprocess_mode="livesum"
        )
        last = Gauge(
            "bart_log_last_commit_timestamp_seconds",
            "When a decision was last committed",
            registry=r,
            multiprocess_mode="livemax",
        )
        self._last_commit, self._committed_at = last, 0.0
        # What one process reads for all of them: the one that read last is right.
        latest = partial(Gauge, registry=r, multiprocess_mode="livemostrecent")
        self._model_age = latest("bart_model_age_seconds", "Since the bundle was made")
        self._info = latest(
            "bart_model_info", "1 for the model that serves, 0 for one that did", ("batch_id", "model_id")
        )
        self._info.labels(run.bundle.batch_id, run.bundle.model_id).set(1)
        self._reward_rate = latest("bart_reward_rate", "Reward a seen card, over the latest pages")
        self._predicted = latest(
            "bart_predicted_reward_rate", "Mean score of the same seen cards; equal when calibrated"
        )
        self._seen = latest("bart_reward_seen_cards", "Seen cards behind bart_reward_rate")
        self._stores = StoreMetrics(r, log)
        self._refused = Counter("bart_refused", "Requests, connections and events over a limit", ("limit",), registry=r)
        self._beats = Gauge(
            "bart_loop_last_beat_timestamp_seconds",
            "When a round of work beside requests last went well, of the process where that is longest ago",
            ("loop",),
            registry=r,
            multiprocess_mode="livemin",
        )
        self._failures = Counter(
            "bart_loop_failures", "Rounds of work beside requests that failed", ("loop",), registry=r
        )
        self._read_at = float("-inf")
        self._read_lock = threading.Lock()

    def serve(self, run: OpenRun) -> None:
        """Tells that another bundle serves from now on."""
        before, self._run = self._run.bundle, run
        self._info.labels(before.batch_id, before.model_id).set(0)
        self._info.labels(run.bundle.batch_id, run.bundle.model_id).set(1)

    def refused(self, limit: str, count: int = 1) -> None:
        """Counts what a limit refused."""
        self._refused.labels(limit).inc(count)

    def heard(self, loop: str, beat: bool) -> None:
        """Counts a beat or a failure of a loop, and what pages left to be counted: another process may be asked for the
        metrics of all."""
        self._count_noted()
        if beat:
            self._beats.labels(loop).set_to_current_time()
        else:
            self._failures.labels(loop).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus's text format, of all processes that serve the run where there are several."""
        with self._read_lock:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._read_rewards()
                self._stores.read()
                self._read_at = time.monotonic()
        self._model_age.set((utc_now() - self._run.bundle.made_at).total_seconds())
        self._count_noted()
        shared = os.environ.get(SHARED)
        return generate_latest(self.registry if shared is None else _summed(Path(shared)))

    def timed(self, ranker: HomeRanker) -> HomeRanker:
        """The same ranker, with its parts measured."""
        return replace(ranker, source=_TimedSource(ranker.source, self), scorer=_TimedScorer(ranker.scorer, self))

    def count_page(self, decision: Decision, known: bool, disjoint: bool = False) -> None:
        """Counts one decided page and how it was drawn; disjoint: as in `page_choices`."""
        self._pages.inc()
        if decision.forced:
            self._forced.inc()
            return
        if not known:
            self._unknown.inc()
        if not len(decision.page.shelf):
            self._empty.inc()
        sums = choice_sums(decision, disjoint)
        if sums is not None:
            with self._sums_lock:
                self._sums += sums

    def _count_noted(self) -> None:
        """Counts what requests have only noted: their choices, their stages, the last commit."""
        self._stages.count()
        if self._committed_at:
            self._last_commit.set(self._committed_at)
        with self._sums_lock:
            sums, self._sums = self._sums, np.zeros(len(self._choices))
        for counter, total in zip(self._choices.values(), sums.tolist(), strict=True):
            counter.inc(total)

    def count_retry(self) -> None:
        """Counts a page that was asked for again."""
        self._retries.inc()

    def count_feedback(self, result: FeedbackResult, lag: Sequence[timedelta]) -> None:
        """Counts a batch of feedback; lag: of each event, from its time to its arrival."""
        for name, counter in self._events.items():
            value = getattr(result, name)
            counter.inc(len(value) if isinstance(value, tuple) else value)
        for one in lag:
            self._feedback_lag.observe(max(0.0, one.total_seconds()))

    def committing(self) -> _Committing:
        """Counts a decision that waits for its commit, which is a stage, in the block of a with statement."""
        return _Committing(self)

    def _read_rewards(self) -> None:
        """Reward and score of the seen cards of the latest pages that have feedback."""
        found = recent(self._log, self._run.items, self._reward, REWARD_PAGES)
        self._seen.set(found.seen)
        self._reward_rate.set(found.reward_rate)
        self._predicted.set(found.predicted_rate)


class _Committing:
    __slots__ = ("_metrics", "_timer")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._timer = metrics, metrics.time("log")

    def __enter__(self) -> None:
        self._metrics._waiting.inc()
        self._timer.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.__exit__()
        self._metrics._waiting.dec()
        if kind is None:
            self._metrics._committed_at = time.time()


def _summed(directory: Path) -> CollectorRegistry:
    """The metrics of all processes that count into a directory."""
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    for pid in {int(file.stem.rpartition("_")[2]) for file in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:  # what it gauged is over; what it counted stays
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return registry


@dataclass(frozen=True)
class _TimedSource:
    source: CandidateSource
    metrics: Metrics

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        with self.metrics.time("candidates"):
            return self.source.candidates(listener, context, rng)


@dataclass(frozen=True)
class _TimedScorer:
    scorer: PageScorer
    metrics: Metrics

    @property
    def levels(self) -> tuple[str, ...]:
        named: tuple[str, ...] = getattr(self.scorer, "levels", ())
        return named

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:
        with self.metrics.time("score"):
            return self.scorer.score(context, listener, candidates, user_id=user_id)

    def score_batch(self, batch: PageBatch) -> Floats:
        return self.scorer.score_batch(batch)
