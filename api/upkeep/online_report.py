"""What each arm of an experiment earned online, beside what the other arms' pages say that it would earn.

Online: the mean value of a page by arm and the difference to the first arm (`api.upkeep.arms`); arms are drawn by
listener, so that these are plain randomised comparisons. Off-policy: `exposure_dr` for the arm's policy on
the pages of all other arms. The two use different pages and must agree within their errors; where they do not,
something is wrong with propensities, feedback, or the candidates of the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.evaluate.adaptive import adaptive_facts
from api.jobs.ingest import export_closed
from api.run.runs import RunPaths, open_run
from api.service.experiments import open_experiment
from api.upkeep.arms import check_shares, compare
from bart.errors import DataError
from bart.ope.report.estimand import NEXT_PAGE
from bart.types import Floats, ItemTable, ListenerTraits, PageBatch, Strings

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.home import HomeRanker

LEVEL_NAMES = ("value", "lower", "upper")


def online_report(
    root: Path, settings: Settings, stages: Stages, now: datetime, since: datetime | None = None
) -> dict[str, Any]:
    """Both comparisons by arm; what is closed and not yet exported is exported first.

    since: only pages decided from then on. Raises DataError where no page of an arm can be used.
    """
    run = open_run(root, settings)
    try:
        tick = stages.stage("Reading the log")
        export_closed(RunPaths(root), run.items, settings, now)
        pages, arm, traits = read_arms(RunPaths(root).log_export, run.items, since)
        tick(1, 1, f"{len(pages):,} pages")
        experiment = open_experiment(settings.experiment, run)
        shares = {experiment.label(name): one.share for name, one in settings.experiment.arms.items()}
        labels = list(shares)
        found = compare(pages, arm, labels, settings.evaluation.level)
        policies = {experiment.label(name): ranker for name, ranker in experiment.rankers.items()}
        off_policy = _off_policy(pages, arm, traits, policies, settings, stages)
    finally:
        run.store.close()
    counted = dict(zip(*np.unique(arm, return_counts=True), strict=True))
    return {
        "experiment": settings.experiment.name,
        "level": settings.evaluation.level,
        "shares": check_shares(pages.user_id, arm, shares),
        "arms": [{**asdict(one), "off_policy": off_policy.get(one.arm)} for one in found],
        "adaptive": adaptive_facts(RunPaths(root).log_export, since, root),
        "note": f"What arms earned online is what they are worth in the states of their own listeners. {NEXT_PAGE}",
        "left_out": {str(name) or "(no arm)": int(count) for name, count in counted.items() if name not in labels},
    }


def read_arms(
    log: Path, items: ItemTable, since: datetime | None = None
) -> tuple[PageBatch, Strings, list[ListenerTraits]]:
    """The displayed pages of an exported log that policies drew, the arm [b] and the traits of each."""
    import pyarrow.dataset as ds

    from api.jobs.train import pages_between

    parts = list(pages_between(log, items, since=since))
    if not parts:
        raise DataError(f"{log} holds no closed page; expected pages whose feedback window is over")
    pages = PageBatch.concat(parts)
    pages = pages.take(np.flatnonzero(pages.displayed & ~pages.forced))
    files = sorted(str(file) for file in log.glob("date=*/*.parquet"))
    names = ["request_id", "arm", "account_age_d", "diversity", "exploration_success"]
    columns = ds.dataset(files, format="parquet").to_table(columns=names).to_pydict()
    place = {request_id: i for i, request_id in enumerate(columns["request_id"])}
    at = [place[request_id] for request_id in pages.request_id]
    arm = np.array([columns["arm"][i] or "" for i in at], dtype=object)
    traits = [ListenerTraits(*(columns[name][i] for name in names[2:])) for i in at]
    return pages, arm, traits


def _off_policy(
    pages: PageBatch,
    arm: Strings,
    traits: list[ListenerTraits],
    policies: Mapping[str, HomeRanker],
    settings: Settings,
    stages: Stages,
) -> dict[str, dict[str, Any]]:
    """For each arm its estimate from the pages of the others, or why there is none; nothing where they have no page."""
    tick = stages.stage("Estimating each arm from the others")
    out: dict[str, dict[str, Any]] = {}
    rng = np.random.default_rng(settings.seed)
    for number, (label, ranker) in enumerate(policies.items()):
        tick(number, len(policies), label)
        chosen = np.flatnonzero((arm != label) & np.isin(arm, list(policies)))
        others = pages.take(chosen)
        if not len(others):
            continue
        try:
            out[label] = _estimate(label, ranker, others, [traits[i] for i in chosen.tolist()], settings, rng)
        except (DataError, ValueError) as error:  # what was earned online is shown all the same
            out[label] = {"pages": len(others), "value": None, "verdict": "unusable", "reason": str(error)}
    tick(len(policies), max(len(policies), 1), "")
    return out


def _estimate(
    label: str,
    ranker: HomeRanker,
    others: PageBatch,
    traits: list[ListenerTraits],
    settings: Settings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    from api.evaluate.policies import predicted
    from bart.ope.comparison.evaluation import evaluate_policies
    from bart.ope.policies.pages import EvaluationPolicy

    shelf, card = _epsilons(ranker, others, traits)
    (found,) = evaluate_policies(
        others,
        [EvaluationPolicy(label, ranker.scorer.score_batch(others), shelf, card)],
        level=settings.evaluation.level,
        rng=rng,
        q_logged=predicted(others),
        estimators={"dr": "exposure_dr"},
    )
    one = found.estimates["dr"]
    return {"pages": len(others), **{name: getattr(one, name) for name in LEVEL_NAMES}, "verdict": str(one.verdict)}


def _epsilons(ranker: HomeRanker, pages: PageBatch, traits: list[ListenerTraits]) -> tuple[Floats, Floats]:
    """The arm's exploration on each page, [b, rows] and [b, columns], by surface and the listener's recorded traits."""
    rows, columns = pages.shelf_epsilon.shape[1], pages.card_epsilon.shape[1]
    known: dict[tuple[str, ListenerTraits], tuple[Floats, Floats]] = {}
    found = []
    for key in zip(pages.surface.tolist(), traits, strict=True):
        if key not in known:
            known[key] = ranker.exploration.epsilons(*key, rows, columns)
        found.append(known[key])
    return np.stack([shelf for shelf, _ in found]), np.stack([card for _, card in found])
