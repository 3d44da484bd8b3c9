"""Whether the demonstration's intervals cover the truth: many seeds at a smaller size, all of them printed.

python benchmarks/demo_coverage.py [--seeds 20] [--first 1] [--visits 6000] [--browsing W1]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from api.jobs.demo import run_demo
from api.run.progress import Quiet
from api.run.settings import load_settings

ESTIMATORS = ("dr", "ncis", "snips", "dm")


def one_seed(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report of one small demonstration."""
    settings = load_settings(
        {
            "seed": seed,
            "listener": {"epochs": 2, "hidden": 50},
            "world": {
                "listeners": arguments.listeners,
                "days": 28,
                "tracks": 4000,
                "playlists": 2700,
                "visits": arguments.visits,
                "browsing": arguments.browsing,
            },
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return run_demo(Path(folder) / "demo", settings, Quiet())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--visits", type=int, default=6000)
    parser.add_argument("--listeners", type=int, default=300)
    parser.add_argument("--browsing", default="W1")
    arguments = parser.parse_args()
    covered = dict.fromkeys(ESTIMATORS, 0)
    gains = 0
    print(
        f"{arguments.visits} visits, half of them evaluated, browsing {arguments.browsing}; new model at epsilon 0.2\n"
    )
    print("| seed | truth: logging | new, 0.2 | dr | 95 % interval | covers | verdict | ncis | snips | dm |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        policies = {p["name"]: p for p in one_seed(seed, arguments)["policies"]}
        new, logging = policies["new model, epsilon 0.2"], policies["logging"]
        truth = new["truth"]
        inside = {}
        for name in ESTIMATORS:
            e = new["estimates"][name]
            inside[name] = e["lower"] <= truth <= e["upper"]
            covered[name] += inside[name]
        gains += truth > logging["truth"]
        dr = new["estimates"]["dr"]
        others = " | ".join(f"{new['estimates'][name]['value']:.3f}" for name in ESTIMATORS[1:])
        print(
            f"| {seed} | {logging['truth']:.4f} | {truth:.4f} | {dr['value']:.4f} "
            f"| {dr['lower']:.4f} to {dr['upper']:.4f} | "
            f"{'yes' if inside['dr'] else 'no'} | {dr['verdict']} | {others} |",
            flush=True,
        )
    print(f"\nnew model above the logging policy in truth: {gains} of {arguments.seeds} seeds")
    for name in ESTIMATORS:
        print(f"{name}: interval covers the truth in {covered[name]} of {arguments.seeds} seeds")


if __name__ == "__main__":
    main()
