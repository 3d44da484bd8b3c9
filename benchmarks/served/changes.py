"""Bundles, items and switches that change under load: nothing is refused, no record mixes two states."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from api.run.versions import Versions
from bart.bundle import open_bundle, write_bundle
from bart.item_store import load_items
from bart.log.decision_log import DecisionLog
from bart.reward.baselines import PriorScorer
from bart.reward.scorer import load_scorer
from bart.types import Candidates
from benchmarks.served.judge import judged
from benchmarks.served.load import loaded
from benchmarks.served.server import ask, serving

LIMIT_S = 5.0  # within which switches and takedowns must hold


def flips(run: Path, users: list[str], times: int = 10) -> dict[str, Any]:
    """Bundles flipped over HTTP: no failed request, no record of two models."""
    versions = Versions(run)
    first, second = str(versions.active()), second_bundle(run)
    with serving(run, 2) as (_, port), loaded(port, users) as load:
        for flip in range(times):
            time.sleep(2)
            name = first if flip % 2 else second
            assert ask(port, "POST", "/v1/models", {"activate": name}, run=run)[0] == 200
        time.sleep(2)
    items = load_items(open_bundle(run / "bundle").folder("items"))
    scorer = {
        open_bundle(versions.path(name)).model_id: load_scorer(versions.path(name) / "reward", items)
        for name in (first, second)
    }
    mixed, by_model = 0, Counter(dict.fromkeys(scorer, 0))
    with DecisionLog(run / "log.sqlite", create=False) as log:
        for request_id in load.pages:
            decision = log.get(request_id)
            assert decision is not None
            row = items.rows(decision.item_id)
            candidates = Candidates(row, decision.shelf, decision.shelves, decision.features)
            expected = scorer[decision.model_id].score(
                decision.context, decision.listener, candidates, user_id=decision.user_id
            )
            mixed += not (expected == decision.raw_score).all()
            by_model[decision.model_id] += 1
    well = not (mixed or load.refused or load.broken) and all(by_model.values())
    return {"flips": times, "mixed_records": mixed, "pages_by_model": by_model, **judged(run, load, well)}


def second_bundle(run: Path) -> str:
    """A bundle of the same batch with a plain model; its name."""
    versions = Versions(run)
    bundle = open_bundle(run / "bundle")
    draft = versions.draft()
    with write_bundle(draft, created_at="2026-01-01T00:00:00+00:00") as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        PriorScorer(load_items(bundle.folder("items")), taste=4.0).save(folder / "reward")
    return versions.add(draft)


def takedown(run: Path, users: list[str]) -> dict[str, Any]:
    """How long after the answer a page with the item was still asked for and came, on two workers; also of a switch."""
    with serving(run, 2) as (_, port), loaded(port, users, keep_pages=True) as load:
        time.sleep(3)
        with load.lock:
            shown = [
                card["item_id"] for _, page in load.decided for shelf in page["shelves"] for card in shelf["cards"]
            ]
        often = max(set(shown), key=shown.count)
        assert ask(port, "DELETE", f"/v1/items/{often}", run=run)[0] == 200
        at = time.monotonic()
        time.sleep(4)
        assert ask(port, "POST", "/v1/control", {"switch": "explore", "state": "off"}, run=run)[0] == 200
        switched = time.monotonic()
        time.sleep(4)
    late = [t - at for t, page in load.decided if t > at and f'"{often}"' in json.dumps(page)]
    with DecisionLog(run / "log.sqlite", create=False) as log:
        explored = [
            t - switched
            for t, page in load.decided
            if t > switched and (d := log.get(page["request_id"])) is not None and d.card_epsilon.any()
        ]
    after = sum(t > at for t, _ in load.decided)
    well = max([*late, *explored], default=0.0) < LIMIT_S and after > 50
    return {
        "shown_before": shown.count(often),
        "pages_after": after,
        "last_page_with_it_s": round(max(late, default=0.0), 3),
        "last_page_that_explored_s": round(max(explored, default=0.0), 3),
        **judged(run, load, well),
    }
