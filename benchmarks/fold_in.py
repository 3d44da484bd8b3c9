"""What a reported session costs until it is in the listener's user vector: CPU of each step, for drawn histories.

    python -m benchmarks fold_in [--items 1250] [--listeners 100]

The session of ten tracks is counted in the history, the features are worked out from it and encoded, by an encoder of
the usual size with drawn weights. Each step is timed over all listeners, fifteen times; the lowest counts, since other
work beside can only add to it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from bart.types import Floats32
from bart.types.levels import UNKNOWN
from recommender.features.definitions import NAMES
from recommender.features.tables import N_FACTORS, FeatureTables, Histories
from recommender.features.usage import Usage
from recommender.sessions.table import DAY_S
from recommender.shelves.items import item_table, read_items
from recommender.users.encoder import EncoderConfig, UserEncoder
from recommender.users.features import GROUP_NAMES, Known, UserFeatures
from recommender.users.scaling import Scaling

CATALOGUE, DIMENSION, ROUNDS, DAYS = 30_000, 40, 15, 60


def lowest_ms(step: Callable[[], object], of: int) -> float:
    """CPU milliseconds of a step, which does something `of` times."""
    found = []
    for _ in range(ROUNDS):
        since = time.process_time()
        step()
        found.append(time.process_time() - since)
    return 1000 * min(found) / of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1250, help="Half the plays of a history.")
    parser.add_argument("--listeners", type=int, default=100)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Floats32:
        return rng.standard_normal(shape, dtype=np.float32)

    names = {"item_id": [f"i{k}" for k in range(CATALOGUE)], "artist": [f"a{k % 4000}" for k in range(CATALOGUE)]}
    table = pa.table(
        {**names, "genres": [[f"g{k % 24}"] for k in range(CATALOGUE)], "popularity": rng.random(CATALOGUE)}
    )
    vector = drawn(CATALOGUE, DIMENSION)
    items = item_table(read_items(table).items, vector / np.linalg.norm(vector, axis=1, keepdims=True))
    bound = np.full((len(NAMES), UNKNOWN - 1), np.inf, np.float32)
    tables = FeatureTables(
        drawn(CATALOGUE, N_FACTORS) / 10, np.abs(drawn(CATALOGUE)), np.zeros((CATALOGUE, 2), np.float32), bound
    )
    features, histories = UserFeatures.of(items, tables, ("SE", "BR", "US")), Histories(items, tables)
    usage = Usage(rng.integers(0, CATALOGUE, 4), rng.integers(0, CATALOGUE, 9), 3.0, 30.0, 90.0, "SE")
    known = []
    for _ in range(asked.listeners):
        plays = np.where(
            rng.random(2 * asked.items) < 0.5,
            rng.integers(0, CATALOGUE, 2 * asked.items),
            rng.integers(0, asked.items // 2, 2 * asked.items),
        )
        at_s = np.sort(rng.integers(0, DAYS * DAY_S, len(plays)))
        known.append(Known(histories.heard(None, plays, rng.random(len(plays)) < 0.3, at_s), usage, 0))
    value = np.stack([features.row(one, DAYS * DAY_S) for one in known])
    width, config = features.width + len(GROUP_NAMES), EncoderConfig()
    h, d = config.hidden, config.dimension
    weight = {"w1": drawn(h, width), "b1": drawn(h), "w2": drawn(d, h), "skip": drawn(d, width), "b2": drawn(d)}
    encoder = UserEncoder(Scaling.of(value, features.slices), weight, features.countries, features.genres, config, 0)
    item = rng.integers(0, CATALOGUE, (len(known), 10))
    skipped, at_s = np.zeros(10, np.bool_), np.full(10, DAYS * DAY_S)

    def heard() -> list[Known]:
        told = zip(known, item, strict=True)
        return [Known(histories.heard(one.history, played, skipped, at_s), usage, 0) for one, played in told]

    after, n = heard(), len(known)
    steps = {
        "history": lowest_ms(heard, n),
        "features": lowest_ms(lambda: [features.row(one, DAYS * DAY_S + 60) for one in after], n),
        "encoder": lowest_ms(lambda: [encoder.encode(row[None]) for row in value], n),
    }
    sizes = np.mean([len(one.history.item) for one in after if one.history is not None])
    print(f"{n} listeners, {sizes:.0f} items each, {features.width} features; CPU ms a listener:")
    for name, ms in {**steps, "together": sum(steps.values())}.items():
        print(f"  {name:<10} {ms:.3f}")


if __name__ == "__main__":
    main()
