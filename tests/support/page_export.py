"""A small run's pages with feedback as an export beside its bundle, for the engine's tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.types import Context

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def export_pages(built_run: Path, folder: Path, pages: int = 120) -> Path:
    """Pages of 2 x 3, one an hour, a fifth to all of their cards seen; a link to the run's bundle lies beside."""
    from api.run.runs import open_run
    from api.run.settings import load_settings

    settings = load_settings({})
    run = open_run(built_run, settings)
    rng = np.random.default_rng(3)
    with DecisionLog(folder / "log.sqlite") as found:
        for i in range(pages):
            context = Context(AT + timedelta(hours=i))
            listener = run.store.listener(f"listener-{i % 30:02d}", context)
            decision = run.ranker.rank(f"r{i}", listener, context, 2, 3, i)
            found.append(decision)
            events = [FeedbackEvent("page", context.at, displayed=True)]
            for slot in range(int(rng.integers(1, 6))):
                heard = 60.0 if rng.random() < 0.3 else 3.0
                events.append(FeedbackEvent(str(slot), context.at, slot // 3, slot % 3, True, True, heard))
            page = [e for e in events if e.event_id == "page" or decision.page.card[e.row, e.column] >= 0]
            found.feedback_many([(f"r{i}", page, context.at + timedelta(minutes=5))])
        export_log(found, folder / "log", now=AT + timedelta(days=60), duration_s=run.items)
    (folder / "bundle").symlink_to((built_run / "bundle").resolve())
    return folder / "log"
