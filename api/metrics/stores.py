"""What the stores tell of themselves, for the metrics: read by one process for all of them."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from api.run.clock import utc_now
from bart.log.decision_log import DecisionLog
from bart.log.store.store import get_meta

# meta row of the log: what it counts
_COUNTED = {
    "stream_lost": "Entries that left the stream before they were taken into the log",
    "stream_refused": "Entries that the log refused; they are kept in NAME:log:refused",
    "compact_due": "1 while bytes that were erased are still in the log's file, which another process reads",
}


class StoreMetrics:
    """Gauges of one run's stores; `read` sets them."""

    def __init__(self, registry: CollectorRegistry, log: DecisionLog) -> None:
        self._log = log
        # The one that read last is right.
        latest = partial(Gauge, registry=registry, multiprocess_mode="livemostrecent")
        self._unclosed = latest(
            "bart_log_unclosed_seconds", "Since the first day that nobody has closed could be; 0 where none waits"
        )
        self._wal = latest("bart_log_wal_bytes", "Size of the log's write-ahead file")
        self._counted = {name: latest(f"bart_{name}", text) for name, text in _COUNTED.items()}

    def read(self) -> None:
        """Looks at the stores. Raises LogError where the log cannot be read."""
        self._wal.set(self._log.wal_bytes())
        due_us = self._log.unclosed_us()
        self._unclosed.set(0.0 if due_us is None else max(utc_now().timestamp() - due_us / 1e6, 0.0))
        with self._log.reading() as connection:
            for name, gauge in self._counted.items():
                gauge.set(get_meta(connection, name) or 0)
