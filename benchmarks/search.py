"""What ordering search results by the reward model earns over the caller's order, in a simulated query task.

    python -m benchmarks search [--seeds 1 2 3] [--queries 8000] [--fresh 4000]

P(a stream within the results), exactly, of the caller's order, of the prior's and of the model that learnt from the
queries served (from the third place on neighbours are exchanged with chance .2); the lift over the caller with its 95 %
interval by listener; then the same with taste and popularity switched off, where only what queries say is left.
About 40 seconds of CPU a seed and world.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.search.task import search_task
from simulator.search.world import SearchParams, SearchWorld

WORLDS = {"taste and popularity": SearchParams(), "neither": replace(SearchParams(), taste=0.0, popularity=0.0)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--queries", type=int, default=8_000)
    parser.add_argument("--fresh", type=int, default=4_000)
    asked = parser.parse_args()
    print("| world | seed | caller | prior | learnt | lift over the caller | above it |\n|---|---|---|---|---|---|---|")
    well = True
    for name, params in WORLDS.items():
        for seed in asked.seeds:
            world = SearchWorld.make(params, np.random.default_rng(seed))
            with tempfile.TemporaryDirectory() as place:
                prior, learnt = search_task(world, Path(place), queries=asked.queries, fresh=asked.fresh, seed=seed)
            above = learnt.lower > 0
            well &= above or name == "neither"
            values = " | ".join(f"{value:.4f}" for value in (learnt.caller, prior.model, learnt.model))
            lift = f"{learnt.lift:+.4f} ({learnt.lower:+.4f} to {learnt.upper:+.4f})"
            print(f"| {name} | {seed} | {values} | {lift} | {'yes' if above else 'no'} |", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
