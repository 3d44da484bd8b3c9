"""Intervals for page estimators, clustered by listener: each is one function and one line in `PAGE_INTERVALS`.

`student` (the default) reads the influence of every page on the estimate, everything that was fitted included, sums it
by listener and takes Student's quantile at the degrees of freedom that the spread of these sums supports. `jackknife`
leaves out one group of listeners after the other and fits anew. `studentised` and `percentile` resample listeners.
Measured side by side in benchmarks/page_estimators.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from scipy import stats

from bart.types import Floats, Ints

GROUPS = 40  # of listeners in the jackknife: 39 degrees of freedom leave the quantile within 3 % of the normal one


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What an estimator says about its own error.

    value: the estimate. influence: [b] of each page on it, mean 0. user: [b]. refit: the estimate when page i counts
    multiplicity[i] times.
    """

    value: float
    influence: Floats
    user: Ints
    refit: Callable[[Floats], float]

    def by_user(self) -> Floats:
        """[users] sums of influence."""
        code = np.unique(self.user, return_inverse=True)[1].reshape(-1)
        sums: Floats = np.bincount(code, self.influence).astype(np.float64)
        return sums

    def standard_error(self) -> float:
        """Clustered by listener; infinite for a single listener."""
        return _error(self.by_user(), len(self.influence))


@dataclass(frozen=True, slots=True)
class PageSetting:
    """level: nominal coverage. rng, replicates: of what resamples. lowest: no value can lie below it."""

    level: float = 0.95
    rng: np.random.Generator | None = None
    replicates: int = 1_000
    groups: int = GROUPS
    lowest: float = field(default=0.0)

    @property
    def tail(self) -> float:
        return (1 - self.level) / 2

    def generator(self) -> np.random.Generator:
        if self.rng is None:
            raise ValueError("rng is None; expected a numpy Generator, this interval draws random numbers")
        return self.rng


PageInterval: TypeAlias = Callable[[Spread, PageSetting], "tuple[float, float]"]


def normal(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Value -+ z standard errors."""
    return _around(spread.value, stats.norm.ppf(1 - setting.tail) * spread.standard_error())


def student(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Value -+ t standard errors, with fewer degrees of freedom the heavier the tails of the listeners' sums are."""
    freedom = degrees_of_freedom(spread.by_user())
    return _around(spread.value, stats.t.ppf(1 - setting.tail, freedom) * spread.standard_error())


def jackknife(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Value -+ t standard errors from fits without one group of listeners each; groups are drawn at random."""
    code = np.unique(spread.user, return_inverse=True)[1].reshape(-1)
    users = int(code.max()) + 1
    groups = min(setting.groups, users)
    if groups < 2:
        return -np.inf, np.inf
    group = (setting.generator().permutation(users) % groups)[code]
    values = np.array([spread.refit((group != g).astype(np.float64)) for g in range(groups)])
    error = float(np.sqrt((groups - 1) / groups * np.sum((values - values.mean()) ** 2)))
    return _around(spread.value, stats.t.ppf(1 - setting.tail, groups - 1) * error)


def percentile(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Quantiles of a Poisson bootstrap over listeners, by influence."""
    values = [value for value, _ in _resample(spread, setting)]
    low, high = np.quantile(values, [setting.tail, 1 - setting.tail])
    return float(low), float(high)


def studentised(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Poisson bootstrap over listeners of (replicate - value) / replicate's error, by influence."""
    t = [(value - spread.value) / error for value, error in _resample(spread, setting) if error > 0]
    if not t:
        return spread.value, spread.value
    low, high = np.quantile(t, [setting.tail, 1 - setting.tail])
    error = spread.standard_error()
    return float(spread.value - high * error), float(spread.value - low * error)


PAGE_INTERVALS: Mapping[str, PageInterval] = {
    "student": student,
    "normal": normal,
    "jackknife": jackknife,
    "studentised": studentised,
    "percentile": percentile,
}
DEFAULT_INTERVAL = "student"


def page_interval(name: str, spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """The named interval, cut at the lowest possible value."""
    if name not in PAGE_INTERVALS:
        raise ValueError(f"interval is {name!r}; expected one of {', '.join(PAGE_INTERVALS)}")
    lower, upper = PAGE_INTERVALS[name](spread, setting)
    return max(lower, setting.lowest), max(upper, setting.lowest)


def degrees_of_freedom(by_user: Floats) -> float:
    """Those of the variance of a mean of these sums: n - 1 for normal ones, fewer the heavier their tails."""
    n = len(by_user)
    centred = by_user - by_user.mean()
    square = float(np.mean(centred**2))
    if n < 3 or square == 0:
        return max(n - 1.0, 1.0)
    kurtosis = float(np.mean(centred**4)) / square**2
    return float(np.clip(2 * n / max(kurtosis - 1, 1e-9), 1.0, n - 1.0))


def _error(by_user: Floats, pages: int) -> float:
    n = len(by_user)
    return float(np.sqrt(np.sum(by_user**2) * n / (n - 1)) / pages) if n > 1 else np.inf


def _around(value: float, half: float) -> tuple[float, float]:
    return float(value - half), float(value + half)


def _resample(spread: Spread, setting: PageSetting) -> list[tuple[float, float]]:
    rng = setting.generator()
    sums = spread.by_user()
    code = np.unique(spread.user, return_inverse=True)[1].reshape(-1)
    pages = np.bincount(code).astype(np.float64)
    out = []
    for _ in range(setting.replicates):
        count = rng.poisson(1.0, len(sums)).astype(np.float64)
        drawn = float(count @ pages)
        if drawn == 0:
            continue
        shift = float(count @ sums) / drawn
        # The replicate's own influence is centred at its own mean.
        centred = sums - shift * pages
        out.append((spread.value + shift, float(np.sqrt(count @ centred**2)) / drawn))
    return out
