"""CPU time to score the candidates of one visit: Vowpal Wabbit's text path, prebuilt examples, the compiled scorer.

    python -m benchmarks.scorer [--items 100000] [--dimension 40] [--seed 0]

All paths score the same candidates with the same model in one run and must agree to 1e-5. Each visit has candidates of
its own, so that vectors come from memory and not from the cache. Times are medians of process CPU time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import vowpal_wabbit_next as vw

from bart.reward.baselines import PriorScorer
from bart.reward.features import FeatureSchema, ItemFeatures, build_examples
from bart.reward.model import RewardConfig, RewardModel, text_line
from bart.reward.scorer import Scorer
from bart.types import Candidates, Context, Floats32, Shelf
from benchmarks.synthetic import item_table, random_examples, unit

SHELVES = 20


def cpu_ms(call: Callable[[Any], object], inputs: Sequence[Any]) -> tuple[float, float]:
    """Median and 99th percentile of the CPU time of the call on each input, ms."""
    took = np.empty(len(inputs))
    for k, given in enumerate(inputs):
        start = time.process_time_ns()
        call(given)
        took[k] = time.process_time_ns() - start
    return float(np.median(took)) / 1e6, float(np.percentile(took, 99)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    items = item_table(rng, options.items, options.dimension)
    schema = FeatureSchema(dimension=options.dimension)
    features = ItemFeatures(schema, items)
    config = RewardConfig(schema)
    model = RewardModel(config)
    examples = random_examples(rng, features, 20_000, rules=SHELVES)
    model.learn(examples, (rng.random(len(examples)) < 0.3).astype(np.float64))
    start = time.process_time()
    scorer = Scorer.compile(model, items)
    print(f"{options.items} items, {schema.feature_count} features an example, seed {options.seed}")
    print(f"compile (with 256 checks): {1000 * (time.process_time() - start):.0f} ms")
    prior = PriorScorer(items)
    parser_ = vw.TextFormatParser(model._workspace.native)
    predict = model._workspace.native.predict_one
    context = Context(datetime(2024, 5, 5, 8, tzinfo=timezone.utc))
    shelves = tuple(Shelf(f"rule {k}", "") for k in range(SHELVES))
    print(f"{'candidates':>10}  {'path':44}  {'median ms':>9}  {'p99 ms':>8}")
    for n in (300, 1000):
        visits: list[tuple[Floats32, Candidates]] = []
        for _ in range(200):
            shelf = np.sort(rng.integers(0, SHELVES, n))
            visits.append(
                (unit(rng, 1, options.dimension)[0], Candidates(rng.integers(0, options.items, n), shelf, shelves))
            )
        listener, candidates = visits[0]
        built = build_examples(
            features,
            at_s=np.array([int(context.at.timestamp())]),
            hour=np.array([context.hour]),
            weekday=np.array([context.weekday]),
            device=np.array([0]),
            listener=listener[None],
            page=np.zeros(n, dtype=np.int64),
            item=candidates.item,
            rule=np.array([shelves[s].rule for s in candidates.shelf.tolist()], dtype=object),
            row=np.zeros(n, dtype=np.int64),
            column=np.zeros(n, dtype=np.int64),
        )
        lines = [text_line(built, i) for i in range(n)]
        prebuilt = [parser_.parse_line(line) for line in lines]
        score = scorer.score(context, listener, candidates)
        assert np.abs(score - [predict(example) for example in prebuilt]).max() < 1e-5
        assert np.abs(score - model.predict(built)).max() < 1e-5
        paths: list[tuple[str, Callable[[Any], object], Sequence[Any]]] = [
            ("text: write lines", lambda b: [text_line(b, i) for i in range(len(b))], [built] * 10),
            ("text: parse and predict", lambda b: [predict(parser_.parse_line(line)) for line in b], [lines] * 20),
            ("prebuilt examples: predict", lambda b: [predict(example) for example in b], [prebuilt] * 20),
            ("compiled: features and score, new candidates", lambda v: scorer.score(context, *v), visits),
            ("compiled: the same candidates again", lambda v: scorer.score(context, *v), visits[:1] * 200),
            ("prior scorer, new candidates", lambda v: prior.score(context, *v), visits),
        ]
        median: dict[str, float] = {}
        for name, call, inputs in paths:
            call(inputs[0])
            median[name], high = cpu_ms(call, inputs)
            print(f"{n:>10}  {name:44}  {median[name]:>9.3f}  {high:>8.3f}")
        ratio = median["text: parse and predict"] / median["compiled: features and score, new candidates"]
        print(f"{n:>10}  parse and predict over compiled: {ratio:.0f} times")


if __name__ == "__main__":
    main()
