"""What each group of features is worth to the page, on runs of `bart demo`.

Of each run the pages before the held-out ones are learnt from, by the defaults of `bart train`, and the greedy page of
every model is valued in closed form on a share of the held-out ones, from the logged candidates. *Way* is
(value - random page) / (page by true scores - random page). "Before" is the model without features of candidates and
without weights for items and artists, on the same log.

    bart demo --seed 11 --out RUN
    python -m benchmarks reward_features --run RUN ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from api.jobs.demo import world_config
from api.jobs.train import read_all
from api.run.settings import Settings
from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.learning.training import TrainingConfig, train
from bart.page.batch import batch_decide
from bart.reward.features import FeatureSchema
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, ItemTable, PageBatch
from recommender.features.definitions import DEFINITIONS, NAMES
from simulator.loop.truth import page_values
from simulator.reading.browsing import BrowsingParams, world_params
from simulator.world.appeal import batch_appeal
from simulator.world.world import World

DRAWS = 8  # of the random page


@dataclass(frozen=True)
class Judged:
    """Pages to learn from and pages to judge by, with their truth: appeal [N], patience [b]."""

    world: World
    items: ItemTable
    learnt: PageBatch
    judged: PageBatch
    appeal: Floats
    patience: Floats
    browsing: BrowsingParams

    def value(self, score: Floats, epsilon: float = 0.0, draws: int = 1) -> float:
        """Expected streams of a displayed page by these scores."""
        pages, (_, rows, columns) = self.judged, self.judged.card.shape
        total = 0.0
        for number in range(draws):
            rng = np.random.default_rng(number)
            _, card = batch_decide(
                pages.offset, pages.shelf, score, rows, columns, epsilon, epsilon, rng, raw_score=score
            )
            values = page_values(self.appeal, pages.offset, card, self.browsing, patience=self.patience)
            total += float(values.mean())
        return total / draws


def judged(run: Path, every: int) -> Judged:
    """The pages of a run, every `every`-th held-out one to judge by."""
    report = json.loads((run / "report.json").read_text())
    items = load_items(open_bundle((run / "bundle").resolve()).folder("items"))
    cut = datetime.fromisoformat(report["evaluated_from"])
    learnt, held = read_all(run / "log", items, until=cut), read_all(run / "log", items, since=cut)
    learnt, held = (pages.take(np.argsort(pages.at_s, kind="stable")) for pages in (learnt, held))
    held = held.take(np.arange(0, len(held), every))
    asked = report["configuration"]["world"]
    config = world_config(Settings.of(report["configuration"]), containers="containers" in asked)
    world = World.make(config, np.random.default_rng(report["seed"]).spawn(6)[0])
    patience = world.population.patience[world.listener_of(held.user_id)]
    appeal = batch_appeal(world, held, items.item_id)
    return Judged(world, items, learnt, held, appeal, patience, world_params(asked["browsing"]))


def models(parts: bool) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Name, levels and ids of each model. parts: by group, too."""
    yield "before", (), ()
    yield "all", NAMES, IDS
    if not parts:
        return
    yield "features alone", NAMES, ()
    yield "items and artists alone", (), IDS
    for group in dict.fromkeys(one.group for one in DEFINITIONS):
        own = tuple(one.name for one in DEFINITIONS if one.group == group)
        yield f"before and {group}", own, ()
        yield f"all without {group}", tuple(name for name in NAMES if name not in own), IDS


def main() -> None:
    """Prints a row for each run and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="of the held-out pages, judge by every so-manieth")
    parser.add_argument("--pages", type=int, nargs="*", default=[], help="also learn from as many of the first pages")
    parser.add_argument("--parts", action="store_true", help="by group of features, too")
    options = parser.parse_args()
    print("run, pages, model: way, value, log loss, AUC, mean prediction / mean reward")
    for run in options.run:
        of = judged(run, options.every)
        random = of.value(np.zeros(len(of.appeal)), 1.0, DRAWS)
        best = of.value(of.appeal)
        for pages in (*options.pages, len(of.learnt)):
            learnt = of.learnt.take(np.arange(min(pages, len(of.learnt))))
            for name, levels, ids in models(options.parts and pages == len(of.learnt)):
                schema = FeatureSchema(dimension=of.items.dimension, order=2, levels=levels, ids=ids)
                config = TrainingConfig(reward=RewardConfig(schema))
                found = train(lambda pages=learnt: [pages], of.items, config, base=RewardModel.prior(config.reward))
                value = of.value(Scorer.compile(found.model, of.items).score_batch(of.judged))
                told, way = found.metrics.holdout, (value - random) / (best - random)
                if told is None:
                    raise SystemExit(f"{run} has no page held out of training")
                level = told.mean_prediction / told.mean_reward
                row = f"{way:.3f}, {value:.3f}, {told.log_loss:.4f}, {told.auc:.3f}, {level:.2f}"
                print(f"{run.name}, {len(learnt):,}, {name}: {row}", flush=True)


if __name__ == "__main__":
    main()
