"""User vectors beside their peers in simulated worlds of the demonstration's size, and what a fold-in costs.

    python -m benchmarks user_representations [--seeds 21,22] [--out DIR] [--kinds ...] [--without drift] [--shuffled]

Each world is made, studied once and kept in DIR/SEED.json: run again, only missing ones are worked out (four minutes a
world). Intervals: worlds are the unit, listeners nested in them (Student's t over worlds' means, which holds both kinds
of chance). --without names effects that are switched off; --shuffled draws the tracks of all plays anew; --newcomers:
share of listeners who join within the world; the usual .06 are 40 in a thousand, too few to tell first hours apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recommender.events.table import read_events
from recommender.shelves.items import read_items
from recommender.transfer.kinds import KINDS, encoder_of
from recommender.transfer.protocol import NEGATIVES, Prepared, ProtocolConfig, prepare
from recommender.transfer.task import TRIALS
from recommender.transfer.whole import StudyConfig, run_study
from recommender.users.encoder import EncoderConfig
from simulator.world.config import Effects, WorldConfig
from simulator.world.listening import simulate_events
from simulator.world.world import World


def world_data(seed: int, asked: argparse.Namespace, config: ProtocolConfig) -> Prepared:
    """The protocol's start on a simulated world."""
    n, effects = asked.listeners, Effects.without(asked.without)
    size = WorldConfig(n_listeners=n, n_tracks=30 * n, effects=effects, new_listener_share=asked.newcomers)
    world = World.make(size, np.random.default_rng(seed))
    events = pa.Table.from_batches(list(simulate_events(world, np.random.default_rng(seed + 100))))
    if asked.shuffled:
        item = np.array(events["item_id"].to_pylist(), dtype=object)
        item = np.random.default_rng(seed).permutation(item)
        events = events.set_column(events.column_names.index("item_id"), "item_id", pa.array(item.tolist()))
    loaded = read_events(events)
    rows = read_items(world.items()).items
    lists = None if asked.shuffled else world.playlists()
    return prepare(loaded.events, rows, lists, world.listeners(), config, np.random.default_rng(seed))


def fold_in_ms(prepared: Prepared, encoder: Any, rounds: int = 200) -> float:
    """CPU milliseconds from a stored record and a reported session of ten tracks to the listener's new vector."""
    from recommender.features.tables import Histories
    from recommender.users.features import Known
    from recommender.users.snapshots import Timeline

    histories = Histories(prepared.items, prepared.tables)
    timeline = Timeline(prepared.before, prepared.items, histories, prepared.accounts).until(prepared.cut_s)
    some = [timeline.known(user) for user in timeline.users[:rounds]]
    rng = np.random.default_rng(0)
    item = rng.integers(0, len(prepared.items), (len(some), 10))
    skipped, at_s = np.zeros(10, dtype=np.bool_), np.full(10, prepared.cut_s)
    since = time.process_time()
    for known, played in zip(some, item, strict=True):
        history = histories.heard(known.history, played, skipped, at_s)
        row = prepared.features.row(Known(history, known.usage, known.made_at_s), prepared.cut_s + 60.0)
        encoder.encode(row[None])
    return 1000 * (time.process_time() - since) / len(some)


def measured(seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    config = ProtocolConfig(seeds=1)
    prepared = world_data(seed, asked, config)
    study = StudyConfig(
        kinds=tuple(asked.kinds), negatives=tuple(asked.negatives), trials=TRIALS[: asked.trials], ablate=asked.ablate
    )
    found = run_study(prepared, study, seed, 1, print)
    since = time.process_time()
    encoder = encoder_of(prepared, EncoderConfig(epochs=1), seed)
    found["epoch_cpu_s"] = time.process_time() - since
    found["fold_in_ms"] = fold_in_ms(prepared, encoder)
    del found["values"]
    return found


def over_worlds(own: list[float]) -> str:
    """The mean with its interval over worlds."""
    from scipy.stats import t

    x = np.array(own)
    if len(x) < 2:
        return f"{x.mean():+.4f}"
    half = float(t.ppf(0.975, len(x) - 1)) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():+.4f} ({x.mean() - half:+.4f} to {x.mean() + half:+.4f})"


def show(found: list[dict[str, Any]]) -> None:
    for name in found[0]["task"]:
        print(
            f"\nnext seven days, negatives {name}: vector, accuracy, AUC, AUC never heard, gain of the encoder in both"
        )
        for kind in found[0]["task"][name]:
            _line(kind, [one["task"][name][kind] for one in found], ("accuracy", "auc", "new_auc"), ("auc", "new_auc"))
    for name in found[0]["first_hours"]:
        print(f"\nfirst four hours, negatives {name}: vector, accuracy, AUC, gain")
        for kind in found[0]["first_hours"][name]:
            _line(kind, [one["first_hours"][name][kind] for one in found], ("accuracy", "auc"), ("auc",))
    for name in found[0]["clusters"]:
        print(f"\nnDCG@50 of neighbours, {name}: vector, nDCG, gain")
        for kind in found[0]["clusters"][name]:
            lines = [{"ndcg": one["clusters"][name][kind]} for one in found]
            _line(kind, lines, ("ndcg",), ("ndcg",))
    for group in found[0]["without"]:
        whole = [one["without"][""] for one in found]
        own = [one["without"][group] for one in found]
        print(f"without {group or 'nothing'}:", {m: over_worlds([b[m] - a[m] for a, b in zip(whole, own, strict=True)])
                                               for m in own[0]})  # fmt: skip
    print(f"\nencoder, CPU s: {np.mean([one['cpu_s']['encoder'] for one in found]):.1f}; "
          f"fold-in, CPU ms: {np.mean([one['fold_in_ms'] for one in found]):.3f}")  # fmt: skip


def _line(kind: str, lines: list[dict[str, Any]], means: tuple[str, ...], gains: tuple[str, ...]) -> None:
    told = [f"{np.mean([line[m]['mean'] for line in lines]):.4f}" for m in means]
    told += [over_worlds([line[m]["gain"] for line in lines]) for m in gains if "gain" in lines[0][m]]
    print("  ", kind, *told, sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="21,22,23,24,25")
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--newcomers", type=float, default=WorldConfig().new_listener_share)
    parser.add_argument("--kinds", nargs="*", default=["average", "PCA of raw features", "ALS", "BPR"], choices=KINDS)
    parser.add_argument("--negatives", nargs="*", default=["popularity^.75"], choices=NEGATIVES)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("user_representations"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in (int(text) for text in asked.seeds.split(",")):
        kept = asked.out / f"{seed}.json"
        if not kept.is_file():
            kept.write_text(json.dumps(measured(seed, asked), indent=1) + "\n", encoding="utf-8")
        found.append(json.loads(kept.read_text(encoding="utf-8")))
    show(found)


if __name__ == "__main__":
    main()
