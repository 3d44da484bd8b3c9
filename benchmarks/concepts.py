"""The plots of docs/concepts, from numbers that are computed here: python benchmarks/concepts.py [--out docs/images].

Single choices of 10 actions; the logging policy is epsilon-greedy by the scores of a model, the evaluation policy
epsilon-greedy (.05) by scores of its own. `disagree` is the share of contexts in which their best actions differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bart.ope import LoggedChoices, estimate
from bart.ranking.policies import EpsilonGreedy

ACTIONS = 10
TARGET_EPSILON = 0.05
LOGS = 40  # seeds a point
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def pmf(best: np.ndarray, epsilon: float) -> np.ndarray:
    """[n, ACTIONS], epsilon-greedy with these best actions."""
    out = np.full((len(best), ACTIONS), epsilon / ACTIONS)
    out[np.arange(len(best)), best] += 1 - epsilon
    return out


def make_log(n: int, epsilon: float, disagree: float, rng: np.random.Generator) -> LoggedChoices:
    """n choices; the evaluation policy's best action earns .3, the logging policy's .2, any other .1."""
    best = rng.integers(0, ACTIONS, n)
    other = np.where(rng.random(n) < disagree, (best + rng.integers(1, ACTIONS, n)) % ACTIONS, best)
    logged = pmf(best, epsilon)
    action = (logged.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    chance = np.where(action == other, 0.3, np.where(action == best, 0.2, 0.1))
    reward = (rng.random(n) < chance).astype(float)
    return LoggedChoices(reward, action, logged[np.arange(n), action], pmf(other, TARGET_EPSILON))


def spread(n: int, epsilon: float, disagree: float) -> tuple[float, float, list[str]]:
    """Median width of the 95 % interval, median effective sample size, and verdicts, over `LOGS` seeds."""
    found = [
        estimate("snips", make_log(n, epsilon, disagree, np.random.default_rng([seed, n])), level=0.95)
        for seed in range(LOGS)
    ]
    width = float(np.median([one.upper - one.lower for one in found]))
    return width, float(np.median([one.effective_sample_size for one in found])), [one.verdict for one in found]


def main() -> None:
    """Writes marginals.svg, support.svg and widths.svg, and prints what they show."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bart"
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out

    def save(figure: plt.Figure, name: str) -> None:
        figure.tight_layout()
        figure.savefig(out / name, metadata={"Date": None})

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for axis, epsilon in zip(axes, (0.1, 0.5), strict=True):
        table = EpsilonGreedy(epsilon).marginal(-np.arange(12.0), 6)
        for rank, style in ((0, "-o"), (1, "--s"), (2, ":^"), (8, "-.d")):
            axis.plot(range(1, 7), table[rank], style, markersize=4, label=f"rank {rank + 1}")
        axis.set(title=f"epsilon {epsilon}", xlabel="slot", ylim=(0, 1))
    axes[0].set_ylabel("probability to stand there")
    axes[1].legend(frameon=False)
    save(figure, "marginals.svg")

    print("log of 2,000 choices; evaluation policy disagrees in half of the contexts")
    rows = [(rate, *spread(2_000, rate, 0.5)) for rate in RATES]
    for rate, width, effective, verdicts in rows:
        told = {name: verdicts.count(name) for name in ("conclusive", "weak", "unusable")}
        print(f"logging epsilon {rate:<5} width {width:.3f}  effective sample size {effective:7.1f}  {told}")
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.plot(RATES, [row[2] for row in rows], "-o", markersize=4)
    axis.set(xscale="log", yscale="log", xlabel="epsilon of the logging policy", ylabel="effective sample size")
    axis.set_xticks(RATES, [str(rate) for rate in RATES])
    axis.axhline(2_000, color="gray", linestyle=":")
    axis.annotate("2,000 logged choices", (RATES[0], 2_000), xytext=(0, -11), textcoords="offset points", fontsize=8)
    save(figure, "support.svg")

    figure, axis = plt.subplots(figsize=(6, 3))
    sizes = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
    for rate, style in ((0.02, "-o"), (0.1, "--s"), (0.5, ":^")):
        widths = [spread(n, rate, 0.5)[0] for n in sizes]
        print(f"logging epsilon {rate}: " + ", ".join(f"{n:,}: {w:.3f}" for n, w in zip(sizes, widths, strict=True)))
        axis.plot(sizes, widths, style, markersize=4, label=f"logging epsilon {rate}")
    axis.set(xscale="log", yscale="log", xlabel="choices in the log", ylabel="width of the 95 % interval")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.set_yticks((0.05, 0.1, 0.2, 0.5), ("0.05", "0.1", "0.2", "0.5"))
    axis.minorticks_off()
    axis.legend(frameon=False)
    save(figure, "widths.svg")


if __name__ == "__main__":
    main()
