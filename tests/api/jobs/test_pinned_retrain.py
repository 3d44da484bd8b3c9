"""A standing pin does not end the daily job: pages with pins are learnt from, judged on and reported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from api.jobs.retrain import retrain_run
from api.run.progress import Quiet
from api.run.runs import open_run
from api.run.settings import load_settings
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.page.rules import Pin, Rules
from bart.types import Context

NOW = datetime(2027, 6, 1, tzinfo=timezone.utc)


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_run, tmp_path / "run", symlinks=True))


def test_a_run_with_a_standing_pin_is_retrained(run: Path) -> None:
    settings = load_settings(
        {"seed": 1, "retrain": {"min_pages": 60, "tolerance": 1.0, "max_ece": 1.0, "max_bias": 9.0}}
    )
    first = retrain_run(run, settings, Quiet(), now=lambda: NOW - timedelta(days=30))
    assert first.status in ("activated", "refused")
    opened = open_run(run, settings)
    pinned = str(opened.items.item_id[0])
    ranker = replace(opened.ranker, rules=Rules(pins=(Pin(0, 1, pinned), Pin(1, 0, str(opened.items.item_id[1])))))
    users = [user for user, _ in zip(opened.store.user_ids(), range(60), strict=False)]
    rng = np.random.default_rng(2)
    with DecisionLog(run / "log.sqlite") as log:
        for i in range(240):
            context = Context(NOW - timedelta(days=10) + timedelta(minutes=i))
            listener = opened.store.listener(users[i % len(users)], context)
            decision = ranker.rank(f"pinned-{i}", listener, context, 4, 4, i)
            assert decision.page.pinned.any()
            log.append(decision)
            events = [FeedbackEvent("page", context.at, displayed=True)]
            for row, column in np.argwhere(decision.page.card >= 0)[: int(rng.integers(1, 12))].tolist():
                heard = 60.0 if rng.random() < 0.3 else 2.0
                events.append(FeedbackEvent(f"{row} {column}", context.at, row, column, True, True, heard))
            log.feedback_many([(f"pinned-{i}", events, context.at + timedelta(minutes=5))])
    second = retrain_run(run, settings, Quiet(), now=lambda: NOW)
    assert second.status in ("activated", "refused")
    assert {"support", "gain"} <= {gate.name for gate in second.gates}
    assert any("pages that the serving model has not learnt from" in fact for fact in second.facts)
