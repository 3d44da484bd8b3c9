"""What each arm of an experiment earned online, beside what the other arms' pages say that it would earn.

Online: the mean value of a page by arm, with intervals clustered by listener, and the difference to the first arm; arms
are drawn by listener, so that these are plain randomised comparisons. Off-policy: `exposure_dr` for the arm's policy on
the pages of all other arms. The two use different pages and must agree within their errors; where they do not,
something is wrong with propensities, feedback, or the candidates of the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from api.jobs.ingest import export_closed
from api.run.runs import RunPaths, open_run
from api.service.experiments import open_experiment
from bart.errors import DataError
from bart.types import Bools, Floats, ItemTable, ListenerTraits, PageBatch, Strings

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.home import HomeRanker

LEVEL_NAMES = ("value", "lower", "upper")


@dataclass(frozen=True, slots=True)
class Online:
    """Mean value of a page in an arm and its interval, and the same of the difference to the first arm."""

    arm: str
    pages: int
    listeners: int
    value: float
    lower: float
    upper: float
    difference: float | None
    difference_lower: float | None
    difference_upper: float | None


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
        labels = [experiment.label(name) for name in settings.experiment.arms]
        found = compare(pages, arm, labels, settings.evaluation.level)
        policies = {experiment.label(name): ranker for name, ranker in experiment.rankers.items()}
        off_policy = _off_policy(pages, arm, traits, policies, settings, stages)
    finally:
        run.store.close()
    counted = dict(zip(*np.unique(arm, return_counts=True), strict=True))
    return {
        "experiment": settings.experiment.name,
        "level": settings.evaluation.level,
        "arms": [{**asdict(one), "off_policy": off_policy.get(one.arm)} for one in found],
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


def compare(pages: PageBatch, arm: Strings, labels: list[str], level: float) -> list[Online]:
    """The mean value of a page in each arm of `labels` that has pages, the first one being what others differ from."""
    value = np.where(pages.seen, pages.reward, 0.0).sum(axis=(1, 2))
    z = NormalDist().inv_cdf(0.5 + level / 2)
    out: list[Online] = []
    base: tuple[float, float] | None = None
    for label in labels:
        mine: Bools = arm == label
        if not mine.any():
            continue
        mean, error, listeners = clustered_mean(value[mine], pages.user_id[mine])
        difference: tuple[float, float, float] | tuple[None, None, None] = (None, None, None)
        if base is None:
            base = mean, error
        else:
            by, width = mean - base[0], z * float(np.hypot(error, base[1]))
            difference = (by, by - width, by + width)
        out.append(Online(label, int(mine.sum()), listeners, mean, mean - z * error, mean + z * error, *difference))
    if not out:
        raise DataError("no closed page is of an arm of this experiment; expected [experiment] as it was served")
    return out


def clustered_mean(value: Floats, user_id: Strings) -> tuple[float, float, int]:
    """Mean over pages, its standard error with listeners as the independent units, and how many listeners.

    The linearised ratio estimator: sum of values over number of pages, both random by listener.
    """
    _, user = np.unique(user_id.astype(str), return_inverse=True)
    pages = np.bincount(user).astype(np.float64)
    total = np.bincount(user, value)
    m = len(pages)
    mean = float(total.sum() / pages.sum())
    if m < 2:
        return mean, float("inf"), m
    residual = total - mean * pages
    return mean, float(np.sqrt(m / (m - 1) * (residual**2).sum()) / pages.sum()), m


def _off_policy(
    pages: PageBatch,
    arm: Strings,
    traits: list[ListenerTraits],
    policies: Mapping[str, HomeRanker],
    settings: Settings,
    stages: Stages,
) -> dict[str, dict[str, Any]]:
    """For each arm its estimate from the pages of the others; nothing for arms whose others have no page."""
    from api.evaluate.policies import predicted
    from bart.ope.comparison.evaluation import evaluate_policies
    from bart.ope.policies.pages import EvaluationPolicy

    tick = stages.stage("Estimating each arm from the others")
    out = {}
    rng = np.random.default_rng(settings.seed)
    for number, (label, ranker) in enumerate(policies.items()):
        tick(number, len(policies), label)
        chosen = np.flatnonzero((arm != label) & np.isin(arm, list(policies)))
        others = pages.take(chosen)
        if not len(others):
            continue
        shelf, card = _epsilons(ranker, others, [traits[i] for i in chosen.tolist()])
        policy = EvaluationPolicy(label, ranker.scorer.score_batch(others), shelf, card)
        (found,) = evaluate_policies(
            others,
            [policy],
            level=settings.evaluation.level,
            rng=rng,
            q_logged=predicted(others),
            estimators={"dr": "exposure_dr"},
        )
        one = found.estimates["dr"]
        out[label] = {
            "pages": len(others),
            **{name: getattr(one, name) for name in LEVEL_NAMES},
            "verdict": str(one.verdict),
        }
    tick(len(policies), max(len(policies), 1), "")
    return out


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
