"""CPU time of one request's candidates, beside the number of candidates it gives.

    python benchmarks/candidates.py --items 100000 --per-shelf 50

A seeded catalogue with clustered unit vectors, artists, genres and plays; listeners with a history of 50 items. Prints
one line of JSON: median and 99th percentile of CPU milliseconds, candidates a request, and the time of building.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa

from bart.types import Context, Ints, ItemTable, Labels, Listener
from recommender.events.table import EVENT_SCHEMA
from recommender.shelves.candidates import CandidateConfig, build_candidates
from recommender.shelves.items import popularity
from recommender.vectors.track import unit


def catalogue(n: int, rng: np.random.Generator) -> ItemTable:
    """n tracks of n / 12 artists in 40 genres, vectors around their artist's, popularity by a power law."""
    genre_centre = unit(rng.standard_normal((40, 40), dtype=np.float32))
    artist_genre = rng.integers(40, size=max(n // 12, 1))
    artist_centre = unit(genre_centre[artist_genre] + 0.12 * rng.standard_normal((len(artist_genre), 40), np.float32))
    artist = rng.integers(len(artist_genre), size=n)
    plays = np.floor(1e5 * (1 + rng.permutation(n)) ** -0.8).astype(np.int64)
    ids = np.empty(n, dtype=object)
    ids[:] = [f"t{i}" for i in range(n)]
    names = np.array([f"artist {i}" for i in range(len(artist_genre))], dtype=object)
    return ItemTable(
        item_id=ids,
        title=ids,
        type=np.zeros(n, dtype=np.int8),
        artists=Labels(artist, np.arange(n + 1), names.tolist()),
        genres=Labels(artist_genre[artist], np.arange(n + 1), [f"genre {i}" for i in range(40)]),
        released_at=np.datetime64("2025-01-01") - rng.integers(9_000, size=n).astype("timedelta64[D]"),
        countries=Labels.of([()] * n),
        explicit=np.zeros(n, dtype=bool),
        popularity=popularity(plays),
        duration_s=np.full(n, 200.0),
        vector=unit(artist_centre[artist] + 0.1 * rng.standard_normal((n, 40), dtype=np.float32)),
    )


def plays(items: ItemTable, n: int, rng: np.random.Generator) -> tuple[pa.Table, Ints]:
    """n events over 30 days: sessions of ten tracks of one genre, by popularity; and the tracks [n / 10, 10]."""
    sessions = n // 10
    user = rng.integers(1_000, size=sessions)
    taste = np.argsort(rng.random((1_000, 40)), axis=1)[:, :3]  # each listener plays three genres
    genre = taste[user, rng.integers(3, size=sessions)]
    track = np.empty((sessions, 10), dtype=np.int64)
    weight = np.expm1(items.popularity * np.log1p(1e5))
    for g in range(40):
        here, member = np.flatnonzero(genre == g), items.genres.rows_with(f"genre {g}")
        mass = np.cumsum(weight[member])
        track[here] = member[np.searchsorted(mass, rng.random((len(here), 10)) * mass[-1])]
    start_s = 1_735_689_600 + rng.integers(30 * 24, size=sessions) * 3_600
    order = np.lexsort((start_s, user))
    track, user, start_s = track[order], user[order], start_s[order]
    at_us = (start_s[:, None] + 200 * np.arange(10)).reshape(-1) * 1_000_000
    columns = {name: pa.nulls(10 * sessions, EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names}
    columns["user_id"] = pa.array(np.repeat(user, 10).astype(str))
    columns["item_id"] = pa.array(items.item_id[track.reshape(-1)].tolist())
    columns["started_at"] = pa.array(at_us).cast(pa.timestamp("us", "UTC"))
    return pa.table(columns, schema=EVENT_SCHEMA), track


def listeners(items: ItemTable, track: Ints, n: int, rng: np.random.Generator) -> list[Listener]:
    """n listeners whose vector is that of a session, with a history of ten sessions."""
    out = []
    for number, session in enumerate(rng.permutation(len(track) - 10)[:n].tolist()):
        known = np.unique(track[session : session + 10])
        vector = unit(items.vector[track[session]].mean(axis=0, keepdims=True))[0]
        out.append(Listener(f"u{number}", vector, recent=rng.permutation(known)[:50], favourite=known[:50]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--per-shelf", type=int, default=50)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--index", default="auto", help="auto, exact, ivf or hnsw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    items = catalogue(asked.items, rng)
    events, track = plays(items, 500_000, rng)
    start = time.perf_counter()
    source = build_candidates(items, events, rng, config=CandidateConfig(asked.per_shelf), index_kind=asked.index)
    build_s = time.perf_counter() - start
    people = listeners(items, track, 200, rng)
    at = datetime(2025, 1, 31, tzinfo=timezone.utc)
    contexts = [Context(at + timedelta(hours=h)) for h in range(168)]
    streams = [np.random.default_rng(i) for i in range(asked.requests)]  # the visit's stream is the caller's

    def request(i: int) -> int:
        return len(source.candidates(people[i % len(people)], contexts[i % 168], streams[i]))

    for i in range(100):
        request(i)
    if asked.profile:
        with cProfile.Profile() as profile:
            for i in range(asked.requests):
                request(i)
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
    spent, size = [], []
    for i in range(asked.requests):
        begin = time.process_time_ns()
        size.append(request(i))
        spent.append(time.process_time_ns() - begin)
    ms = np.array(spent) / 1e6
    print(
        json.dumps(
            {
                "items": asked.items,
                "seed": asked.seed,
                "index": source.index.measure.kind,
                "index_recall": source.index.measure.recall,
                "index_ms": source.index.measure.search_ms,
                "candidates": [int(np.min(size)), int(np.median(size)), int(np.max(size))],
                "index_breadth": source.index.measure.breadth,
                "cpu_ms_fastest_tenth": round(float(np.percentile(ms, 10)), 3),
                "cpu_ms_median": round(float(np.median(ms)), 3),
                "cpu_ms_p99": round(float(np.percentile(ms, 99)), 3),
                "build_s": round(build_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
