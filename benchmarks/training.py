"""Examples a CPU-second: machine code, ways to hand them to Vowpal Wabbit, and whole trainings from logged pages.

    python -m benchmarks.training [--pages 4000] [--dimension 40] [--seed 0]

All ways learn the same examples in the same order. Pages have 200 candidates, of which 20 were seen. Training
runs over pages in memory and over a Parquet export of the same; scan, passes and holdout all count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import vowpal_wabbit_next as vw

from bart.learning.importance import WEIGHTINGS
from bart.learning.training import TrainingConfig, train
from bart.log.outcomes.pages import read_pages
from bart.reward.feature_hash import match_index, vector_index
from bart.reward.features import Examples, FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel, _learn_one_by_one, text_line
from bart.types import Floats, ItemTable, PageBatch
from benchmarks.synthetic import item_table, random_examples, random_pages, write_export


def one_object_an_example(model: RewardModel, examples: Examples, reward: Floats) -> None:
    """What `RewardModel.learn` would be without refilling one example."""
    d = examples.schema.dimension
    index = {"u": vector_index("u", d), "v": vector_index("v", d), "m": match_index(d)}
    one = np.ones(4, dtype=np.float32)
    for i, page in enumerate(examples.page.tolist()):
        example = vw.Example()
        fact_value = np.append(one[:3], examples.popularity[i])
        example["c"].push_many_features(examples.context[page], one[:3])
        example["u"].push_many_features(index["u"], examples.listener[page])
        example["v"].push_many_features(index["v"], examples.item_vector[i])
        example["g"].push_many_features(examples.fact[i], fact_value)
        example["m"].push_many_features(index["m"], examples.match[i])
        example["e"].push_many_features(examples.explanation[i : i + 1], one[:1])
        example["p"].push_many_features(examples.position[i], one[:2])
        example.set_label(vw.SimpleLabel(2.0 * reward[i] - 1.0))
        model._workspace.native.learn_one(example)


def lines_of_text(model: RewardModel, examples: Examples, reward: Floats) -> None:
    """Writing each example as a line, parsing and learning it."""
    parser = vw.TextFormatParser(model._workspace.native)
    for i in range(len(examples)):
        model._workspace.native.learn_one(parser.parse_line(text_line(examples, i, "1" if reward[i] else "-1")))


def cpu_s(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def report(name: str, n: int, seconds: float, features: int) -> None:
    rate = n / seconds
    print(f"{name:48} {n:>9} {seconds:>8.2f} s {rate:>10.0f} examples/s {rate * features / 1e6:>7.1f} M features/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=int, default=4000)
    parser.add_argument("--dimension", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    items = item_table(rng, 20_000, options.dimension)
    schema = FeatureSchema(dimension=options.dimension)
    count = schema.feature_count
    print(f"{count} features an example, seed {options.seed}, CPU seconds of one process")
    examples = random_examples(rng, ItemFeatures(schema, items), 20_000, rules=20)
    reward = (rng.random(len(examples)) < 0.3).astype(np.float64)
    models = [RewardModel(RewardConfig(schema)) for _ in range(4)]
    models[3].learn(examples, reward)  # machine code is made or read before it is timed
    report("machine code (RewardModel.learn)", 20_000, cpu_s(lambda: models[0].learn(examples, reward)), count)
    one, ws = np.ones(len(examples)), models[3]._workspace
    seconds = cpu_s(lambda: _learn_one_by_one(ws, examples, reward, one))
    report("by the library, one example refilled", 20_000, seconds, count)
    seconds = cpu_s(lambda: one_object_an_example(models[1], examples, reward))
    report("one example object each", 20_000, seconds, count)
    report("lines of text", 20_000, cpu_s(lambda: lines_of_text(models[2], examples, reward)), count)
    report("predict", 20_000, cpu_s(lambda: models[0].predict(examples)), count)
    pages = random_pages(rng, items, options.pages)

    def in_memory() -> Iterator[PageBatch]:
        for start in range(0, len(pages), 2000):
            yield pages.take(np.arange(start, min(start + 2000, len(pages))))

    measure("pages in memory", in_memory, items, schema)
    with TemporaryDirectory() as folder:
        write_export(pages, items, Path(folder))
        seconds = cpu_s(lambda: [None for _ in read_pages(folder, items)])
        print(f"reading the Parquet export once: {seconds:.2f} s, {1e6 * seconds / options.pages:.0f} us a page")
        measure("Parquet", lambda: read_pages(folder, items), items, schema)


def measure(name: str, batches: Callable[[], Iterator[PageBatch]], items: ItemTable, schema: FeatureSchema) -> None:
    """The whole of `train`, holdout and scan included, for each weighting."""
    for weighting in WEIGHTINGS:
        for passes in (1, 2):
            config = TrainingConfig(RewardConfig(schema), weighting=weighting, passes=passes)
            start = time.process_time()
            counts = train(batches, items, config).metrics.counts
            n = passes * counts.training_cards + counts.holdout_cards
            title = f"train from {name}, {weighting}, {passes} pass{'es' if passes > 1 else ''}"
            report(title, n, time.process_time() - start, schema.feature_count)


if __name__ == "__main__":
    main()
