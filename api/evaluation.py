"""Evaluating and training from an exported log: the jobs behind `bart evaluate` and `bart train`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.build import MODEL, now, reward_config, save_reward
from bart.errors import BundleError, DataError

if TYPE_CHECKING:
    from api.console import Stages
    from api.settings import Settings
    from bart.bundle import Bundle
    from bart.ope.policies import EvaluationPolicy
    from bart.types import ItemTable, PageBatch


def evaluate_log(
    log: Path,
    policies: list[str],
    settings: Settings,
    out: Path | None,
    stages: Stages,
    since: datetime | None = None,
) -> dict[str, Any]:
    """Estimates for each policy on the pages of an exported log, and the report where `out` is given.

    policies: BUNDLE[:epsilon] or popularity[:epsilon]; without any, the logging policy and popularity are estimated.
    since: only pages decided from then on, such as those that a model has not been trained on. Items are those of the
    first bundle named, else of the run that the log stands in. Raises DataError or BundleError with what was expected.
    """
    from bart.ope.policies import EvaluationPolicy, evaluate_policies
    from bart.ope.report import write_report

    named = [parse_policy(text) for text in policies] or [("popularity", 0.0)]
    bundle = _bundle_of(log, named)
    same_batch(log, bundle)
    items = _items(bundle)
    tick = stages.stage("Reading the log")
    pages = read_all(log, items, since=since)
    tick(1, 1, f"{len(pages):,} pages")

    tick = stages.stage("Scoring logged candidates")
    wanted = [EvaluationPolicy("logging", pages.score, pages.shelf_epsilon, pages.card_epsilon, reward=pages.raw_score)]
    for number, (name, epsilon) in enumerate(named):
        wanted.append(_policy(name, epsilon, pages, items, bundle))
        tick(number + 1, len(named), name)
    tick = stages.stage("Estimating")
    rows = evaluate_policies(
        pages,
        wanted,
        level=settings.evaluation.level,
        rng=np.random.default_rng(settings.seed),
        q_logged=pages.raw_score,
        on_progress=tick,
    )
    report = {
        "seed": settings.seed,
        "policies": [row.as_row() for row in rows],
        "log": {
            "pages": len(pages),
            "seen": int(pages.seen.sum()),
            "streams": float(pages.reward[pages.seen].sum()),
        },
        "replay": None,
        "configuration": settings.model_dump(exclude={"serve"}),
        "note": "A ranking of the logged candidates only: what other candidates would have earned is not in the log.",
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out, pages=pages)
    return report


def train_bundle(
    log: Path, base: Path, out: Path, settings: Settings, stages: Stages, until: datetime | None = None
) -> dict[str, Any]:
    """Trains a reward model on an exported log and writes the bundle `out`, the rest copied from `base`.

    until: only pages decided before, so that the later ones can judge the model. Returns what was measured of it.
    """
    from bart.bundle import open_bundle, refuse_foreign

    bundle = open_bundle(base)
    refuse_foreign(out)
    same_batch(log, bundle)
    items = _items(bundle)
    if next(pages_between(log, items, until=until), None) is None:
        raise DataError(f"{log} holds no closed page in the time asked for; expected pages to learn from")
    return retrain(bundle, items, lambda: pages_between(log, items, until=until), out, settings, stages)


def retrain(
    bundle: Bundle,
    items: ItemTable,
    batches: Callable[[], Iterable[PageBatch]],
    out: Path,
    settings: Settings,
    stages: Stages,
) -> dict[str, Any]:
    """A new bundle at `out`: the reward model learns on from that of `bundle`, the rest is copied; its metrics.

    batches: gives the pages anew at every call. A bundle whose model has other features or settings is not continued:
    learning then starts from the prior.
    """
    from bart.bundle import write_bundle
    from bart.reward_model import RewardModel
    from bart.training import TrainingConfig, train

    tick = stages.stage("Learning from the log")
    config = reward_config(settings, items)
    known = bundle.folder("reward") / MODEL
    base = RewardModel.load(known) if known.is_dir() else None
    if base is None or base.config != config:
        base = RewardModel.prior(config)
    result = train(
        batches,
        items,
        TrainingConfig(reward=config, weighting=settings.reward.weighting, passes=settings.reward.passes),
        base=base,
        progress=tick,
    )
    metrics = result.metrics.as_dict()
    with write_bundle(
        out,
        created_at=now(),
        configuration=settings.model_dump(exclude={"serve"}),
        metrics={**bundle.metrics, "reward": metrics},
    ) as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        save_reward(result.model, items, folder / "reward")
    return metrics


def evaluate_open_bandit(settings: Settings, out: Path | None, stages: Stages) -> dict[str, Any]:
    """Both directions of the Open Bandit sample; written to `out`/open_bandit.json where it is given."""
    import json

    from simulator.datasets.open_bandit import evaluate

    tick = stages.stage("Open Bandit, both directions")
    report = evaluate(np.random.default_rng(settings.seed), level=settings.evaluation.level)
    tick(1, 1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draft = out / ".open_bandit.json.new"
        draft.write_text(json.dumps(report, indent=1) + "\n")
        draft.replace(out / "open_bandit.json")
    return report


def parse_policy(text: str) -> tuple[str, float]:
    """Name (a bundle's path, or popularity) and epsilon, 0 where none is given."""
    name, colon, rate = text.rpartition(":")
    if not colon:
        return text, 0.0
    try:
        epsilon = float(rate)
    except ValueError:
        return text, 0.0  # a colon of the path
    if not 0 <= epsilon <= 1:
        raise DataError(f"--policy {text!r} has epsilon {epsilon}; expected a number in [0, 1]")
    return name, epsilon


def pages_between(
    log: Path, items: ItemTable, since: datetime | None = None, until: datetime | None = None
) -> Iterator[PageBatch]:
    """Closed pages of an exported log decided from `since` on and before `until`, batch by batch."""
    from bart.log_pages import read_pages

    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    for batch in read_pages(log, items):
        keep = np.ones(len(batch), dtype=np.bool_)
        if since is not None:
            keep &= batch.at_s >= since.timestamp()
        if until is not None:
            keep &= batch.at_s < until.timestamp()
        if keep.any():
            yield batch if keep.all() else batch.take(np.flatnonzero(keep))


def read_all(log: Path, items: ItemTable, since: datetime | None = None, until: datetime | None = None) -> PageBatch:
    """The same pages at once. Raises DataError where there is none."""
    from bart.types import PageBatch

    parts = list(pages_between(log, items, since, until))
    if not parts:
        span = " in the time asked for" if since or until else ""
        raise DataError(f"{log} holds no closed page{span}; expected an exported log with feedback windows closed")
    return PageBatch.concat(parts)


def moment(text: str | None, name: str) -> datetime | None:
    """A date or time in UTC as given to an option; DataError for anything else."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{name} is {text!r}; expected a date or time such as 2026-03-01 or 2026-03-01T12:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)


def same_batch(log: Path, bundle: Bundle) -> None:
    """Raises BundleError unless the log was written with this bundle's batch: other vectors cannot be compared."""
    import pyarrow.dataset as ds

    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    files = sorted(str(file) for file in log.glob("date=*/*.parquet"))
    logged: set[str] = set()
    if files:
        logged = set(
            ds.dataset(files, format="parquet").to_table(columns=["batch_id"])["batch_id"].unique().to_pylist()
        )
    if logged - {"", bundle.batch_id}:
        other = sorted(logged - {"", bundle.batch_id})[0]
        raise BundleError(
            f"{log} was written with batch {other}, {bundle.path} is of batch {bundle.batch_id}: vectors of different "
            "batches cannot be compared; expected a bundle of the log's own batch"
        )


def _policy(name: str, epsilon: float, pages: PageBatch, items: ItemTable, bundle: Bundle) -> EvaluationPolicy:
    from bart.baseline_scorers import PopularityScorer
    from bart.bundle import open_bundle
    from bart.ope.policies import EvaluationPolicy
    from bart.scorer import load_scorer

    if name == "popularity":
        score = PopularityScorer(items).score_batch(pages)
        called = f"popularity, epsilon {epsilon:g}" if epsilon else "popularity"
        return EvaluationPolicy(called, score, epsilon, epsilon, reward=pages.raw_score)
    other = open_bundle(Path(name))
    if other.batch_id != bundle.batch_id:
        raise BundleError(
            f"{name} is of batch {other.batch_id}, {bundle.path} of batch {bundle.batch_id}: vectors of different "
            "batches cannot be compared; expected bundles of one batch"
        )
    score = load_scorer(other.folder("reward"), items).score_batch(pages)
    return EvaluationPolicy(f"{name}, epsilon {epsilon:g}", score, epsilon, epsilon)


def _bundle_of(log: Path, named: list[tuple[str, float]]) -> Bundle:
    from bart.bundle import open_bundle

    for name, _ in named:
        if name != "popularity":
            return open_bundle(Path(name))
    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    beside = log.parent / "bundle"
    if not beside.is_dir():
        raise DataError(f"{beside} does not exist; name the bundle that served {log} with --policy")
    return open_bundle(beside)


def _items(bundle: Bundle) -> ItemTable:
    from bart.item_store import load_items

    return load_items(bundle.folder("items"))
