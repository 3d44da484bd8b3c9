"""A small run's pages with feedback as an export beside its bundle, for the engine's tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.types import Bools, Context, Floats

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def export_pages(built_run: Path, folder: Path, pages: int = 120, reward: str = "streamed_30s") -> Path:
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
            card = decision.page.card
            page = [e for e in events if e.event_id == "page" or (e.row < len(card) and card[e.row, e.column] >= 0)]
            found.feedback_many([(f"r{i}", page, context.at + timedelta(minutes=5))])
        export_log(found, folder / "log", now=AT + timedelta(days=60), duration_s=run.items, reward=reward)
    (folder / "bundle").symlink_to((built_run / "bundle").resolve())
    return folder / "log"


def by_degrees(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:  # noqa: ARG001
    """A reward of one's own: the share of a minute that was heard."""
    return np.nan_to_num(np.minimum(listened_s / 60.0, 1.0))


def scores_of(log: Path, path: Path) -> Path:
    """A table of scores by an outside ranker, which likes what the logging policy likes, and lacks some."""
    rng = np.random.default_rng(4)
    rows: dict[str, list[object]] = {"request_id": [], "item_id": [], "score": []}
    for file in sorted(log.glob("date=*/*.parquet")):
        for page in pq.read_table(file, columns=["request_id", "item_id", "raw_score"]).to_pylist():
            for item, score in zip(page["item_id"], page["raw_score"], strict=True):
                if rng.random() < 0.98:
                    rows["request_id"].append(page["request_id"])
                    rows["item_id"].append(item)
                    rows["score"].append(3 * score - 7 + rng.normal(0, 0.1))
    pq.write_table(pa.table(rows), path)
    return path
