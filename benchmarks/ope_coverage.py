"""Coverage and width of 95 % intervals for single choices, on seeded epsilon-greedy logs with a known truth.

    python benchmarks/ope_coverage.py [--logs 500] [--seed 0] [--methods "IPS normal,..."] [--cell 0]

50 actions, logging epsilon 0.1, evaluation epsilon 0.05, largest weight 475.5. D is the share of contexts in which the
two greedy actions differ. The evaluation policy's greedy actions earn 0.1 to 0.3, all others 0.05 to 0.15. Prints a
Markdown table: cells are coverage / mean width (standard error of the coverage over the logs), the last line Pratt's
lower bound on the mean width of any interval that covers 95 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bart.ope import LoggedChoices
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.intervals.choices import INTERVALS, Setting

ACTIONS, CONTEXTS = 50, 1_000
LOG_EPSILON, TARGET_EPSILON = 0.1, 0.05
CELLS = ((2_000, 1.0), (2_000, 0.5), (20_000, 1.0))
METHODS = {
    "IPS normal": ("ips", "normal"),
    "IPS Student (effective sample size)": ("ips", "student"),
    "IPS percentile bootstrap": ("ips", "percentile"),
    "IPS studentised bootstrap": ("ips", "studentised"),
    "SNIPS normal": ("snips", "normal"),
    "SNIPS percentile bootstrap": ("snips", "percentile"),
    "SNIPS studentised bootstrap": ("snips", "studentised"),
    "Clopper-Pearson on w r / wmax": ("ips", "clopper_pearson"),
    "empirical Bernstein (Maurer-Pontil)": ("ips", "bernstein"),
    "anytime-valid (betting)": ("ips", "anytime"),
    "stratified by weight class": ("ips", "stratified"),
    "empirical likelihood (default)": ("ips", "empirical_likelihood"),
}


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """mean: [contexts, actions] click probability. logged, target: [contexts] greedy actions. truth: the value."""

    mean: NDArray[np.float64]
    logged: NDArray[np.int64]
    target: NDArray[np.int64]
    truth: float


def make_world(difference: float, rng: np.random.Generator) -> World:
    mean = rng.uniform(0.05, 0.15, (CONTEXTS, ACTIONS))
    logged = rng.integers(0, ACTIONS, CONTEXTS)
    other = (logged + rng.integers(1, ACTIONS, CONTEXTS)) % ACTIONS
    differs = np.arange(CONTEXTS) < difference * CONTEXTS
    target = np.where(differs, other, logged)
    mean[np.arange(CONTEXTS), target] = rng.uniform(0.1, 0.3, CONTEXTS)
    truth = float((pmf(target, TARGET_EPSILON) * mean).sum(axis=1).mean())
    return World(mean, logged, target, truth)


def pmf(greedy: NDArray[np.int64], epsilon: float) -> NDArray[np.float64]:
    out = np.full((len(greedy), ACTIONS), epsilon / ACTIONS)
    out[np.arange(len(greedy)), greedy] += 1 - epsilon
    return out


def draw(world: World, n: int, rng: np.random.Generator) -> LoggedChoices:
    context = rng.integers(0, CONTEXTS, n)
    explore = (
        rng.random(n) < LOG_EPSILON
    )  # the simulator may flip a coin: the propensity below is that of the whole pmf
    action = np.where(explore, rng.integers(0, ACTIONS, n), world.logged[context])
    propensity = LOG_EPSILON / ACTIONS + (1 - LOG_EPSILON) * (action == world.logged[context])
    reward = (rng.random(n) < world.mean[context, action]).astype(np.float64)
    return LoggedChoices(reward, action, propensity, pmf(world.target[context], TARGET_EPSILON))


def pratt_bound(n: int, difference: float, level: float = 0.95) -> float:
    """Mean width that no interval of this coverage can fall below, in this world (Pratt, 1961).

    The mean width is the integral over v of the probability that v is inside, at least the error of the best test of v
    against the truth. For each v the null moves only the reward of the choices that weigh most, of which about
    n D epsilon / k are logged.
    """
    share, base = difference * (1 - TARGET_EPSILON + TARGET_EPSILON / ACTIONS), 0.2
    chance = difference * LOG_EPSILON / ACTIONS
    most = int(stats.binom.ppf(1 - 1e-7, n, chance)) + 1
    count = np.repeat(np.arange(most + 1), np.arange(1, most + 2))
    hits = np.concatenate([np.arange(m + 1) for m in range(most + 1)])
    mass = stats.binom.pmf(count, n, chance)
    true = mass * stats.binom.pmf(hits, count, base)
    grid = (np.arange(1_000) + 0.5) / 1_000  # the moved reward
    missed = np.empty(len(grid))
    for i, moved in enumerate(grid):
        null = mass * stats.binom.pmf(hits, count, moved)
        order = np.argsort(-(true / np.maximum(null, 1e-300)), kind="stable")
        size = np.cumsum(null[order])
        full = size <= 1 - level
        power = float(true[order][full].sum())
        edge = int(full.sum())
        if edge < len(order):  # the last point is rejected with the probability that fills the level
            power += float(true[order][edge] * (1 - level - (size[edge - 1] if edge else 0.0)) / null[order][edge])
        missed[i] = 1 - power
    return float(share * missed.mean())


def study(
    cell: tuple[int, float], logs: int, seed: int, methods: list[str]
) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Per method: coverage, mean width, milliseconds; and Pratt's bound."""
    n, difference = cell
    root = np.random.default_rng([seed, n, int(100 * difference)])
    world = make_world(difference, root)
    inside = {m: np.zeros(logs) for m in methods}
    width = {m: np.zeros(logs) for m in methods}
    spent = dict.fromkeys(methods, 0.0)
    for i, rng in enumerate(root.spawn(logs)):
        data = draw(world, n, rng)
        for m in methods:
            estimator, interval = METHODS[m]
            started = time.process_time()
            lower, upper = INTERVALS[interval](ESTIMATORS[estimator](data), Setting(rng=rng))
            spent[m] += time.process_time() - started
            inside[m][i] = lower <= world.truth <= upper
            width[m][i] = upper - lower
        if sys.stderr.isatty():
            print(f"\r{n} rows, D = {difference}: {i + 1} of {logs}", end="", file=sys.stderr)
    found = {m: (inside[m].mean(), width[m].mean(), 1e3 * spent[m] / logs) for m in methods}
    return found, pratt_bound(n, difference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=500, help="logs a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated names of the table's lines")
    parser.add_argument("--cell", type=int, action="append", choices=range(len(CELLS)), help="only these cells")
    options = parser.parse_args()
    methods = [m.strip() for m in options.methods.split(",")]
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        parser.error(f"unknown methods {unknown}; expected some of {list(METHODS)}")
    cells = [CELLS[i] for i in (options.cell or range(len(CELLS)))]
    results = [study(cell, options.logs, options.seed, methods) for cell in cells]
    print(f"Coverage / mean width of nominal 95 % intervals, {options.logs} logs a cell, seed {options.seed}")
    print(f"(standard error of a coverage of .95: {np.sqrt(0.95 * 0.05 / options.logs):.3f})\n")
    print("| method | " + " | ".join(f"n={n:,}, D={d:g}" for n, d in cells) + " | CPU ms |")
    print("|---|" + "---|" * (len(cells) + 1))
    for m in methods:
        line = " | ".join(f"{found[m][0]:.3f}/{found[m][1]:.3f}" for found, _ in results)
        print(f"| {m} | {line} | {' / '.join(f'{found[m][2]:.1f}' for found, _ in results)} |")
    print("| Pratt's bound | " + " | ".join(f"-/{bound:.3f}" for _, bound in results) + " | |")


if __name__ == "__main__":
    main()
