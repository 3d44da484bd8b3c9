"""A round of the carousel, 20,000 listeners x 862 cards x 12 slots: CPU seconds of each policy, one thread.

OMP_NUM_THREADS=1 python benchmarks/carousel.py [--data FOLDER] [--rounds 8] [--listeners 20000] [--regret]

FOLDER holds Deezer's files; without it the environment is synthetic, of the same size, which changes no time. A round
is everything: the policy ranks, the listeners respond, the policy learns. The first one of each is not counted. The
published code takes 2.3 to 3.2 s for its segment policies and, as its authors say, a few minutes for the linear ones.
With --regret: what the segment policies miss in 100 rounds, as described and with each defect (half an hour).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from simulator.datasets.carousel import (
    CarouselEnvironment,
    Defects,
    load_carousel,
    one_round,
    run_carousel,
    synthetic_carousel,
)
from simulator.datasets.carousel.policies import POLICIES

SEED = 0
PEER_S = 2.3  # of the policies that it can run in seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--listeners", type=int, default=20_000)
    parser.add_argument("--regret", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    environment = synthetic_carousel(rng) if options.data is None else load_carousel(options.data, rng)
    print(f"{len(environment.listener):,} listeners, {environment.n_cards} cards, {environment.slots} slots")
    if options.regret:
        regret(environment, options.listeners)
        return
    print(f"{'policy':<26} {'median s':>9} {'worst s':>9} {'2.3 s /':>9}")
    for name, make in POLICIES.items():
        policy, spent = make(environment), []
        rounds = options.rounds if "lin" not in name else min(options.rounds, 4)
        for _ in range(rounds + 1):
            listener = rng.integers(0, len(environment.listener), size=options.listeners)
            u = rng.random((options.listeners, environment.slots))
            start = time.process_time_ns()
            one_round(environment, policy, listener, u, rng)
            spent.append((time.process_time_ns() - start) / 1e9)
        median, worst = float(np.median(spent[1:])), max(spent[1:])
        ratio = "" if "lin" in name else f"{PEER_S / median:.0f}x"
        print(f"{name:<26} {median:>9.3f} {worst:>9.3f} {ratio:>9}", flush=True)


def regret(environment: CarouselEnvironment, listeners: int) -> None:
    """Cumulative regret after 100 rounds, three repetitions, with 95 % intervals."""
    names = [name for name in POLICIES if "lin" not in name]
    for label, defects in (
        ("as described", Defects()),
        ("all cards updated", Defects(all_cards=True)),
        ("listeners shuffled", Defects(whole_listeners=True)),
        ("both", Defects(all_cards=True, whole_listeners=True)),
    ):
        more = ["ts-seg-pessimistic-no-cascade"] if label == "as described" else []
        result = run_carousel(environment, names + more, 100, listeners, 1, repetitions=3, defects=defects)
        for name in result.regret:
            mean, lower, upper = (curve[-1] for curve in result.cumulative(name))
            print(f"{label:<20} {name:<30} {mean:>9,.0f} ({lower:,.0f} to {upper:,.0f})", flush=True)


if __name__ == "__main__":
    main()
