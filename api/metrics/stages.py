"""How long the stages of requests take: noted at each request, and counted by Prometheus's histogram later, many at
once. Its counting takes longer than some stages do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Histogram

STAGES = ("listener", "candidates", "score", "log", "rank", "json", "feedback")
MOST_NOTED = 2_000  # of a stage, then they are counted at once: nobody may be asking
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Stages:
    """The histogram `bart_stage_seconds`. Threads may share it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        words = "Time in a stage; rank holds candidates, score and log"
        histogram = _Histogram("bart_stage_seconds", words, ("stage",), registry=registry, buckets=_BUCKETS)
        self._stage = {name: _Stage(histogram.labels(name)) for name in STAGES}

    def time(self, stage: str) -> Timer:
        """Measures a stage, the block of a with statement."""
        return Timer(self._stage[stage])

    def count(self) -> None:
        """Has the histogram count what was noted since it last did."""
        for stage in self._stage.values():
            stage.count()


class Timer:
    """Notes how long a block takes; a generator would take longer than some blocks do."""

    __slots__ = ("_stage", "_start")

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._stage.note(time.perf_counter() - self._start)


class _Stage:
    """One stage. Appending to a list and cutting its beginning off are one step each, whatever other threads do."""

    __slots__ = ("_histogram", "_lock", "_noted")

    def __init__(self, histogram: _Histogram) -> None:
        self._histogram, self._lock = histogram, Lock()
        self._noted: list[float] = []

    def note(self, seconds: float) -> None:
        self._noted.append(seconds)
        if len(self._noted) >= MOST_NOTED:
            self.count()

    def count(self) -> None:
        with self._lock:
            took = self._noted[:]
            del self._noted[: len(took)]
            self._histogram.observe_all(took)


class _Histogram(Histogram):
    """Observes many amounts at once."""

    _upper_bounds: list[float]
    _buckets: list[Any]
    _sum: Any

    def observe_all(self, amounts: Sequence[float]) -> None:
        """The same as `observe` with each."""
        if not amounts:
            return
        self._sum.inc(float(np.sum(amounts)))
        place = np.searchsorted(self._upper_bounds, amounts)
        for bucket, count in zip(self._buckets, np.bincount(place, minlength=len(self._buckets)).tolist(), strict=True):
            if count:
                bucket.inc(count)
