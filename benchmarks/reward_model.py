"""What the reward model earns in truth: by order of features, by weighting, by learner; and what it recovers.

    python -m benchmarks reward_model                        all parts, seeds 1 to 5 (about 20 minutes of CPU)
    python benchmarks/reward_model.py --part orders --seeds 1 2 --rows rows.jsonl    some, rows added to a file
    python benchmarks/reward_model.py --show rows.jsonl      the tables of such a file

Values are expected streams of a displayed page of 6 x 6 by the greedy policy, exact for 2,000 fresh visits. Intervals
are Student's, 95 %, over seeds: each seed is another world, log and set of visits, the same for all that is compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bart.learning.importance import WEIGHTINGS
from bart.learning.metrics import log_loss
from bart.learning.training import TrainingConfig, TrainingResult, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, ItemTable, PageBatch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks._reward_world import Study, Truth, poor_score

ORDER_PAGES = 20_000
WEIGHTING_PAGES = 8_000
ADAPTIVE = 0.02  # learning rate of the adaptive steps that coin betting is compared with
Row = dict[str, Any]


def in_batches(pages: PageBatch, size: int = 2000) -> Callable[[], Iterator[PageBatch]]:
    return lambda: (pages.take(np.arange(k, min(k + size, len(pages)))) for k in range(0, len(pages), size))


def learn(
    log: PageBatch, items: ItemTable, order: int, *, prior: bool = False, rate: float | None = None, **options: Any
) -> TrainingResult:
    config = RewardConfig(FeatureSchema(dimension=items.dimension, order=order), learning_rate=rate)
    base = RewardModel.prior(config) if prior else None
    return train(in_batches(log), items, TrainingConfig(config, **{"passes": 2, **options}), base=base)


def excess(result: TrainingResult, log: PageBatch, items: ItemTable, chance: Floats) -> tuple[float, float]:
    """Expected log loss on the held-out pages relative to the least possible, less 1; and that least one.

    chance: [N] true probabilities at the slot. Expected over rewards, so that their chance does not blur it.
    """
    cut = result.metrics.holdout_from_s or 0
    cards = seen_cards(log, log.at_s >= cut)
    from bart.reward.features import ItemFeatures

    q = result.model.predict(card_examples(ItemFeatures(result.model.schema, items), log, cards))
    p = chance[cards.candidate] if chance.ndim == 1 else chance[cards.page, cards.row, cards.column]
    least = log_loss(p, p)
    return log_loss(p, q) / least - 1.0, least


def orders(seed: int, n_pages: int = ORDER_PAGES) -> Iterator[Row]:
    """Orders 1, 2, 3 from 20,000 pages of a poor model with epsilon .2, in the simulator's own truth."""
    study = Study.make("misspecified", seed)
    rng = np.random.default_rng([seed, 1])
    visits = study.visits(n_pages, rng)
    log = study.log(visits, poor_score(study.items, visits), 0.2, rng)
    truth = study.appeal(log)
    for name, score in (("poor", poor_score(study.items, study.fresh)), ("true appeal", study.fresh_appeal)):
        yield {"part": "orders", "seed": seed, "what": name, "value": study.value(score)}
    for name, order, options in (
        ("order 1", 1, {}),
        ("order 2", 2, {}),
        ("order 3", 3, {}),
        ("order 2, from the prior", 2, {"prior": True}),
        ("order 2, adaptive steps", 2, {"rate": ADAPTIVE}),
        ("order 3, adaptive steps", 3, {"rate": ADAPTIVE}),
    ):
        result = learn(log, study.items, order, **options)
        holdout = result.metrics.holdout
        assert holdout is not None
        score = Scorer.compile(result.model, study.items).score_batch(study.fresh)
        yield {
            "part": "orders",
            "seed": seed,
            "what": name,
            "value": study.value(score),
            "log loss": holdout.log_loss,
            "excess": excess(result, log, study.items, truth)[0],
            "auc": holdout.auc,
            "ece": holdout.ece,
        }


def weighting(seed: int, n_pages: int = WEIGHTING_PAGES) -> Iterator[Row]:
    """Three weightings, well specified and not, logged uniformly and by a skewed policy; order 2, 8,000 pages."""
    truths: tuple[Truth, ...] = ("well-specified", "misspecified")
    for truth in truths:
        study = Study.make(truth, seed)
        for logging, epsilon in (("uniform", 1.0), ("skewed", 0.1)):
            rng = np.random.default_rng([seed, 2])
            visits = study.visits(n_pages, rng)
            log = study.log(visits, poor_score(study.items, visits), epsilon, rng)
            for name in WEIGHTINGS:
                result = learn(log, study.items, 2, weighting=name)
                score = Scorer.compile(result.model, study.items).score_batch(study.fresh)
                yield {
                    "part": "weighting",
                    "seed": seed,
                    "what": f"{truth}, {logging}, {name}",
                    "value": study.value(score),
                    "effective share": result.metrics.effective_sample_size / result.metrics.counts.training_cards,
                }


def recovery(seed: int, n_pages: int = ORDER_PAGES) -> Iterator[Row]:
    """Truths inside the features: how far the log loss stays above the least possible one, by size of the log."""
    world = _planted_world()
    study = Study.make("well-specified", seed)
    rng = np.random.default_rng([seed, 3])
    visits = study.visits(n_pages, rng)
    log = study.log(visits, poor_score(study.items, visits), 0.2, rng)
    chance = study.appeal(log)
    cases = [
        ("simulated visits, 40-d, 6 % streams", study.items, log, chance, n)
        for n in (1_200, 3_600, 12_000, 20_000)
        if n <= n_pages
    ]
    for d in (8, 40):
        items = world.item_table(np.random.default_rng([seed, d]), 300, d)
        pages = world.logged_pages(np.random.default_rng([seed, d, 1]), items, 17_000)
        at_slot = world.slot_probability(pages, world.planted_logit(items, pages))
        cases += [
            (f"strong crosses, {d}-d, 31 % streams", items, pages, at_slot, n)
            for n in (1_700, 5_000, 17_000)
            if n <= n_pages
        ]
    for name, items, pages, p, n in cases:
        part = pages.take(np.arange(n))
        truth = p[: int(part.offset[-1])] if p.ndim == 1 else p[:n]
        for rate in (None, ADAPTIVE):
            result = learn(part, items, 3, rate=rate, holdout=0.15)
            above, least = excess(result, part, items, truth)
            counts = result.metrics.counts
            yield {
                "part": "recovery",
                "seed": seed,
                "what": f"{name}, {round(counts.training_cards, -3):,} cards, {'coin' if rate is None else 'adaptive'}",
                "excess": above,
                "least": least,
            }


PARTS = {"orders": orders, "weighting": weighting, "recovery": recovery}


def show(rows: list[Row]) -> None:
    """Means with intervals over seeds, and paired differences to the first of each group."""
    for part in PARTS:
        found: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row["part"] == part:
                found[row["what"]].append(row)
        if not found:
            continue
        names = [k for k in next(iter(reversed(found.values())))[0] if k not in ("part", "seed", "what")]
        seeds = sorted({row["seed"] for row in rows if row["part"] == part})
        print(f"\n{part}, seeds {', '.join(map(str, seeds))}\n\n| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for what, own in found.items():
            cells = [_interval([row[name] for row in own if name in row]) for name in names]
            print(f"| {what} | {' | '.join(cells)} |")


def _interval(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.4f} ± {half:.4f}"


def _planted_world() -> Any:
    """The small world of the tests."""
    spec = importlib.util.spec_from_file_location(
        "reward_world", Path(__file__).resolve().parent.parent / "tests" / "support" / "reward_world.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("reward_world", module)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--pages", type=int, help="logged pages instead of a part's own number")
    parser.add_argument("--rows", type=Path, help="JSON lines to add to")
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    options = parser.parse_args()
    if options.show:
        show([json.loads(line) for line in options.show.read_text().splitlines()])
        return
    rows: list[Row] = []
    for part in options.part or PARTS:
        for seed in options.seeds:
            start = time.process_time()
            for row in PARTS[part](seed, options.pages) if options.pages else PARTS[part](seed):
                rows.append(row)
                if options.rows:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            print(f"{part}, seed {seed}: {time.process_time() - start:.0f} s of CPU", file=sys.stderr, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
