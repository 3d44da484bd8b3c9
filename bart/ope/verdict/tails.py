"""Two looks at weights that a mean cannot give: how heavy a tail is, how wrong they may be before a sign turns."""

from __future__ import annotations

import numpy as np

from bart.types import Floats

LEAST_TAIL = 5  # exceedances from which a tail can be fitted
MOST_FACTOR = 100.0


def pareto_k(weight: Floats, counts: Floats | None = None) -> float | None:
    """The shape of a generalised Pareto distribution fitted to the largest weights [n], None where too few differ.

    Below .5 the variance of an importance-weighted mean is finite; beyond .7 its error is not to be believed, whatever
    the effective sample size. The tail: the largest min(n / 5, 3 sqrt(n)) weights. counts: [n] of
    rows that each stands for.
    Source: Vehtari et al., "Pareto Smoothed Importance Sampling" (2024); the fit is that of Zhang and Stephens (2009).
    """
    n = len(weight) if counts is None else int(counts.sum())
    tail = int(min(n / 5, 3 * np.sqrt(n)))
    if tail < LEAST_TAIL:
        return None
    ordered = np.sort(np.asarray(weight, dtype=np.float64))[::-1]
    if counts is not None:
        times = counts[np.argsort(weight)[::-1]]
        ordered = np.repeat(ordered, np.clip(tail + 1 - (np.cumsum(times) - times), 0, times).astype(np.int64))
    x = ordered[:tail][::-1] - ordered[tail]
    x = x[x > 0]
    if len(x) < LEAST_TAIL or x[0] == x[-1]:
        return None
    m = 30 + int(np.sqrt(len(x)))
    quarter = x[int(len(x) / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quarter)
    shape = np.log1p(-theta[:, None] * x).mean(axis=1)
    likelihood = len(x) * (np.log(-theta / shape) - shape - 1)
    share = np.exp(likelihood - likelihood.max())  # of the likeliest: differences of millions would overflow
    share /= share.sum()
    found = float(np.log1p(-float((theta * share).sum()) * x).mean())
    # Few exceedances say little: pulled towards .5 as if by ten of them.
    return (len(x) * found + 5) / (len(x) + 10)


def turning_factor(weight: Floats, reward: Floats, against: float, counts: Floats | None = None) -> float | None:
    """The least factor g by which recorded propensities must be off, each for itself, so that the self-normalised value
    may be `against`: 1 where it is so already, None where no factor up to 100 does it.

    weight, reward: [n]. counts: [n] of rows that stand for several. Each weight may lie in [w / g, w g]. The extreme
    value under such weights gives the largest ones to all rewards beyond a threshold, so it is found by sorting.
    Source: the marginal sensitivity model of Tan (2006), as solved by Zhao, Small and Bhattacharya (2019).
    """
    base = weight if counts is None else weight * counts
    order = np.argsort(reward)
    w, y = base[order], reward[order]
    if not w.sum() > 0:
        return None
    value = float(w @ y / w.sum())
    if value == against:
        return 1.0
    sign = -1.0 if value > against else 1.0  # the direction in which it must move

    def reaches(g: float) -> bool:
        low, high = w / g, w * g
        if sign > 0:  # the largest value: high weights on the largest rewards
            above, below = _ends(high, y), _starts(low, y)
        else:
            above, below = _ends(low, y), _starts(high, y)
        mean = (above[0] + below[0]) / (above[1] + below[1])
        return bool((sign * (mean - against) >= 0).any())

    if not reaches(MOST_FACTOR):
        return None
    least, most = 1.0, MOST_FACTOR
    for _ in range(40):
        middle = np.sqrt(least * most)
        least, most = (least, middle) if reaches(middle) else (middle, most)
    return float(most)


def _starts(w: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Sums of w y and of w over the first 0, 1, ..., n rows."""
    return np.concatenate([[0.0], np.cumsum(w * y)]), np.concatenate([[0.0], np.cumsum(w)])


def _ends(w: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The same over the rows that are left."""
    product, weight = _starts(w, y)
    return product[-1] - product, weight[-1] - weight
