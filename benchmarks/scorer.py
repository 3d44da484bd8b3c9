"""CPU time to score the candidates of one visit: Vowpal Wabbit's text path, prebuilt examples, the compiled scorer.

    python -m benchmarks.scorer [--items 100000] [--dimension 40] [--seed 0] [--features]

--features: by vectors and facts alone against all features of listening history and identities, 1,000 candidates, each
visit's least of some turns, which a busy machine moves little.
All paths score the same candidates with the same model in one run and must agree to 1e-5. Each visit has candidates of
its own, so that vectors come from memory and not from the cache. Times are medians of process CPU time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import vowpal_wabbit_next as vw

from bart.reward.baselines import PriorScorer
from bart.reward.features import FeatureSchema, ItemFeatures, build_examples
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel, text_line
from bart.reward.scorer import Scorer
from bart.types import Candidates, Context, Floats32, ItemTable, Labels, Listener, Shelf
from bart.types.caller import CALLER
from benchmarks.synthetic import item_table, random_examples, unit
from recommender.features.definitions import NAMES
from recommender.features.source import HistoryFeatures
from recommender.features.tables import Histories, Plays, build_tables

SHELVES = 20


def cpu_ms(call: Callable[[Any], object], inputs: Sequence[Any]) -> tuple[float, float]:
    """Median and 99th percentile of the CPU time of the call on each input, ms."""
    took = np.empty(len(inputs))
    for k, given in enumerate(inputs):
        start = time.process_time_ns()
        call(given)
        took[k] = time.process_time_ns() - start
    return float(np.median(took)) / 1e6, float(np.percentile(took, 99)) / 1e6


def least_ms(calls: dict[str, Callable[[Any], object]], visits: Sequence[Any], turns: int = 9) -> dict[str, float]:
    """Mean over visits of the least CPU time of each call, ms; calls and visits in turns, so that none is in cache."""
    took = {name: np.full(len(visits), np.inf) for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            for k, given in enumerate(visits):
                start = time.process_time_ns()
                call(given)
                took[name][k] = min(took[name][k], time.process_time_ns() - start)
    return {name: float(value.mean()) / 1e6 for name, value in took.items()}


def with_features(items: ItemTable, rng: np.random.Generator, n: int = 1_000, listeners: int = 60) -> None:
    """Prints what n candidates cost with and without what is known of listeners and items."""
    artist = rng.integers(0, len(items) // 10, len(items))
    items = replace(items, artists=Labels.of([(f"artist {k}",) for k in artist.tolist()]))
    d = items.dimension
    all_of = FeatureSchema(dimension=d, order=2, levels=(*NAMES, *CALLER), ids=IDS)
    scorers = []
    for schema in (FeatureSchema(dimension=d, order=2), all_of):
        weight = rng.normal(0, 0.01, 1 << 20).astype(np.float32)
        scorers.append(Scorer(schema, weight, items, [f"rule {k}" for k in range(SHELVES)]))
    plain, whole = scorers
    user = np.array([f"u{k}" for k in range(listeners)], dtype=object)
    who, heard = np.repeat(np.arange(listeners), 2_000), rng.integers(0, len(items), (listeners, 600))
    heard_item = heard[who, rng.integers(0, 600, len(who))]
    at_s = 1_700_000_000 + rng.integers(0, 5_000_000, len(who))
    plays = Plays(user, who, heard_item, rng.random(len(who)) < 0.3, at_s)
    tables = build_tables(plays, len(items), rng)
    histories = Histories(items, tables).of_plays(plays)
    context = Context(datetime(2024, 5, 5, 8, tzinfo=timezone.utc))
    shelves = tuple(Shelf(f"rule {k}", "") for k in range(SHELVES))
    visits = []
    for name in user.tolist():
        shelf = np.sort(rng.integers(0, SHELVES, n))
        listener = Listener(name, unit(rng, 1, d)[0], history=histories[name].arrays)
        visits.append((listener, Candidates(rng.choice(len(items), n, replace=False), shelf, shelves)))
    source = HistoryFeatures(items, tables).calibrated([(a, context, b) for a, b in visits])
    known = [(a, b.knowing(source.features(a, context, b))) for a, b in visits]
    took = least_ms(
        {
            "score by vectors and facts": lambda v: plain.score(context, v[0].vector, v[1]),
            "score by all features": lambda v: whole.score(context, v[0].vector, v[1], user_id=v[0].user_id),
            "work the features out": lambda v: source.features(v[0], context, v[1]),
        },
        known,
    )
    for name, value in took.items():
        print(f"{n:>10}  {name:44}  {value:>9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    items = item_table(rng, options.items, options.dimension)
    if options.features:
        with_features(items, rng)
        return
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
