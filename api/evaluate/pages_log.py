"""Evaluating an exported log of pages: the job behind `bart evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.run.progress import ignore
from bart.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.listening import Listening
    from api.run.progress import Stages
    from api.run.settings import Settings


def evaluate_log(
    log: Path,
    policies: list[str],
    settings: Settings,
    out: Path | None,
    stages: Stages,
    since: datetime | None = None,
    *,
    scores: Sequence[str] = (),
    most_missing: float = 0.1,
    estimators: Sequence[str] = (),
    everything: bool = False,
    interval: str | None = None,
    level: float | None = None,
    events: Listening | None = None,
    block_candidates: int | None = None,
) -> dict[str, Any]:
    """Estimates for each policy on the pages of an exported log, and the report where `out` is given.

    policies: BUNDLE[:epsilon], popularity[:epsilon] or logging; scores: [NAME=]FILE[:epsilon], tables of request_id,
    item_id, score, which may lack at most the share `most_missing` of the candidates. Without any, the logging policy
    and popularity are estimated. since: only pages decided from then on, such as those that a model has not learnt
    from. Items are those of the first bundle named that is of the log's batch, else of the run that the log stands in.
    estimators: NAME[:parameter=number] (the recommended ones where empty), or everything. events: listening from which
    a bundle of another batch computes vectors. block_candidates: a larger log is estimated in blocks. Raises DataError
    or BundleError with what was expected.
    """
    from api.evaluate.blocks import (
        BLOCK_CANDIDATES,
        decided_from,
        evaluate_blocks,
        page_estimators,
        read_blocks,
        size_of,
    )
    from api.evaluate.policies import page_policies, parse_policy
    from bart.log.outcomes.pages import read_pages, recorded_reward
    from bart.ope.policies.choices import parse_estimator
    from bart.ope.report.report import position_shares, write_report

    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    asked = [parse_estimator(text) for text in estimators]
    kinds = page_estimators(asked, everything)
    level = settings.evaluation.level if level is None else level
    tick = stages.stage("Opening bundles and scores")
    named = [parse_policy(text) for text in policies] or ([] if scores else [("popularity", 0.0)])
    told: list[str] = []

    def listened() -> pa.Table:
        assert events is not None
        loaded = events.load(settings)
        told.extend(loaded.check.summary())
        return loaded.events

    chosen = page_policies(log, named, scores, None if events is None else listened)
    chosen.most_missing = most_missing
    tick(1, 1)

    pages, candidates = size_of(log)
    blocks = max(-(-candidates // (block_candidates or BLOCK_CANDIDATES)), 1)
    tick = stages.stage("Reading and estimating")
    batches = decided_from(read_pages(log, chosen.items, reward=recorded_reward(log)), since)
    rng = np.random.default_rng(settings.seed)
    rows, facts, compared = evaluate_blocks(
        read_blocks(batches, pages, blocks, tick if blocks == 1 else ignore),
        blocks,
        chosen.policies,
        kinds,
        {each.name: each.parameters for each in asked},
        items=chosen.items,
        interval=interval,
        level=level,
        rng=rng,
        tick=tick,
        scored=chosen.check,
        empty=f"{log} holds no closed page{' in the time asked for' if since else ''}; expected an exported log with "
        "feedback windows closed",
    )
    chosen.check()
    report = {
        "kind": "pages",
        "unit": "expected streams a page",
        "seed": settings.seed,
        "level": level,
        "policies": rows,
        "log": {"pages": facts.pages, "seen": facts.seen, "streams": facts.streams},
        "left_out": facts.left_out,
        "blocks": blocks,
        "scores": [
            {"name": each.name, "candidates": each.candidates, "missing": each.missing} for each in chosen.scores
        ],
        "recomputed": [
            {"name": name, "pages": each.pages, "without_listening": each.cold_pages}
            for name, each in chosen.listening.items()
        ],
        "listening": told,
        "replay": None,
        "configuration": settings.as_dict(leave_out={"serve"}),
        "note": "A ranking of the logged candidates only: what other candidates would have earned is not in the log.",
        **compared,
    }
    if facts.positions:
        report["positions"] = position_shares(facts.positions)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


def evaluate_open_bandit(settings: Settings, out: Path | None, stages: Stages) -> dict[str, Any]:
    """Both directions of the Open Bandit sample; written to `out`/open_bandit.json where it is given."""
    import json

    from simulator.datasets.open_bandit.campaign import evaluate

    tick = stages.stage("Open Bandit, both directions")
    report = evaluate(np.random.default_rng(settings.seed), level=settings.evaluation.level)
    tick(1, 1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draft = out / ".open_bandit.json.new"
        draft.write_text(json.dumps(report, indent=1) + "\n")
        draft.replace(out / "open_bandit.json")
    return report
