"""What a simulated world costs and how close its listening is to the published figures. CPU time of one thread.

OMP_NUM_THREADS=1 python benchmarks/simulated_world.py [--listeners 5000] [--seed 0] [--learnt]
--learnt also measures cosines with vectors trained on the world's playlists, once as trained and once centred.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bart.home import HomeRanker
from bart.log.decision_log import DecisionLog
from bart.page.batch import batch_decide
from bart.page.exploration import Exploration
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from simulator.loop.rounds import decide, gather, read
from simulator.loop.service import make_service
from simulator.loop.serving import serve_visits
from simulator.loop.truth import page_appeal, page_values
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import WORLDS, browse, page_value, world_params
from simulator.world.appeal import appeal, batch_appeal
from simulator.world.calibration import describe
from simulator.world.config import WorldConfig
from simulator.world.listening import SCHEMA, simulate_events
from simulator.world.world import World

PUBLISHED = {
    "sessions_a_listener_60d": "220",
    "tracks_a_session": "10",
    "device_mobile": ".883",
    "device_desktop": ".086",
    "afternoon_evening": ".536",
    "listeners_at_night": ".765",
    "skip_correlation_2": "-.16 to -.60",
    "half_half": ".708 (oracle half)",
    "cosine_last": ".653",
    "cosine_mean": ".680",
    "cosine_same_context": ".661",
}


def cpu_s(call: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU seconds of a call, after one that is not counted."""
    call()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def events(listeners: int, seed: int) -> None:
    """Time and memory of a whole event file, for two lengths."""
    for days in (30, 60):
        world = World.make(WorldConfig(n_listeners=listeners, days=days), np.random.default_rng(seed))
        start = time.process_time()
        simulated = 0.0
        rows = 0
        with (
            tempfile.TemporaryDirectory() as folder,
            pq.ParquetWriter(Path(folder) / "events.parquet", SCHEMA, compression="zstd") as writer,
        ):
            last = time.process_time()
            for batch in simulate_events(world, np.random.default_rng(seed + 1)):
                simulated += time.process_time() - last
                rows += len(batch)
                writer.write_batch(batch)
                last = time.process_time()
        spent = time.process_time() - start
        print(
            f"{listeners} listeners x {days} days: {rows:,} events in {simulated:.1f} s CPU"
            f" ({rows / simulated:,.0f} events/s), {spent:.1f} s with Parquet; peak so far {peak_mb():.0f} MB"
        )


def pages(seed: int, b: int = 2_000, n: int = 300, rows: int = 10, columns: int = 10) -> None:
    """Batched pages: appeal of all candidates, decision, reading, exact value."""
    world = World.make(WorldConfig(n_listeners=1_000), np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    visits = simulate_visits(world, b, rng)
    offset = np.arange(b + 1) * n
    shelf = np.tile(np.arange(n) % 20, b)
    item = rng.integers(0, len(world.catalogue), size=b * n)
    rule = np.array([f"rule {s}" for s in range(20)], dtype=object)[shelf]
    where = [np.repeat(a, n) for a in (visits.listener, visits.hour, visits.weekday, visits.device)]
    at_s = np.repeat(visits.at_s, n)
    chance = appeal(world, *where, item, rule, at_s)
    _, card = batch_decide(offset, shelf, chance, rows, columns, 0.2, 0.2, rng)
    on_page, present = page_appeal(chance, offset, card)
    params = WORLDS["W3"]
    parts: dict[str, Callable[[], object]] = {
        f"appeal of {n} candidates": lambda: appeal(world, *where, item, rule, at_s),
        "decide": lambda: batch_decide(offset, shelf, chance, rows, columns, 0.2, 0.2, rng),
        "browse": lambda: browse(on_page, present, params, rng),
        "exact value": lambda: page_value(on_page, present, params),
    }
    total = 0.0
    print(f"\npages of {rows} x {columns} from {n} candidates, {b} at once (W3)")
    for name, call in parts.items():
        spent = cpu_s(call)
        total += spent
        print(f"  {name:<28} {1e6 * spent / b:8.1f} us a page")
    print(f"  {'together':<28} {1e6 * total / b:8.1f} us a page, {b / total:,.0f} pages/s")


def rates(seed: int, b: int = 2_000, rows: int = 10, columns: int = 10) -> None:
    """Pages a second: score, decide and browse from given candidates, and the whole path with its log."""
    rng = np.random.default_rng(seed)
    world = World.make(WorldConfig(n_listeners=300), rng)
    service = make_service(world, rng, per_shelf=24)
    visits = simulate_visits(world, b, rng)
    scorer = Scorer.compile(RewardModel.prior(RewardConfig(FeatureSchema(order=2))), service.items)
    number, page_seed = np.arange(b), rng.integers(0, 2**62, size=b)
    exploration = Exploration.fixed(0.2)
    offers = gather(service, visits, number, page_seed, [f"r{i}" for i in range(b)], rows, columns)
    likes = batch_appeal(world, offers.pages, service.items.item_id)
    n = len(offers.pages.item) / b
    pages = decide(offers, scorer.score_batch(offers.pages), exploration)

    def together() -> None:
        read(
            decide(offers, scorer.score_batch(offers.pages), exploration), service, likes, WORLDS["W3"],
            np.random.default_rng(1),
        )  # fmt: skip

    parts: dict[str, Callable[[], object]] = {
        "score": lambda: scorer.score_batch(offers.pages),
        "decide": lambda: decide(offers, pages.score, exploration),
        "browse": lambda: read(pages, service, likes, WORLDS["W3"], np.random.default_rng(1)),
        "together": together,
    }
    print(f"\nbatched pages of {rows} x {columns} from {n:.0f} candidates given, {b} at once (W3), order 2")
    for name, call in parts.items():
        spent = cpu_s(call, 3)
        print(f"  {name:<28} {1e6 * spent / b:8.1f} us a page" + (f", {b / spent:,.0f} pages/s" * (name == "together")))
    ranker = HomeRanker(service.source, service.items, scorer, exploration, service.rules)
    spent_s = []
    for k in range(3):
        with tempfile.TemporaryDirectory() as folder, DecisionLog(Path(folder) / "log.sqlite") as log:
            start = time.process_time()
            serve_visits(ranker, service.store, world, visits, WORLDS["W3"], log, rows, columns,
                         np.random.default_rng(k))  # fmt: skip
            spent_s.append(time.process_time() - start)
    spent = float(np.median(spent_s))
    print(f"  full path: candidates, HomeRanker, log, browsing, feedback: {1e3 * spent / b:.2f} ms a page,"
          f" {b / spent:,.0f} pages/s")  # fmt: skip


def levels(seed: int, b: int = 2_000) -> None:
    """Streams a page of 6 x 6 by world, for four ways of scoring the same candidates."""
    world = World.make(WorldConfig(n_listeners=1_000), np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 2)
    visits = simulate_visits(world, b, rng)
    taste = world.taste(visits.listener, visits.hour, visits.weekday, visits.device, visits.at_s)
    base = world.base_taste(visits.listener, world.days_since_start(visits.at_s))
    popular = np.argsort(-world.catalogue.weight)[:500]
    item = np.empty((b, 300), dtype=np.int64)
    for i in range(b):  # three parts near the taste, wider and wider, one part hits
        near = [np.argpartition(-(world.catalogue.vector @ z), k)[:k] for z, k in ((taste[i], 600), (base[i], 1_500))]
        picks = [rng.choice(near[0], 100, False), rng.choice(near[1], 125, False), rng.choice(popular, 75, False)]
        item[i] = np.concatenate(picks)
    offset, shelf = np.arange(b + 1) * 300, np.tile(np.repeat(np.arange(12), 25), b)
    where = [np.repeat(a, 300) for a in (visits.listener, visits.hour, visits.weekday, visits.device)]
    rule = [f"rule {s}" for s in shelf]
    chance = appeal(world, *where, item.ravel(), rule, np.repeat(visits.at_s, 300))
    scores = {
        "random": rng.random(b * 300),
        "popularity": world.catalogue.popularity[item].ravel(),
        "cosine with the base taste": np.einsum("bnd,bd->bn", world.catalogue.vector[item], base).ravel(),
        "true appeal": chance,
    }
    print(f"\nstreams a displayed page of 6 x 6, greedy; mean appeal {chance.mean():.3f}, best of a page "
          f"{chance.reshape(b, 300).max(axis=1).mean():.2f}")  # fmt: skip
    print(f"  {'':<28}" + "".join(f"{name:>8}" for name in WORLDS))
    patience = world.population.patience[visits.listener]
    for name, score in scores.items():
        _, card = batch_decide(offset, shelf, score, 6, 6, 0.0, 0.0, rng)
        values = [page_values(chance, offset, card, world_params(w), patience=patience).mean() for w in WORLDS]
        print(f"  {name:<28}" + "".join(f"{v:8.2f}" for v in values))


def calibration(listeners: int, seed: int, learnt: bool) -> None:
    """Measured figures beside the published ones."""
    world = World.make(WorldConfig(n_listeners=listeners), np.random.default_rng(seed))
    batches = list(simulate_events(world, np.random.default_rng(seed + 1)))
    found = {"latent vectors": describe(world, batches)}
    if learnt:
        from recommender.vectors.sentences import sentences_of_playlists
        from recommender.vectors.track import train_track_vectors

        row_of = {item: row for row, item in enumerate(world.catalogue.item_id)}
        trained = train_track_vectors(sentences_of_playlists(world.playlists(), row_of), len(world.catalogue))
        centred = trained - trained.mean(axis=0)
        found["learnt"] = describe(world, batches, trained)
        found["learnt, centred"] = describe(world, batches, centred / np.linalg.norm(centred, axis=1, keepdims=True))
    print(f"\n{listeners} listeners x 60 days, seed {seed}")
    print(f"  {'':<26}" + "".join(f"{name:>20}" for name in found) + "   published")
    for key in next(iter(found.values())):
        print(f"  {key:<26}" + "".join(f"{f[key]:20.3f}" for f in found.values()) + f"   {PUBLISHED.get(key, '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learnt", action="store_true")
    given = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, seed {given.seed}")
    events(given.listeners, given.seed)
    pages(given.seed)
    rates(given.seed)
    levels(given.seed)
    calibration(min(given.listeners, 400), given.seed, given.learnt)


if __name__ == "__main__":
    main()
