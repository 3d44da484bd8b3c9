"""Simulated experiments for the coverage study: listeners who differ, come back and stream more or less often."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.upkeep.arms import compare_means
from bart.ope.intervals.clusters import Clustered, clustered_mean
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.verdict.pages import judge_listeners

Floats = NDArray[np.float64]


def pages_of(rng: np.random.Generator, listeners: int, largest: float = 0.0) -> tuple[Floats, NDArray[np.int64]]:
    """Values of pages and whose they are: gamma rates of mean 1, 1 to some 20 pages each; `largest`: share of one."""
    count = 1 + rng.negative_binomial(1, 1 / 6, listeners)
    if largest:
        count[0] = int(largest / (1 - largest) * count[1:].sum()) + 1
    user = np.repeat(np.arange(listeners), count)
    return rng.poisson(rng.gamma(2, 0.5, listeners)[user]).astype(float), user


def sizes(rng: np.random.Generator, small: int, large: int, largest: float = 0.0) -> dict[str, Any]:
    """One look at two arms that earn the same, by the shorter interval."""
    means = {
        name: clustered_mean(*pages_of(rng, listeners, largest)) for name, listeners in (("a", small), ("b", large))
    }
    first, second = compare_means(means, 0.95)
    covers = second.once_lower is None or bool(second.once_lower <= 0 <= second.once_upper)
    width = np.nan if second.once_lower is None else second.once_upper - second.once_lower
    arm = first.lower is None or bool(first.lower <= 1 <= first.upper)
    return {"covers": covers, "width": width, "arm covers": arm, "conclusive": second.decision != "open"}


def daily_looks(rng: np.random.Generator, arms: int, listeners: int = 100, days: int = 30) -> dict[str, Any]:
    """Arms that earn the same, looked at every day: whether 0 is left out of any difference on any day.

    A listener comes on a Poisson number of pages a day, of a rate of their own, from a first day on that is spread over
    the first half.
    """
    users = arms * listeners
    arm = np.repeat(np.arange(arms), listeners)
    rate, effect = rng.gamma(1, 0.3, users), rng.gamma(2, 0.5, users)
    first = rng.integers(0, days // 2, users)
    size, total, square = np.zeros(users), np.zeros(users), np.zeros(users)
    alarm = once = decided = False
    for day in range(days):
        count = rng.poisson(rate) * (first <= day)
        earned = rng.poisson(effect * count)
        # Poisson values: the sum of squares of `count` pages with that sum, in expectation.
        square += np.where(count > 0, earned + earned * np.maximum(earned - 1, 0) / np.maximum(count, 1), 0.0)
        size, total = size + count, total + earned
        means = {}
        for a in range(arms):
            mine = (arm == a) & (size > 0)
            if mine.any():
                means[str(a)] = _mean(size[mine], total[mine], square[mine])
        if len(means) < arms:
            continue
        for one in compare_means(means, 0.95)[1:]:
            if one.difference_lower is not None:
                alarm |= not one.difference_lower <= 0 <= one.difference_upper
                once |= not one.once_lower <= 0 <= one.once_upper
            decided |= one.decision in ("better", "worse")
    return {"covers": not alarm, "width": np.nan, "once covers": not once, "conclusive": decided}


def _mean(size: Floats, total: Floats, square: Floats) -> Clustered:
    """`clustered_mean` from sums by listener."""
    from bart.ope.intervals.clusters import degrees_of_freedom, freedom_of_tails, jackknife_error

    n = float(size.sum())
    value = float(total.sum()) / n
    error = jackknife_error(total - value * size, size)
    variance = float(square.sum()) / n - value**2
    freedom = min(degrees_of_freedom(size), freedom_of_tails(total - value * size))
    return Clustered(value, error, freedom, int(n), len(size), float(size.max()) / n, max(variance, 1e-9))


def page_logs(rng: np.random.Generator, listeners: int, largest: float) -> dict[str, Any]:
    """The interval and the gate of page estimates, on the mean of a log of which one listener made a share."""
    value, user = pages_of(rng, listeners, largest)
    spread = Spread(float(value.mean()), value - value.mean(), user)
    lower, upper = student(spread, PageSetting())
    verdict = judge_listeners(spread.size())[0]
    return {"covers": lower <= 1 <= upper, "width": upper - lower, "conclusive": verdict == "conclusive"}


SIZES = ((6, 27), (10, 45), (20, 90), (50, 450), (200, 200))
ARM_CELLS: Mapping[str, Any] = {
    **{f"arms {a} and {b}": partial(sizes, small=a, large=b) for a, b in SIZES},
    "arms 30 and 30, one makes a third": partial(sizes, small=30, large=30, largest=1 / 3),
    "arms 100 and 100, one makes a third": partial(sizes, small=100, large=100, largest=1 / 3),
    **{f"A/A, {k} arms, 30 daily looks": partial(daily_looks, arms=k) for k in (2, 3, 5)},
    "pages of 6 listeners, one makes 70 %": partial(page_logs, listeners=6, largest=0.7),
    "pages of 50 listeners, one makes 70 %": partial(page_logs, listeners=50, largest=0.7),
    "pages of 50 listeners": partial(page_logs, listeners=50, largest=0.0),
}
