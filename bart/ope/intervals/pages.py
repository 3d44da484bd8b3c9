"""Intervals for page estimators, clustered by listener: each is one function and one line in `PAGE_INTERVALS`.

`student` (the default) reads the influence of every page on the estimate, everything that was fitted included, sums it
by listener, takes the error of leaving out each in turn and Student's quantile at the degrees of freedom of that.
`jackknife` leaves out one group of listeners after the other and fits anew. `studentised` and `percentile` resample
listeners. `replicates` resamples several policies on one log together, for their differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from bart.ope.intervals.clusters import degrees_of_freedom, freedom_of_tails, jackknife_error
from bart.ope.intervals.quantiles import normal_quantile, student_quantile
from bart.types import Floats, Ints

_COUNTS = 4_000_000  # counts held at a time
GROUPS = 40  # of listeners in the jackknife: 39 degrees of freedom leave the quantile within 3 % of the normal one


def no_refit(multiplicity: Floats) -> float:
    """The refit of a `Spread` that outlives its record: one that could fit anew would keep the log's candidates."""
    raise ValueError(
        f"{len(multiplicity)} pages of which only sums are kept cannot be fitted anew; expected student, normal,"
        " studentised or percentile"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What an estimator says about its own error.

    value: the estimate. influence: [b] of each page on it, mean 0. user: [b]. refit: the estimate when page i counts
    multiplicity[i] times. pages: [b], where an entry stands for that many pages of a listener and is their sum.
    """

    value: float
    influence: Floats
    user: Ints
    refit: Callable[[Floats], float] = no_refit
    pages: Floats | None = None

    def __len__(self) -> int:
        return len(self.influence) if self.pages is None else int(self.pages.sum())

    def by_user(self) -> Floats:
        """[users] sums of influence."""
        code = np.unique(self.user, return_inverse=True)[1].reshape(-1)
        sums: Floats = np.bincount(code, self.influence).astype(np.float64)
        return sums

    def size(self) -> Floats:
        """[users] pages of each."""
        code = np.unique(self.user, return_inverse=True)[1].reshape(-1)
        pages: Floats = np.bincount(code, self.pages).astype(np.float64)
        return pages

    def minus(self, other: Spread) -> Spread:
        """Of a difference on the same pages."""
        return Spread(self.value - other.value, self.influence - other.influence, self.user, pages=self.pages)

    def standard_error(self) -> float:
        """The jackknife's by listener; infinite for a single listener."""
        return jackknife_error(self.by_user(), self.size())


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
    return _around(spread.value, normal_quantile(1 - setting.tail) * spread.standard_error())


def student(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Value -+ t standard errors, with fewer degrees of freedom the heavier the tails of the listeners' sums are."""
    freedom = min(freedom_of_tails(spread.by_user()), degrees_of_freedom(spread.size()))
    return _around(spread.value, student_quantile(1 - setting.tail, freedom) * spread.standard_error())


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
    return _around(spread.value, student_quantile(1 - setting.tail, groups - 1) * error)


def percentile(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Quantiles of a Poisson bootstrap over listeners, by influence."""
    values = replicates([spread], setting.generator(), setting.replicates)[:, 0]
    low, high = np.quantile(values, [setting.tail, 1 - setting.tail])
    return float(low), float(high)


def studentised(spread: Spread, setting: PageSetting) -> tuple[float, float]:
    """Poisson bootstrap over listeners of (replicate - value) / replicate's error, by influence."""
    sums, pages = _by_user([spread])
    found = []
    for count in _counts(len(pages), setting.generator(), setting.replicates):
        drawn = count @ pages
        shift = (count @ sums)[:, 0] / drawn
        # The replicate's own influence is centred at its own mean.
        square = count @ sums[:, 0] ** 2 - 2 * shift * (count @ (sums[:, 0] * pages)) + shift**2 * (count @ pages**2)
        error = np.sqrt(np.maximum(square, 0.0)) / drawn
        found.append(shift[error > 0] / error[error > 0])
    t = np.concatenate(found)
    if not len(t):
        return spread.value, spread.value
    low, high = np.quantile(t, [setting.tail, 1 - setting.tail])
    own = spread.standard_error()
    return float(spread.value - high * own), float(spread.value - low * own)


def replicates(spreads: Sequence[Spread], rng: np.random.Generator, count: int = 1_000) -> Floats:
    """Estimates of several policies on resampled listeners, [count, policies], from one set of Poisson counts.

    The policies must be estimated on the same pages: their errors are correlated, and differences between columns keep
    what cancels. By influence: value + sum of the drawn influences over the pages drawn.
    Raises ValueError where pages or listeners differ.
    """
    if not spreads:
        raise ValueError("spreads is empty; expected one a policy")
    for i, spread in enumerate(spreads):
        if not np.array_equal(spread.user, spreads[0].user):
            raise ValueError(
                f"spreads[{i}] is of other pages than spreads[0]; expected the same pages for all policies"
            )
    sums, pages = _by_user(spreads)
    value = np.array([spread.value for spread in spreads])
    return np.concatenate([value + (c @ sums) / (c @ pages)[:, None] for c in _counts(len(pages), rng, count)])


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


def clustered_error(each: Floats, user: Ints) -> float:
    """Standard error of the mean of each [b], pages of one listener together; infinite for a single listener."""
    return Spread(float(each.mean()), each - each.mean(), user).standard_error()


def allow_for_bias(
    interval: tuple[float, float], value: float, deviation: float, setting: PageSetting
) -> tuple[float, float]:
    """The interval with a bias in it that is unknown but has this standard deviation; either side for itself."""
    extra = normal_quantile(1 - setting.tail) * deviation
    lower, upper = (value + sign * np.hypot(end - value, extra) for sign, end in zip((-1, 1), interval, strict=True))
    return max(float(lower), min(setting.lowest, interval[0])), float(upper)


def _around(value: float, half: float) -> tuple[float, float]:
    return float(value - half), float(value + half)


def _by_user(spreads: Sequence[Spread]) -> tuple[Floats, Floats]:
    """Sums of influence [users, policies], and pages of each listener [users]."""
    code = np.unique(spreads[0].user, return_inverse=True)[1].reshape(-1)
    sums = np.stack([np.bincount(code, spread.influence) for spread in spreads], axis=1)
    return sums.astype(np.float64), np.bincount(code, spreads[0].pages).astype(np.float64)


def _counts(users: int, rng: np.random.Generator, replicates: int) -> Iterator[Floats]:
    """How often each listener is drawn, [some, users] at a time, never nobody."""
    step = max(1, _COUNTS // users)
    for first in range(0, replicates, step):
        count = rng.poisson(1.0, (min(step, replicates - first), users)).astype(np.float64)
        count[count.sum(axis=1) == 0] = 1.0
        yield count
