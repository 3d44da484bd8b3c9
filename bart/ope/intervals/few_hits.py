"""Limits that hold where a handful of rows carries the estimate: binomial ones in each class of weights.

A likelihood ratio is judged by a law that holds for many rows. Where none of four rows on the evaluation policy's
action was rewarded it ends at .38, the binomial law (Clopper and Pearson, 1934) at .60. So the value is split by
classes of weights (each at most twice its least),

    value = sum over classes of [mass of the class] x [mean share of its range that its rows earned]

The masses are those of the likelihood under weights that average 1, so that the light classes, which many rows tell,
say how much is left to the heavy ones. A class's mean has binomial limits at its effective sample size (Korn and
Graubard, 1998), the limits of the classes and the spread of the masses are put together by the squares of their
distances from the estimate (MOVER: Zou and Donner, 2008). Where one class carries all the doubt that is the exact
interval of that class. Limits are Clopper and Pearson's for a class that saw nothing and approach the mid-P ones
(Jeffreys') as both rewards and their absence were seen.
"""

from __future__ import annotations

import numpy as np

from bart.ope.intervals.quantiles import beta_quantile
from bart.types import Floats, Ints

PRIOR_ROWS = 3.0  # binomial rows that the variance within a class is shrunk towards: a few alike rows prove nothing
EXACT_HITS = 4.0  # of the rarer outcome: half of the way from exact to mid-P limits
LIGHT = -3  # weights below 1/8 are one class


def few_hits_interval(
    weight: Floats,
    contribution: Floats,
    count: Floats,
    tilt: Floats,
    corners: Floats,
    z: float,
    tail: float,
    effect: float = 1.0,
) -> tuple[float, float, float]:
    """(value, lower, upper) of E[contribution].

    weight, contribution, count: [n] rows, those that could have been logged (`corners`) with a small count among them.
    tilt: [n], of each row's probability, under which weights average 1. corners: [c, 2], pairs (weight, contribution)
    at the edge. z, tail: of the level, a normal quantile and the probability beyond each end. effect: by how much rows
    that hang together say less.
    """
    low, high = _edges(weight, corners)
    size = (high - low) * tilt
    share = np.where(high > low, (contribution - low) / np.where(high > low, high - low, 1.0), 0.0)
    total = float(count @ tilt)
    group = _classes(weight)
    amount, square = np.bincount(group, count * size), np.bincount(group, count * size**2)
    safe = np.where(amount > 0, amount, 1.0)
    mean = np.clip(np.bincount(group, count * size * share) / safe, 0.0, 1.0)
    spread = np.bincount(group, count * size * (share - mean[group]) ** 2) / safe
    draws = np.where(square > 0, amount**2 / np.where(square > 0, square, 1.0), 0.0) / effect
    mass = amount / total
    level = low + (high - low) * mean[group]
    value = float((count * tilt) @ level) / total
    between = z**2 * effect * _variance_between(level - value, weight - 1, count, tilt, total)
    below = above = 0.0
    for m, p, n, s in zip(mass, mean, draws, spread, strict=True):
        if m > 0:
            lower, upper = binomial_limits(p, _informative(n, p, s), tail)
            below, above = below + (m * (p - lower)) ** 2, above + (m * (upper - p)) ** 2
    return value, value - float(np.sqrt(below + between)), value + float(np.sqrt(above + between))


def binomial_limits(p: float, n: float, tail: float) -> tuple[float, float]:
    """Limits of a share of which p was seen in n draws, real numbers; (0, 1) for no draw."""
    hits, misses = p * n, (1 - p) * n
    exact = 0.5 + 0.5 * EXACT_HITS / (EXACT_HITS + min(hits, misses))
    lower = beta_quantile(tail, hits + 1 - exact, misses + exact) if hits + 1 - exact > 1e-9 else 0.0
    upper = beta_quantile(1 - tail, hits + exact, misses + 1 - exact) if misses + 1 - exact > 1e-9 else 1.0
    return min(lower, p), max(upper, p)


def _informative(n: float, p: float, spread: float) -> float:
    """Binomial draws that tell as much as n rows whose shares spread less than zeros and ones."""
    coin = p * (1 - p)
    if coin <= 0 or n <= 0:
        return n
    return n * coin / ((n * min(spread, coin) + PRIOR_ROWS * coin) / (n + PRIOR_ROWS))


def _classes(weight: Floats) -> Ints:
    """[n] number of each weight's class: its sign and power of two, light ones together."""
    power = np.zeros(len(weight))
    heavy = np.abs(weight) >= 2.0**LIGHT
    power[heavy] = np.floor(np.log2(np.abs(weight[heavy])) + 1e-9) - LIGHT + 1
    return np.unique(np.sign(weight) * power, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _edges(weight: Floats, corners: Floats) -> tuple[Floats, Floats]:
    """[n] least and largest contribution that a row of each weight could have had, linear between the corners."""
    at = np.unique(corners[:, 0])
    low = np.array([corners[corners[:, 0] == w, 1].min() for w in at])
    high = np.array([corners[corners[:, 0] == w, 1].max() for w in at])
    return np.interp(weight, at, low), np.interp(weight, at, high)


def _variance_between(level: Floats, excess: Floats, count: Floats, tilt: Floats, total: float) -> float:
    """Of the value, by how many rows fall in each class; what the mean of weights explains is known."""
    each = count * tilt
    slope = float(each @ (level * excess)) / max(float(each @ excess**2), 1e-300)
    return float(each @ (level - slope * excess) ** 2) / total**2
