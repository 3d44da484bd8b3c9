"""Training the reward model on an exported log: the job behind `bart train`, and the learning of every retraining."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.jobs.build import ANCHOR, MODEL, prior_model, reward_config, save_reward
from api.run.clock import stamp, utc_now
from bart.errors import BundleError, DataError
from bart.log.record.record import to_us

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.bundle import Bundle
    from bart.reward.model import RewardModel
    from bart.types import ItemTable, PageBatch

ANEW = "learnt_anew_us"  # of a bundle's metrics: when its model began to learn from nothing


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
    pages = lambda: pages_between(log, items, until=until)  # noqa: E731
    return retrain(bundle, items, pages, out, settings, stages, holdout=settings.reward.holdout)


def retrain(
    bundle: Bundle,
    items: ItemTable,
    batches: Callable[[], Iterable[PageBatch]],
    out: Path,
    settings: Settings,
    stages: Stages,
    *,
    holdout: float = 0.1,
    judge: Callable[[RewardModel, Path, dict[str, Any]], dict[str, Any]] | None = None,
    forget_until_us: int = 0,
) -> dict[str, Any]:
    """A new bundle at `out`: the reward model learns on from that of `bundle`, the rest is copied; its metrics.

    batches: gives the pages anew at every call. A bundle whose model has other features or settings is not continued:
    learning then starts from the prior. holdout: share of the pages, the latest, that are measured on and not learnt
    from. forget_until_us: of the latest erasure, after which a model that learnt before is not continued. judge: gets
    the model, the folder of the compiled scorer and the metrics; what it returns stands in the
    manifest under "retrain".
    """
    from bart.bundle import write_bundle
    from bart.learning.training import TrainingConfig, train

    tick = stages.stage("Learning from the log")
    began_us = to_us(utc_now())
    config = reward_config(settings, items, feature_names(bundle))
    base = continued(bundle, items, settings, forget_until_us)
    parent = None if base is None else bundle.model_id
    base = base or prior_model(settings, items, feature_names(bundle))
    asked = settings.reward
    result = train(
        batches,
        items,
        TrainingConfig(
            reward=config,
            weighting=asked.weighting,
            cap=asked.cap,
            cap_percentile=asked.cap_percentile if asked.cap_percentile < 100 else None,
            passes=asked.passes,
            holdout=holdout,
        ),
        base=base,
        progress=tick,
    )
    metrics = result.metrics.as_dict()
    told = {**{k: v for k, v in bundle.metrics.items() if k not in ("retrain", "online")}, "reward": metrics}
    if parent is None:
        told[ANEW] = began_us
    with write_bundle(
        out,
        created_at=stamp(),
        configuration=settings.as_dict(leave_out={"serve"}),
        metrics=told,
        parent=parent,
        learnt_until_s=result.metrics.holdout_from_s,
        extends=bundle.batch_id,  # the rest is copied: it stays the same batch
    ) as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        save_reward(result.model, items, folder / "reward")
        if judge is not None:
            told["retrain"] = judge(result.model, folder / "reward", metrics)
    return metrics


def continued(bundle: Bundle, items: ItemTable, settings: Settings, forget_until_us: int = 0) -> RewardModel | None:
    """The bundle's model, to go on from; None where it has none, or one of other features or settings, or one that
    began to learn before the latest erasure.

    What was learnt online is provisional: the model before it is gone on from, with the whole feedback of closed pages.
    """
    from bart.reward.model import RewardModel

    if forget_until_us and forget_until_us >= _began_us(bundle):
        return None
    reward = bundle.folder("reward")
    known = reward / (ANCHOR if (reward / ANCHOR).is_dir() else MODEL)
    model = RewardModel.load(known) if known.is_dir() else None
    config = reward_config(settings, items, feature_names(bundle))
    return model if model is not None and model.config == config else None


def _began_us(bundle: Bundle) -> int:
    """When the model of a bundle began to learn from nothing, microseconds; 0 where nobody knows."""
    known = bundle.metrics.get(ANEW)
    if known is not None:
        return int(known)
    return to_us(bundle.made_at) if bundle.parent is None else 0


def feature_names(bundle: Bundle) -> tuple[str, ...]:
    """Names of the features of the bundle's candidates, search results among them; none where it was built without."""
    from bart.types.caller import CALLER
    from recommender.features.definitions import NAMES
    from recommender.features.tables import FILE

    return (*NAMES, *CALLER) if (bundle.folder("listener") / FILE).is_file() else ()


def pages_between(
    log: Path, items: ItemTable, since: datetime | None = None, until: datetime | None = None
) -> Iterator[PageBatch]:
    """Closed pages of an exported log decided from `since` on and before `until`, batch by batch."""
    from bart.log.outcomes.pages import read_pages, recorded_reward

    if not log.is_dir():
        raise DataError(f"{log} is not a directory; expected an exported log (bart log export)")
    for batch in read_pages(log, items, reward=recorded_reward(log)):
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


def _items(bundle: Bundle) -> ItemTable:
    from bart.item_store import load_items

    return load_items(bundle.folder("items"))
