"""The arena's own table, and whether two disjoint sets of seeds put the estimators in the same order.

    python -m benchmarks arena --out DIR [--seeds 6]

The first half of the seeds against the second. What is answered stays in DIR. Some four minutes of CPU a seed.
--truths works out the true values anew and says how far they are from those that belong to the version.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from simulator.arena.entries import OURS
from simulator.arena.run import run
from simulator.arena.table import markdown, order_tau
from simulator.arena.truth import truths, work_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--truths", action="store_true")
    asked = parser.parse_args()
    if asked.truths:
        again, held = work_out(stream=1), truths()
        off = np.array([again.value[world] / held.value[world] - 1 for world in held.value])
        error = np.array([np.hypot(again.error[world], held.error[world]) / held.value[world] for world in held.value])
        print(
            f"truths of other visits: off by {np.abs(off).max():.4f} at most, standard errors {error.max():.4f} at most"
        )
    if asked.out is not None:
        seeds = range(1, asked.seeds + 1)
        rows = run(OURS, seeds, asked.out / "answers.jsonl", asked.jobs)
        print(markdown(rows))
        half = asked.seeds // 2
        first, second = ([row for row in rows if (row["seed"] <= half) == one] for one in (True, False))
        if first and second:
            told = f"seeds 1 to {half} and {half + 1} to {asked.seeds}"
            print(f"Kendall's tau of the order by RMSE, {told}: {order_tau(first, second):.3f}")


if __name__ == "__main__":
    main()
