"""A reward model learnt on shards and merged, beside one pass over all of it: value of its pages and log loss.

Each seed is a world of the simulator, a log of a poor model with epsilon .2, and fresh visits with exact values; the
log loss is on the last tenth of the log. Shards are by listener. `one pass` learns all pages in order; `part` is the
first shard alone; `merged` is bart.learning.shards.merge; `sums` adds up what coin betting keeps. Intervals are
Student's, 95 %, over seeds, of the difference to the one pass of the same seed and learner.

    python -m benchmarks shards        python benchmarks/shards.py --seeds 1 2 --pages 8000 --rows rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bart.learning.metrics import log_loss
from bart.learning.shards import merge
from bart.learning.training import TrainingConfig, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import PageBatch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks._reward_world import Study, poor_score

SHARDS = (2, 4, 8)
LEARNERS = {"coin": None, "adaptive": 0.02}
Row = dict[str, Any]


def sums(base: RewardModel, parts: list[RewardModel]) -> RewardModel:
    """Coin betting's sums added up over the parts, and the bets that follow."""
    before = base.state().astype(np.float64)
    states = [part.state().astype(np.float64) for part in parts]
    out = parts[0].copy()
    after = before.copy()
    for column in (1, 2, 4):
        after[:, column] += np.sum([state[:, column] - before[:, column] for state in states], axis=0)
    for column in (3, 5):
        after[:, column] = np.max([state[:, column] for state in states], axis=0)
    ratio = states[0][:, 0] / np.where(bet(states[0]) == 0, np.inf, bet(states[0]))
    scale = float(np.median(ratio[np.argsort(-states[0][:, 2])[:2000]]))  # the mean norm of examples, divided by
    moved = (after != before).any(axis=1)
    after[moved, 0] = scale * bet(after)[moved]
    out.state()[moved] = after[moved].astype(np.float32)
    return out


def bet(state: np.ndarray) -> np.ndarray:
    """[n], what coin betting stakes: (4 + gain) * gradients / (unit * (unit + their sizes))."""
    unit = state[:, 5] * state[:, 3]
    below = unit * (unit + state[:, 2])
    out: np.ndarray = np.divide((4.0 + state[:, 4]) * state[:, 1], below, out=np.zeros(len(state)), where=below > 0)
    return out


def study(seed: int, n_pages: int, world: dict[str, int], learners: list[str]) -> Iterator[Row]:
    """All rows of one seed."""
    made = Study.make("misspecified", seed, **world)
    rng = np.random.default_rng([seed, 1])
    visits = made.visits(n_pages, rng)
    log = made.log(visits, poor_score(made.items, visits), 0.2, rng)
    cut = int(0.9 * n_pages)
    learnt, held = log.take(np.arange(cut)), log.take(np.arange(cut, n_pages))
    cards = seen_cards(held)
    reward = held.reward[cards.page, cards.row, cards.column]
    number = np.array([zlib.crc32(user.encode()) for user in learnt.user_id.tolist()])

    for learner in learners:
        rate = LEARNERS[learner]
        config = RewardConfig(FeatureSchema(dimension=made.items.dimension), learning_rate=rate)
        base = RewardModel.prior(config)

        def learn(pages: PageBatch, config: RewardConfig = config, base: RewardModel = base) -> RewardModel:
            return train(lambda: [pages], made.items, TrainingConfig(config, passes=1, holdout=0.0), base=base).model

        def row(what: str, shards: int, model: RewardModel, name: str = learner) -> Row:
            examples = card_examples(ItemFeatures(model.schema, made.items), held, cards)
            value = made.value(Scorer.compile(model, made.items).score_batch(made.fresh))
            loss = log_loss(reward, model.predict(examples))
            return {
                "seed": seed, "learner": name, "what": what, "shards": shards, "value": value, "log loss": loss
            }  # fmt: skip

        yield row("prior", 0, base)
        yield row("one pass", 1, learn(learnt))
        for k in SHARDS:
            parts = [learn(learnt.take(np.flatnonzero(number % k == i))) for i in range(k)]
            yield row("part", k, parts[0])
            yield row("merged", k, merge(base, parts))
            if rate is None:
                yield row("sums", k, sums(base, parts))


def show(rows: list[Row]) -> None:
    """The table, and differences to the one pass."""
    pages = {(r["seed"], r["learner"]): r for r in rows if r["what"] == "one pass"}
    kinds = dict.fromkeys((r["learner"], r["what"], r["shards"]) for r in rows)
    print(f"{'learner':<16}{'what':<10}{'shards':>7}{'value':>9}{'log loss':>10}   difference of value    of log loss")
    for learner, what, shards in kinds:
        mine = [r for r in rows if (r["learner"], r["what"], r["shards"]) == (learner, what, shards)]
        text = f"{learner:<16}{what:<10}{shards:>7}"
        text += "".join(f"{np.mean([r[name] for r in mine]):>9.4f} " for name in ("value", "log loss"))
        for name in ("value", "log loss"):
            gap = np.array([r[name] - pages[r["seed"], learner][name] for r in mine])
            half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
            text += f"   {gap.mean():+.4f} +- {half:.4f}"
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--pages", type=int, default=8000)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=list(LEARNERS))
    for name, default in (("listeners", 500), ("tracks", 5_000), ("fresh", 2_000)):
        parser.add_argument(
            f"--{name}", type=int, default=default, help="of the world" if name != "fresh" else "visits"
        )
    parser.add_argument("--rows", type=Path, help="file of rows to add to")
    parser.add_argument("--show", type=Path, help="only the table of such a file")
    asked = parser.parse_args()
    if asked.show:
        show([json.loads(line) for line in asked.show.read_text().splitlines()])
        return
    rows: list[Row] = []
    for seed in asked.seeds:
        started = time.process_time()
        world = {name: getattr(asked, name) for name in ("listeners", "tracks", "fresh")}
        for row in study(seed, asked.pages, world, asked.learners):
            rows.append(row)
            if asked.rows:
                with asked.rows.open("a") as file:
                    print(json.dumps(row), file=file)
        print(f"seed {seed}: {time.process_time() - started:.0f} s of CPU", flush=True)
    show(rows)


if __name__ == "__main__":
    main()
