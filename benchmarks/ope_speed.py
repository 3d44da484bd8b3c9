"""CPU time and memory of IPS, SNIPS and DR with 95 % intervals on many single choices.

    python benchmarks/ope_speed.py [--rows 1000000] [--actions 10] [--interval percentile] [--replicates 1000] [--peer]

Prints, for the whole job (record made and checked, three estimators, each with an interval), the CPU seconds and the
peak memory beyond the inputs. `--peer` runs the Open Bandit Pipeline (obp) on the same arrays in the same process,
where it can be imported, and prints the ratios.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bart.ope import LoggedChoices, estimate


def make(rows: int, actions: int, seed: int) -> dict[str, np.ndarray]:
    """A softmax log with continuous weights, binary rewards and a rough q_hat."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 1_000, rows)
    logging = _softmax(rng.normal(size=(1_000, actions)))
    target = _softmax(1.5 * rng.normal(size=(1_000, actions)))
    mean = rng.uniform(0.05, 0.5, (1_000, actions))
    u = rng.random(rows)
    action = np.minimum((np.cumsum(logging, axis=1)[kind] < u[:, None]).sum(axis=1), actions - 1)
    reward = (rng.random(rows) < mean[kind, action]).astype(np.float64)
    jitter = np.exp(0.05 * rng.normal(size=(rows, actions)))  # no two rows alike
    pmf = target[kind] * jitter
    pmf /= pmf.sum(axis=1, keepdims=True)
    q_hat = np.clip(mean[kind] + 0.05 * rng.normal(size=(rows, actions)), 0.0, 1.0)
    return {
        "reward": reward,
        "action": action,
        "propensity": logging[kind, action],
        "target_pmf": pmf,
        "q_hat": q_hat,
    }


def ours(arrays: dict[str, np.ndarray], interval: str | None, replicates: int) -> list[tuple[str, float, float, float]]:
    data = LoggedChoices(**arrays)
    rng = np.random.default_rng(1)
    found = [estimate(name, data, interval, rng=rng, replicates=replicates) for name in ("ips", "snips", "dr")]
    return [(e.name, e.value, e.lower, e.upper) for e in found]


def peer(arrays: dict[str, np.ndarray], replicates: int) -> list[tuple[str, float, float, float]]:
    from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting

    common = {
        "reward": arrays["reward"],
        "action": arrays["action"],
        "pscore": arrays["propensity"],
        "action_dist": arrays["target_pmf"][:, :, None],
        "position": np.zeros(len(arrays["reward"]), dtype=int),
    }
    out = []
    for name, estimator in (
        ("ips", InverseProbabilityWeighting()),
        ("snips", SelfNormalizedInverseProbabilityWeighting()),
        ("dr", DoublyRobust()),
    ):
        inputs = {**common, "estimated_rewards_by_reg_model": arrays["q_hat"][:, :, None]} if name == "dr" else common
        value = estimator.estimate_policy_value(**inputs)
        end = estimator.estimate_interval(**inputs, n_bootstrap_samples=replicates, random_state=1)
        out.append((name, value, end["95.0% CI (lower)"], end["95.0% CI (upper)"]))
    return out


def measure(job: Callable[[], list[tuple[str, float, float, float]]]) -> tuple[float, float]:
    """CPU seconds, and MB of memory at the peak beyond what was held before."""
    before = _resident()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    found = job()
    spent = time.process_time() - started
    done.set()
    watcher.join()
    for name, value, lower, upper in found:
        print(f"  {name:6s} {value:.6f} [{lower:.6f}, {upper:.6f}]")
    print(f"  CPU {spent:.2f} s, peak memory beyond the inputs {(peak[0] - before) / 1e6:.0f} MB")
    return spent, (peak[0] - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--actions", type=int, default=10)
    parser.add_argument("--replicates", type=int, default=1_000)
    parser.add_argument("--interval", default="percentile", help="percentile (the peer's), or any other, or default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    arrays = make(options.rows, options.actions, options.seed)
    interval = None if options.interval == "default" else options.interval
    small = {name: array[:1_000] for name, array in arrays.items()}
    ours(small, interval, 10)  # imports and first calls are no part of the measure
    print(f"{options.rows:,} choices x {options.actions} actions, {options.replicates} replicates, {options.interval}")
    print("bart.ope")
    spent, memory = measure(lambda: ours(arrays, interval, options.replicates))
    if options.peer:
        try:
            peer(small, 10)
        except ImportError as error:
            print(f"the peer cannot be imported here ({error}); its line is left out")
        else:
            print("obp")
            theirs, their_memory = measure(lambda: peer(arrays, options.replicates))
            print(
                f"ratio: {theirs / spent:.1f} times faster, memory {memory / max(their_memory, 1e-9):.3f} of the peer's"
            )
    print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def _softmax(score: np.ndarray) -> np.ndarray:
    raised = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _resident() -> int:
    """Bytes of memory in use (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
