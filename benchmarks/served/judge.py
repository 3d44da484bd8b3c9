"""What was acknowledged beside what is there afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bart.bundle import open_bundle
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from benchmarks.served.load import Load


def judged(run: Path, load: Load, also: bool = True) -> dict[str, Any]:
    """Acknowledged pages, events, sessions and picks that are missing or twice there, pages of another batch than was
    told, and whether the log verifies; also: what a scenario asks for beside that. `passed` where all is well."""
    found = {**recorded(run, load), **(heard(run, load) if load.sessions or load.picks else {})}
    bad = [count for name, count in found.items() if name.startswith(("lost_", "double_", "mixed_"))]
    return {**found, "passed": bool(found["log_verifies"] and not any(bad) and also)}


def recorded(run: Path, load: Load) -> dict[str, Any]:
    """Acknowledged pages and events that the log does not hold once, and whether it verifies."""
    with DecisionLog(run / "log.sqlite", create=False) as log, log.reading() as connection:
        pages = [request_id for (request_id,) in connection.execute("SELECT request_id FROM decision")]
        query = "SELECT request_id, event_id FROM event JOIN decision USING (seq)"
        events = connection.execute(query).fetchall()
        named = {decision.request_id: decision.batch_id for decision in log.decisions()}
    return {
        "acknowledged_pages": len(load.pages),
        "acknowledged_events": len(load.events),
        "lost_pages": len(set(load.pages) - set(pages)),
        "lost_events": len(load.events - set(events)),
        "double_pages": len(pages) - len(set(pages)),
        "double_events": len(events) - len(set(events)),
        "mixed_batches": sum(named.get(request_id) not in (None, batch) for request_id, batch in load.pages.items()),
        "log_verifies": verify(run / "log.sqlite").ok,
        "refused": load.refused,
        "broken_connections": load.broken,
    }


def heard(run: Path, load: Load) -> dict[str, int]:
    """Sessions and picks that were acknowledged and are in no state, or twice."""
    bundle = open_bundle(run / "bundle")
    query = (
        "SELECT user_id, state FROM listeners WHERE batch_id = ? AND (user_id GLOB 'fault-*' OR user_id GLOB 'pick-*')"
    )
    with closing(sqlite3.connect(run / "listeners.sqlite")) as connection:
        found = connection.execute(query, (bundle.batch_id,)).fetchall()
    count = {user: int(np.frombuffer(state, "<f4")[2]) for user, state in found}
    return {
        "acknowledged_sessions": load.sessions.total(),
        "acknowledged_picks": len(load.picks),
        "lost_sessions": sum(max(n - count.get(user, 0), 0) for user, n in load.sessions.items()),
        "double_sessions": sum(max(count.get(user, 0) - n, 0) for user, n in load.attempted.items()),
        "lost_picks": len(load.picks - set(count)),
    }
