"""What features and identities are worth where appeal has another form than in the simulator's world.

The visits, candidates, features and shown pages are those of a run of `bart demo`, whose policy does not learn; who
streams what is drawn anew by each of `benchmarks._other_appeal`. "Before" is coin betting in two passes without
features of candidates and identities, the learner of version 0.1; "now" is what `bart train` does by default.

    bart demo --seed 11 --out RUN
    python -m benchmarks other_worlds --run RUN
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from bart.learning.training import TrainingConfig, train
from bart.page.batch import batch_decide
from bart.reward.features import FeatureSchema
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, Ints, ItemTable, PageBatch
from benchmarks._other_appeal import APPEALS, Candidates, appeal_of
from benchmarks.reward_features import Judged, judged
from recommender.features.definitions import NAMES
from simulator.loop.truth import page_appeal, page_values
from simulator.reading.browsing import browse
from simulator.world.world import World

MEAN = 0.06  # appeal of a candidate


def read(of: Judged, world: World, appeal: Floats, rng: np.random.Generator) -> PageBatch:
    """The pages to learn from, as listeners of this appeal [N] would have read them."""
    pages = of.learnt
    patience = world.population.patience[world.listener_of(pages.user_id)]
    on_page, present = page_appeal(appeal, pages.offset, pages.card)
    found = browse(on_page, present, of.browsing, rng, patience=patience)
    reward = (found.streamed & found.seen).astype(np.float64)
    return replace(pages, displayed=found.displayed, seen=found.seen, reward=reward)


def values(of: Judged, appeal: Floats, score: Floats, epsilon: float = 0.0) -> Floats:
    """[b] expected streams of the judged pages by these scores."""
    pages, (_, rows, columns) = of.judged, of.judged.card.shape
    rng = np.random.default_rng(0)
    _, card = batch_decide(pages.offset, pages.shelf, score, rows, columns, epsilon, epsilon, rng, raw_score=score)
    return page_values(appeal, pages.offset, card, of.browsing, patience=of.patience)


def taught(pages: PageBatch, items: ItemTable, now: bool) -> Scorer:
    schema = FeatureSchema(items.dimension, order=2, levels=NAMES if now else (), ids=IDS if now else ())
    config = RewardConfig(schema) if now else RewardConfig(schema, learning_rate=None)
    training = TrainingConfig(config) if now else TrainingConfig(config, passes=2)
    return Scorer.compile(train(lambda: [pages], items, training, base=RewardModel.prior(config)).model, items)


def interval(difference: Floats, listener: Ints) -> float:
    """Half a 95 % interval of the mean of differences [b], clustered by listener."""
    away = np.bincount(listener, weights=difference - difference.mean())
    return 1.96 * float(np.sqrt((away**2).sum())) / len(difference)


def main() -> None:
    """Prints a row for each run and form of appeal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", type=Path, required=True)
    parser.add_argument("--appeals", nargs="+", choices=APPEALS, default=list(APPEALS))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| run | appeal | random | before | now | true scores | now - before | way before | way now |")
    print("|---|---|---|---|---|---|---|---|---|")
    for run in options.run:
        of = judged(run, 1)
        page, row, column = np.nonzero(of.learnt.card >= 0)
        shown = of.learnt.offset[page] + of.learnt.card[page, row, column]
        both = [
            Candidates.of(of.world, pages, candidate, of.items.item_id)
            for pages, candidate in ((of.learnt, shown), (of.judged, np.arange(len(of.judged.item))))
        ]
        x = Candidates(*(np.concatenate([getattr(one, name) for one in both]) for name in both[0].__dataclass_fields__))
        for name in options.appeals:
            appeal = appeal_of(name, of.world, x, MEAN, options.seed)
            of_learnt = np.zeros(len(of.learnt.item))
            of_learnt[shown], of_judged = appeal[: len(shown)], appeal[len(shown) :]
            pages = read(of, of.world, of_learnt, np.random.default_rng([options.seed, 7]))
            before, now = (
                values(of, of_judged, taught(pages, of.items, new).score_batch(of.judged)) for new in (False, True)
            )
            random, best = values(of, of_judged, np.zeros(len(of_judged)), 1.0), values(of, of_judged, of_judged)
            half = interval(now - before, of.world.listener_of(of.judged.user_id))
            ways = [(v.mean() - random.mean()) / (best.mean() - random.mean()) for v in (before, now)]
            row_of = " | ".join(f"{v.mean():.3f}" for v in (random, before, now, best))
            gain = f"{(now - before).mean():+.3f} +- {half:.3f}"
            print(f"| {run.name} | {name} | {row_of} | {gain} | {ways[0]:.3f} | {ways[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
