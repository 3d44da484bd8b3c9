"""Whether intervals hold the truth where the model that is judged has weights for listeners and items.

A world of 600 listeners and its service. A model learns from pages of the prior, and serves; of each log it shows pages
on which the next model goes on learning (features and identities on, the same listeners and items), and later pages on
which both are judged as `bart retrain` judges: `exposure_dr` of the new model and of the serving one at the logged
exploration, and the gate's difference. The listeners of the judged pages are drawn with replacement from the 600, each
draw a listener of its own, so that the truth is the value over all of them, in closed form. One row a log, saved as it
comes; a run goes on where the last one stopped.

    python -m benchmarks learnt_coverage --rows FILE --logs 40
    python -m benchmarks learnt_coverage --rows FILE --report
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from api.jobs import gates
from bart.learning.training import TrainingConfig, train
from bart.page.exploration import Exploration
from bart.reward.model import RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, Ints, PageBatch
from simulator.loop.loop import loop_training
from simulator.loop.rounds import Offers, decide, gather, read
from simulator.loop.service import Service, make_service
from simulator.loop.values import Judge
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import world_params
from simulator.world.appeal import batch_appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World

LISTENERS, VISITS, ROWS, COLUMNS = 600, 2_400, 6, 6  # visits of each of the three parts
EXPLORES = Exploration.fixed(0.2)
LEVEL = 0.95


def part_of(offers: Offers, which: Ints) -> Offers:
    """The offers of some visits, in that order."""
    listener, context, candidates = (
        tuple(column[i] for i in which.tolist()) for column in (offers.listener, offers.context, offers.candidates)
    )
    return Offers(offers.pages.take(which), offers.seed[which], listener, context, candidates)


@dataclass(frozen=True, eq=False)
class Scene:
    """What all logs share: the service, its visits in three parts, and the model that serves."""

    service: Service
    offers: tuple[Offers, ...]
    training: TrainingConfig

    @classmethod
    def of(cls, seed: int) -> Scene:
        world_rng, service_rng, visit_rng, seed_rng = np.random.default_rng(seed).spawn(4)
        world = World.make(WorldConfig(n_listeners=LISTENERS, n_tracks=6_000, days=28), world_rng)
        service = make_service(world, service_rng)
        visits = simulate_visits(world, 3 * VISITS, visit_rng)
        page_seed = seed_rng.integers(0, 2**62, size=3 * VISITS)
        parts = []
        for first in range(0, 3 * VISITS, VISITS):
            number = np.arange(first, first + VISITS)
            names = [f"v{i}" for i in number.tolist()]
            parts.append(gather(service, visits, number, page_seed[number], names, ROWS, COLUMNS))
        return cls(service, tuple(parts), loop_training())

    @cached_property
    def appeal(self) -> tuple[Floats, ...]:
        items = self.service.items.item_id
        return tuple(batch_appeal(self.service.world, offers.pages, items) for offers in self.offers)

    @cached_property
    def serving(self) -> RewardModel:
        prior = RewardModel.prior(self.training.reward)
        shown = self.shown(0, prior, np.arange(VISITS), np.random.default_rng(0))
        return self.taught(prior, shown)

    def shown(self, part: int, model: RewardModel, which: Ints, rng: np.random.Generator) -> PageBatch:
        """Pages of some visits of a part under a model, read by their listeners."""
        offers = part_of(self.offers[part], which)
        score = Scorer.compile(model, self.service.items).score_batch(offers.pages)
        variates = rng.random((len(which), ROWS, 1 + COLUMNS))
        size = np.diff(self.offers[part].pages.offset)
        place = np.repeat(self.offers[part].pages.offset[which], size[which])
        place = place + np.arange(len(place)) - np.repeat(offers.pages.offset[:-1], size[which])
        pages = decide(offers, score, EXPLORES, variates=variates)
        return read(pages, self.service, self.appeal[part][place], world_params("W1"), rng)[0]

    def taught(self, base: RewardModel, pages: PageBatch) -> RewardModel:
        return train(lambda: [pages], self.service.items, self.training, base=base).model

    @cached_property
    def judge(self) -> Judge:
        rng = np.random.default_rng(1)
        return Judge(self.service, self.offers[2], world_params("W1"), rng.random((16, VISITS, ROWS, 1 + COLUMNS)))

    def truth(self, model: RewardModel) -> float:
        score = Scorer.compile(model, self.service.items).score_batch(self.offers[2].pages)
        return float(self.judge.values(score, EXPLORES).mean())

    def row(self, number: int) -> dict[str, Any]:
        """One log: what was estimated, and what is true."""
        rng = np.random.default_rng([7, number])
        new = self.taught(self.serving, self.shown(1, self.serving, np.arange(VISITS), rng))
        own = self.judge.listener
        drawn = rng.choice(np.unique(own), LISTENERS)
        which = [np.flatnonzero(own == one) for one in drawn.tolist()]
        pages = self.shown(2, self.serving, np.concatenate(which), rng)
        scores = [Scorer.compile(model, self.service.items).score_batch(pages) for model in (new, self.serving)]
        name = np.repeat([f"draw {k}" for k in range(LISTENERS)], [len(one) for one in which]).astype(object)
        ids = np.array([f"p{k}" for k in range(len(name))], dtype=object)
        pages = replace(pages, user_id=name, request_id=ids)  # scored before: weights go by the listener
        found = gates.compare(pages, scores[0], scores[1], LEVEL, rng)
        true = self.truth(new), self.truth(self.serving)
        both = {"candidate": (found.candidate, true[0]), "serving": (found.serving, true[1])}
        row = {k: [v.value, v.lower, v.upper, t] for k, (v, t) in both.items()}
        return {"log": number, **row, "gain": [found.gain, found.lower, found.upper, true[0] - true[1]]}


def report(rows: list[dict[str, Any]]) -> None:
    """Coverage with its exact interval, bias and width of each."""
    print("| of | logs | covers | true | estimated - true | width |\n|---|---|---|---|---|---|")
    for name in ("candidate", "serving", "gain"):
        value, lower, upper, true = np.array([row[name] for row in rows]).T
        hits, n = int(((lower <= true) & (true <= upper)).sum()), len(rows)
        low = stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
        high = stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
        off = value - true
        error = off.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        print(
            f"| {name} | {n} | {hits / n:.3f} ({low:.3f} to {high:.3f}) | {true.mean():.3f} | "
            f"{off.mean():+.4f} +- {1.96 * error:.4f} | {(upper - lower).mean():.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("learnt_coverage.jsonl"))
    parser.add_argument("--logs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1, help="of the world")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.rows.read_text().splitlines()] if asked.rows.is_file() else []
    if not asked.report and len(rows) < asked.logs:
        scene = Scene.of(asked.seed)
        with asked.rows.open("a") as out:
            for number in range(len(rows), asked.logs):
                rows.append(scene.row(number))
                out.write(json.dumps(rows[-1]) + "\n")
                out.flush()
    report(rows)


if __name__ == "__main__":
    main()
