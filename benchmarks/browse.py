"""Looking up at a million items and a million listeners: CPU of a search, of a page of ids, and of all ids sorted.

python -m benchmarks browse [--items N] [--listeners N]
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from api.browse.item import in_short
from api.browse.search import ItemSearch
from bart.types import ItemTable, Labels
from recommender.states.states import MemoryListener, SqliteListenerStore

SYLLABLES = ("ka", "lo", "mi", "ra", "ten", "vo", "shi", "an", "el", "dor", "qui", "sa", "ber", "nu", "fy")
ASKED = ("", "k", "t", "kalo", "ka lo", "ka lo mi", "t0123456", "shi an el dor", "zzz")
REPEATS = 9


def catalogue(n: int, rng: np.random.Generator) -> ItemTable:
    """n items with three words each, by a tenth as many artists; words as rare as in a language (Zipf, 1.3)."""
    lengths = rng.integers(1, 5, 30_000)
    word = np.array(["".join(rng.choice(SYLLABLES, k)) for k in lengths], dtype=object)
    drawn = word[rng.zipf(1.3, (n, 3)) % len(word)]
    names = word[rng.integers(0, len(word), (n // 10, 2))]
    artists = tuple(f"{first} {last} {number}" for number, (first, last) in enumerate(names.tolist()))
    none = Labels(np.empty(0, np.int64), np.zeros(n + 1, np.int64), ())
    return ItemTable(
        item_id=np.array([f"t{i:07d}" for i in range(n)], dtype=object),
        title=drawn[:, 0] + " " + drawn[:, 1] + " " + drawn[:, 2],
        type=np.zeros(n, dtype=np.int8),
        artists=Labels(rng.integers(0, len(artists), n), np.arange(n + 1), artists),
        genres=none,
        released_at=np.full(n, "NaT", dtype="datetime64[D]"),
        countries=none,
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=rng.random(n),
        duration_s=np.full(n, 200.0),
        vector=np.zeros((n, 1), dtype=np.float32),
    )


def spent_ms(work: Callable[[], Any]) -> float:
    """Median CPU of some repetitions, of all threads."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - start) / 1e6)
    return statistics.median(times)


def of_items(n: int) -> None:
    """What a search costs, with the facts of the fifty items that it tells."""
    items = catalogue(n, np.random.default_rng(1))
    start = time.process_time()
    search = ItemSearch(items)
    print(f"{n:,} items, {len(search):,} words: made in {time.process_time() - start:.2f} s of CPU, once a bundle")
    for text in ASKED:

        def ask(text: str, after: int = -1) -> Any:
            found = search.find(text, after=after)
            return found, in_short(items, found.row, frozenset())

        first, late = spent_ms(partial(ask, text)), spent_ms(partial(ask, text, n // 2))
        print(f"  {text!r:16} {ask(text)[0].count:>9,} found  {first:6.2f} ms, a page in the middle {late:6.2f} ms")


def of_listeners(n: int) -> None:
    """What a page of ids costs: the first, one in the middle, and by a beginning."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteListenerStore(Path(folder) / "listeners.sqlite", MemoryListener(4), "b")
        with sqlite3.connect(store.path) as connection:
            fill = "INSERT INTO listeners VALUES ('b', ?, x'', x'', x'', x'', 0, NULL, NULL, '', NULL, NULL)"
            connection.executemany(fill, ((f"u{i:07d}",) for i in range(n)))
        print(f"{n:,} listeners")
        asked = {
            "the first 200": ("", ""),
            "200 behind the middle": ("", f"u{n // 2:07d}"),
            "by a beginning": ("u01", ""),
        }
        for name, (prefix, after) in asked.items():
            print(f"  {name:22} {spent_ms(partial(store.ids_from, prefix, after)):6.2f} ms")
        print(f"  {'all of them, sorted':22} {spent_ms(store.user_ids):6.0f} ms (what a start and a list cost before)")
        store.close()


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--listeners", type=int, default=1_000_000)
    asked = parser.parse_args()
    of_items(asked.items)
    of_listeners(asked.listeners)


if __name__ == "__main__":
    main()
