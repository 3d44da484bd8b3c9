"""Sessions cut per CPU-second: python benchmarks/sessions.py [--users 1000] [--seed 0]

One row a session, 10 events each, 220 sessions a listener, 20,000 items, 40 dimensions; text ids as in a real file.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pyarrow as pa

from recommender.sessions.sessions import Sessions, cut_sessions, unit


def events(users: int, rng: np.random.Generator, *, sessions: int = 220, tracks: int = 10) -> pa.Table:
    """An event table of users x sessions x tracks random plays."""
    n = users * sessions * tracks
    begin = np.arange(sessions)[:, None] * (60 * 86_400 // sessions) + rng.integers(0, 3_000, (users, sessions, 1))
    started_s = 1_709_251_200 + (begin + np.arange(tracks) * 200).ravel()
    skipped = rng.random(n) < 0.3

    def words(code: np.ndarray, values: list[str]) -> pa.Array:  # type: ignore[type-arg]
        return pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), pa.array(values)).cast(pa.string())

    return pa.table(
        {
            "user_id": words(np.repeat(np.arange(users), sessions * tracks), [f"listener-{u}" for u in range(users)]),
            "item_id": words(rng.integers(0, 20_000, n), [f"item-{i}" for i in range(20_000)]),
            "started_at": pa.array(started_s * 1_000_000, pa.timestamp("us", "UTC")),
            "listened_s": np.where(skipped, 12.0, 190.0),
            "skipped": skipped,
            "device": words(rng.integers(0, 2, n), ["mobile", "desktop"]),
            "source": words(rng.integers(0, 3, n), ["library", "playlist", "radio"]),
        }
    )


def sessions(users: int, rng: np.random.Generator) -> tuple[Sessions, int, float]:
    """The sessions of a random table, its number of events, CPU seconds of cutting."""
    table = events(users, rng)
    vector = unit(rng.standard_normal((20_000, 40)).astype(np.float32))
    row_of = {f"item-{i}": i for i in range(20_000)}
    started = time.process_time()
    cut = cut_sessions(table, row_of, vector)
    return cut, table.num_rows, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cut, n_events, seconds = sessions(arguments.users, np.random.default_rng(arguments.seed))
    print(f"seed {arguments.seed}: {n_events:,} events, {len(cut):,} sessions in {seconds:.2f} CPU s")
    print(f"{n_events / seconds:,.0f} events and {len(cut) / seconds:,.0f} sessions per CPU-second")


if __name__ == "__main__":
    main()
