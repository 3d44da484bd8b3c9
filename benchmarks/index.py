"""Recall and CPU time of each kind of index, beside exact search.

    python benchmarks/index.py --items 1000000 --kinds exact ivf

Seeded unit vectors in clusters of clusters (genres, artists), searched from sessions' means; one line of JSON a kind:
recall of the top 100 against exact search, CPU milliseconds of one query on one thread, and the time of building.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from bart.types import Floats32
from recommender.vectors.index import build_index
from recommender.vectors.track import unit


def catalogue(n: int, rng: np.random.Generator, n_queries: int) -> tuple[Floats32, Floats32]:
    """n vectors of n / 12 artists in 200 genres, and the unit means of ten tracks of one genre each."""
    genre_centre = unit(rng.standard_normal((200, 40), dtype=np.float32))
    genre = rng.integers(200, size=max(n // 12, 1))
    artist_centre = unit(genre_centre[genre] + 0.12 * rng.standard_normal((len(genre), 40), dtype=np.float32))
    artist = rng.integers(len(genre), size=n)
    vector = unit(artist_centre[artist] + 0.1 * rng.standard_normal((n, 40), dtype=np.float32))
    order = np.argsort(genre[artist], kind="stable")
    first = np.searchsorted(genre[artist][order], rng.integers(200, size=n_queries))
    member = order[np.minimum(first[:, None] + rng.integers(n // 400, size=(n_queries, 10)), n - 1)]
    return vector, unit(vector[member].mean(axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--kinds", nargs="+", default=["exact", "ivf", "hnsw"])
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    vector, query = catalogue(asked.items, np.random.default_rng(asked.seed), 500)
    for kind in asked.kinds:
        start = time.perf_counter()
        index = build_index(vector, kind=kind, k=asked.k, queries=query, rng=np.random.default_rng(asked.seed))
        build_s = time.perf_counter() - start
        spent = []
        for q in query:
            begin = time.process_time_ns()
            index.search(q, asked.k)
            spent.append(time.process_time_ns() - begin)
        ms = np.array(spent) / 1e6
        print(
            json.dumps(
                {
                    "items": asked.items,
                    "seed": asked.seed,
                    "kind": kind,
                    "breadth": index.measure.breadth,
                    "k": asked.k,
                    "recall": round(index.measure.recall, 4),
                    "cpu_ms_median": round(float(np.median(ms)), 4),
                    "cpu_ms_p99": round(float(np.percentile(ms, 99)), 4),
                    "build_s": round(build_s, 1),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
