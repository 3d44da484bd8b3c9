"""The world fitted on KuaiRand: its parameters with standard errors, and what the fits predict of later rows.

python benchmarks/kuairand.py --data FILE

FILE holds the rated videos as tab-separated values (docs/datasets.md). Nothing here is random.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from simulator.datasets.kuairand import ATTRIBUTION, kuairand_world, read_kuairand
from simulator.datasets.kuairand.check import held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    options = parser.parse_args()
    if options.data is None:
        print("KuaiRand is no part of this package: give its file with --data FILE (docs/datasets.md)")
        return
    log, world = read_kuairand(options.data), kuairand_world(options.data)
    print(f"{ATTRIBUTION}\n{len(log):,} rows, {world.n_users:,} users, {world.n_videos:,} videos;", end=" ")
    print(f"{log.page.max() + 1:,} pages of {(log.column == 0).sum():,} rows, {log.long_view.mean():.3f} long views")
    for name, value in world.reading.value.items():
        print(f"{name:<12} {value:.3f} +- {world.reading.error[name]:.3f}")
    taste = world.taste
    for name, step, error, trust in zip(
        ("column", "row"), taste.step, taste.step_error, (taste.column_trust, taste.row_trust), strict=True
    ):
        print(f"{name + ' step':<12} {step:.3f} +- {error:.3f} logits, trust {trust:.3f}")
    found = held_out(log)
    print(f"\nheld out: the last fifth of each user, {found.n:,} rows. Log loss of long views:")
    print(", ".join(f"{name} {loss:.4f}" for name, loss in found.log_loss.items()))
    print(f"gain over the base {found.gain[0]:.4f} +- {found.gain[1]:.4f}")
    print(f"calibration: intercept {found.intercept[0]:.3f} +- {found.intercept[1]:.3f},", end=" ")
    print(f"slope {found.slope[0]:.3f} +- {found.slope[1]:.3f}")
    print("predicted and observed by tenths: " + ", ".join(f"{p:.2f} {r:.2f}" for p, r in found.deciles))
    print("log loss of going on: " + ", ".join(f"{name} {loss:.4f}" for name, loss in found.reading.items()))


if __name__ == "__main__":
    main()
