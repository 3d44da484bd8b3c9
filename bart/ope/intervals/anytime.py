"""An interval that holds at every sample size at once: look as often as you like, stop when you like.

The lower end bets against every value v with a capital that multiplies by 1 + lambda_i (w_i r_i - v): a nonnegative
martingale when the value is v, so by Ville's inequality it exceeds 1 / alpha with probability at most alpha, ever. Only
w r >= 0 and E[w r] = v are used, so a wrong largest weight costs width, never coverage. The upper end is the lower end
of w (1 - r), whose mean is 1 - v. The stake lambda_i for v is (m - v) / (s + (m - v)^2), which makes the capital grow
fastest for mean m and variance s; both are guessed from the rows before, and from the largest weight while they are
few. Sources: Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, Anytime-valid off-policy inference for contextual
bandits (2022); bets (there aGRAPA) by Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting
(2024), section 4.
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats

GRID = 500  # values that are bet against; the interval is widened by at most one step of it
CHUNK = 4_096  # rows multiplied at a time
SHARE = 0.5  # at most this share of the capital is at stake


def confidence_sequence(
    weight: Floats, reward: Floats, largest: float, level: float, limits: tuple[float, float] = (0.0, 1.0)
) -> tuple[Floats, Floats]:
    """(lower, upper), each [n]: the interval after each row, all of them valid together with probability `level`.

    weight, reward: [n], in the order of the log; rewards within `limits`. largest: the largest weight that is expected.
    """
    low, high = limits
    if not high > low or reward.min() < low or reward.max() > high:
        raise ValueError(f"reward lies in [{reward.min()}, {reward.max()}]; expected limits around it, got {limits}")
    share = (reward - low) / (high - low)
    alpha = (1 - level) / 2
    lower = np.minimum(lower_ends(weight * share, weight, largest, alpha), 1.0)
    upper = np.maximum(1 - lower_ends(weight * (1 - share), weight, largest, alpha), 0.0)
    return low + (high - low) * lower, low + (high - low) * upper


def lower_ends(x: Floats, weight: Floats, largest: float, alpha: float) -> Floats:
    """[n] lower ends for a mean in [0, 1] of x >= 0, which hold together with probability 1 - alpha; running maximum.

    weight, largest: what x is made with, from which stakes are guessed.
    """
    v = np.arange(1, GRID) / GRID
    mean, variance = _guess(x, weight, max(largest, 1.0))
    capital = np.zeros(len(v))
    richest = np.zeros(len(v))
    out = np.empty(len(x))
    for start in range(0, len(x), CHUNK):
        rows = slice(start, min(start + CHUNK, len(x)))
        edge = mean[rows, None] - v  # [rows, grid]
        stake = np.clip(edge / (variance[rows, None] + edge * edge), 0.0, SHARE / v)
        path = capital + np.cumsum(np.log1p(stake * (x[rows, None] - v)), axis=0)
        capital = path[-1]
        best = np.maximum(np.maximum.accumulate(path, axis=0), richest)
        richest = best[-1]
        alive = best < np.log(1 / alpha)
        # The first value that is left; one step lower, so that values between the steps are not cut off.
        out[rows] = np.where(alive.any(axis=1), np.argmax(alive, axis=1), len(v)) / GRID
    return out


def _guess(x: Floats, weight: Floats, largest: float) -> tuple[Floats, Floats]:
    """Mean and variance [n] before each row, from the rows before it: what a stake may know.

    Both start as if twice `largest` rows had been seen with mean one half and the variance of rare weights that large.
    """
    prior = 2 * largest
    before = np.concatenate([[0.0], x[:-1]])
    mean = (0.5 * prior + np.cumsum(before)) / (prior + np.cumsum(np.concatenate([[0.0], weight[:-1]])))
    square = np.cumsum((before - mean) ** 2)
    return mean, (prior * largest * mean + square) / (prior + np.arange(len(x)))
