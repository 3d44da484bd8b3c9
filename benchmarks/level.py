"""How far predictions stand above or below what is earned, wherever a log is cut; and the way of the greedy page.

    bart demo --out runs/demo
    python -m benchmarks level --run runs/demo [--cuts 5000 7500] [--learners all steps coin] [--shuffled]
    python -m benchmarks level --run runs/demo --new 0 2500 5000
    python -m benchmarks level --run runs/demo runs/other --earned

Each row is a model taught by the pages before the cut, from the prior: mean prediction over mean reward of the cards
seen on the next 1,000 pages (1 is right), with the error that chance alone gives it, clustered by listener; the way of
its greedy page on every 8th page of the last half, from the random page (0) to the page by true scores (1). As `bart
train` does, the latest tenth before the cut is not learnt from; `--holdout 0` learns from it as well.
`--shuffled`: the same pages in random order, so that nothing changes with time. About 2 minutes of CPU.
`--new`: a run that is new at each of these pages, after 500 of them were reported and its level was followed.
`--earned`: no model. What pages before a cut earned a seen card, all alike or the later ones more, over what the next
1,000 pages earn, at every 500th page from 5,000 on of all runs: how far any level may be off that the past tells.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from api.jobs.build import prior_model
from api.jobs.demo import world_config
from api.jobs.train import read_all
from api.run.settings import Settings
from api.upkeep.learning import LEVEL_CARDS
from bart.item_store import load_items
from bart.learning.online import OnlineConfig, OnlineLearner
from bart.learning.training import TrainingConfig, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.identity import IDS
from bart.reward.model import LEARNING_RATE, RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, ItemTable, PageBatch
from recommender.features.definitions import NAMES
from simulator.loop.truth import true_value
from simulator.reading.browsing import world_params
from simulator.world.appeal import batch_appeal
from simulator.world.world import World

CUTS = (5_000, 6_000, 7_000, 7_500, 8_000, 8_719, 9_000, 9_500)
AHEAD = 1_000  # pages that are predicted
FIRST_CUT, EVERY = 5_000, 500  # of the cuts without a model
# learning rate, passes, whether it reads features and identities
LEARNERS = {"coin": (None, 2, False), "steps": (LEARNING_RATE, 4, False), "all": (LEARNING_RATE, 4, True)}


def taught(pages: PageBatch, items: ItemTable, learner: str, holdout: float = 0.0) -> RewardModel:
    """The model of a learner after these pages but for a share of them, the latest, from the prior."""
    rate, passes, everything = LEARNERS[learner]
    levels, ids = (NAMES, IDS) if everything else ((), ())
    config = RewardConfig(FeatureSchema(items.dimension, order=2, levels=levels, ids=ids), learning_rate=rate)
    training = TrainingConfig(config, passes=passes, holdout=holdout)
    return train(lambda: [pages], items, training, base=RewardModel.prior(config)).model


def level(model: RewardModel, items: ItemTable, pages: PageBatch) -> tuple[float, float]:
    """Mean prediction over mean reward, and the relative standard error of that reward by listener."""
    cards = seen_cards(pages)
    prediction = model.predict(card_examples(ItemFeatures(model.schema, items), pages, cards))
    reward = pages.reward[cards.page, cards.row, cards.column]
    _, user = np.unique(pages.user_id[cards.page].astype(str), return_inverse=True)
    away = np.bincount(user, weights=reward - reward.mean())
    return float(prediction.sum() / reward.sum()), float(np.sqrt((away**2).sum()) / reward.sum())


def forecasts(pages: PageBatch) -> dict[str, list[float]]:
    """By how pages are counted: what those before each cut earned a seen card, over what the next pages earn."""
    cards = seen_cards(pages)
    earned = np.bincount(cards.page, pages.reward[cards.page, cards.row, cards.column], minlength=len(pages))
    seen = np.bincount(cards.page, minlength=len(pages))
    out: dict[str, list[float]] = {}
    for cut in range(FIRST_CUT, len(pages) - AHEAD + 1, EVERY):
        ahead = slice(cut, cut + AHEAD)
        actual = earned[ahead].sum() / seen[ahead].sum()
        age = cut - 1.0 - np.arange(cut)
        weight = {"all": np.ones(cut), "all but the latest tenth": 1.0 * (age >= 0.1 * cut)}
        weight |= {"the latest tenth": 1.0 * (age < 0.1 * cut)}
        weight |= {f"fading over {pages:,} pages": np.exp(-age / pages) for pages in (600, 1_200, 2_400, 4_800)}
        for name, w in weight.items():
            out.setdefault(name, []).append(float(w @ earned[:cut] / (w @ seen[:cut]) / actual))
    return out


def print_forecasts(runs: Sequence[Path]) -> None:
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, values in forecasts(read_all(run / "log", load_items(run / "bundle" / "items"))).items():
            found.setdefault(name, []).extend(values)
    print("| pages before | cuts | mean ratio | root mean square | beyond 10 % | furthest |\n|---|---|---|---|---|---|")
    for name, values in found.items():
        log = np.log(values)
        spread, far = np.sqrt((log**2).mean()), np.exp(log[np.argmax(np.abs(log))])
        beyond = (np.abs(np.array(values) - 1) > 0.1).mean()
        print(f"| {name} | {len(log)} | {np.exp(log.mean()):.3f} | {spread:.3f} | {beyond:.2f} | {far:.3f} |")


def followed(pages: PageBatch, items: ItemTable, settings: Settings) -> list[RewardModel]:
    """The models of a new run whose level follows these pages, twenty at a time: the first, then all published."""
    model = prior_model(settings, items, NAMES)
    found, config = [model], OnlineConfig(min_examples=LEVEL_CARDS, steps=False)
    learner = OnlineLearner(model, items, lambda published: found.append(published.model), 0.0, config)
    for start in range(0, len(pages), 20):
        part = np.arange(start, min(start + 20, len(pages)))
        learner.learn(pages.take(part), (start + 20) * config.min_s)
    return found


class Way:
    """The way of a score from the random page to the page by true scores, on given visits."""

    def __init__(self, world: World, items: ItemTable, visits: PageBatch, browsing: str) -> None:
        self.visits, self._browsing = visits, world_params(browsing)
        self._appeal = batch_appeal(world, visits, items.item_id)
        self._patience = world.population.patience[world.listener_of(visits.user_id)]
        self._least, self._most = self._value(np.zeros(len(self._appeal)), 1.0), self._value(self._appeal, 0.0)

    def of(self, score: Floats) -> float:
        return (self._value(score, 0.0) - self._least) / (self._most - self._least)

    def _value(self, score: Floats, epsilon: float) -> float:
        rng, known = np.random.default_rng(0), self._patience
        return true_value(self.visits, self._appeal, score, epsilon, epsilon, self._browsing, rng, patience=known)[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, nargs="+", default=[Path("runs/demo")])
    parser.add_argument("--earned", action="store_true", help="what pages earned before a cut and after it, no model")
    parser.add_argument("--cuts", type=int, nargs="+", default=CUTS)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=["all"])
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--holdout", type=float, default=TrainingConfig().holdout)
    parser.add_argument("--new", type=int, nargs="+", help="pages at which a run is new, instead of cuts")
    asked = parser.parse_args()
    if asked.earned:
        print_forecasts(asked.run)
        return 0
    if len(asked.run) > 1:
        parser.error("--run names several runs; expected one, but with --earned")
    (asked.run,) = asked.run
    if not (asked.run / "report.json").is_file():
        print(f"level: {asked.run} is no demonstration; expected what bart demo --out made", file=sys.stderr)
        return 2
    configuration = json.loads((asked.run / "report.json").read_text())["configuration"]
    settings = Settings.of(configuration)
    items = load_items(asked.run / "bundle" / "items")
    pages = read_all(asked.run / "log", items)
    if asked.new:
        print("| new at page | promised / earned, first | after 500 pages | error by chance |\n|---|---|---|---|")
        for start in asked.new:
            models = followed(pages.take(np.arange(start, start + 500)), items, settings)
            ahead = pages.take(np.arange(start + 500, start + 500 + AHEAD))
            (first, _), (last, error) = (level(model, items, ahead) for model in (models[0], models[-1]))
            print(f"| {start:,} | {first:.3f} | {last:.3f} | {error:.3f} |", flush=True)
        return 0
    half = len(pages) // 2
    config = world_config(settings, containers="containers" in configuration["world"])  # older runs have none
    world = World.make(config, np.random.default_rng(settings.seed).spawn(6)[0])
    way = Way(world, items, pages.take(np.arange(half, len(pages), 8)), settings.world.browsing)
    if asked.shuffled:
        pages = pages.take(np.random.default_rng(settings.seed).permutation(half + AHEAD))
    print("| pages | learner | predicted / earned | error by chance | way |\n|---|---|---|---|---|")
    for cut in asked.cuts:
        for learner in asked.learners:
            model = taught(pages.take(np.arange(cut)), items, learner, asked.holdout)
            found, error = level(model, items, pages.take(np.arange(cut, cut + AHEAD)))
            value = way.of(Scorer.compile(model, items).score_batch(way.visits))
            print(f"| {cut:,} | {learner} | {found:.3f} | {error:.3f} | {value:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
