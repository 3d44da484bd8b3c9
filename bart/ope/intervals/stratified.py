"""Intervals from the classes that weights fall in, for epsilon-greedy logs and the like.

In a class all rows weigh alike, so its mean reward is a binomial share with exact limits (Clopper and Pearson, 1934).
The value is the sum over classes of [share of the evaluation policy's decisions] x [mean reward]. Both are drawn from
their confidence distributions, lower and upper apart, and the quantiles of the sums are the limits: melding, Fay,
Proschan and Brittain (2015).
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats

CLASS_WIDTH = 0.01  # weights within this ratio are one class
MOST_CLASSES = 64
DRAWS = 4_000


def stratified_interval(
    weight: Floats,
    reward: Floats,
    largest: float,
    level: float,
    limits: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """(lower, upper). largest: the largest weight that could have been logged; a class of its own where none was.

    Raises ValueError where weights fall in more than 64 classes.
    """
    low, high = limits
    positive = weight > 0
    key = np.full(len(weight), np.iinfo(np.int64).min)
    key[positive] = np.round(np.log(weight[positive]) / CLASS_WIDTH).astype(np.int64)
    _, number = np.unique(key, return_inverse=True)
    count = np.bincount(number).astype(np.float64)
    if len(count) > MOST_CLASSES:
        raise ValueError(f"weights fall in {len(count)} classes; expected at most {MOST_CLASSES} for stratified")
    mean_weight = np.bincount(number, weights=weight) / count
    hits = np.bincount(number, weights=(reward - low) / (high - low))
    mass = count.copy()
    if mean_weight.max() < (1 - CLASS_WIDTH) * largest:
        mass, count, hits = np.append(mass, 1.0), np.append(count, 0.0), np.append(hits, 0.0)
        mean_weight = np.append(mean_weight, largest)
    share = rng.dirichlet(mass, DRAWS) * mean_weight  # [draws, classes]
    share /= share.sum(axis=1, keepdims=True)
    misses = count - hits
    # A beta distribution with a zero parameter stands at its end.
    lower = np.where(hits > 0, rng.beta(np.maximum(hits, 1e-9), misses + 1, (DRAWS, len(count))), 0.0)
    upper = np.where(misses > 0, rng.beta(hits + 1, np.maximum(misses, 1e-9), (DRAWS, len(count))), 1.0)
    tail = (1 - level) / 2
    ends = np.quantile((share * lower).sum(axis=1), tail), np.quantile((share * upper).sum(axis=1), 1 - tail)
    return float(low + (high - low) * ends[0]), float(low + (high - low) * ends[1])
