"""Intervals: each is one function from an estimator's `Terms` to (lower, upper), and one line in `INTERVALS`.

Which to use: empirical likelihood (the default) covers at small effective sample sizes, where normal and bootstrap
intervals cover 30 to 90 % of what they promise; `anytime` may be looked at after every row; `stratified` needs weights
that fall in few classes; `bernstein` holds at any sample size and is wide; `model_assisted` trusts the reward model
and says so. Measured in benchmarks/ope_coverage.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bart.ope.intervals.anytime import confidence_sequence
from bart.ope.intervals.bootstrap import Replicates, bootstrap
from bart.ope.intervals.empirical_likelihood import empirical_likelihood as likelihood_interval
from bart.ope.intervals.model_assisted import model_assisted_interval
from bart.ope.intervals.quantiles import beta_quantile, normal_quantile, student_quantile
from bart.ope.intervals.stratified import stratified_interval
from bart.ope.records.terms import Terms
from bart.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What intervals need beside the terms.

    limits: least and largest value a decision can have; intervals are cut at them. rng: for bootstraps
    and melding. replicates: of a bootstrap (1,000 leave the ends of a 95 % interval an error of about 3 % of its
    width). user: [n], the user of each row where rows of one user are not independent.
    """

    level: float = 0.95
    limits: tuple[float, float] = (0.0, 1.0)
    rng: np.random.Generator | None = field(default=None)
    replicates: int = 1_000
    user: NDArray[Any] | None = field(default=None)

    @property
    def tail(self) -> float:
        """Probability left out at each end."""
        return (1 - self.level) / 2

    def generator(self) -> np.random.Generator:
        if self.rng is None:
            raise ValueError("rng is None; expected a numpy Generator, this interval draws random numbers")
        return self.rng


Interval: TypeAlias = Callable[[Terms, Setting], "tuple[float, float]"]


def normal(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Value -+ z standard errors. Too short while few rows carry the weight."""
    return _symmetric(terms, setting, normal_quantile(1 - setting.tail))


def student(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Value -+ t standard errors, with as many degrees of freedom as the effective sample size less 1."""
    weight = terms.control if terms.control is not None else np.ones(len(terms))
    freedom = max(_effective(weight) - 1, 1.0)
    return _symmetric(terms, setting, student_quantile(1 - setting.tail, freedom))


def percentile(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Quantiles of the bootstrap replicates; clustered by user where `user` is given."""
    value = _finite(_draw(terms, setting)).value
    lower, upper = np.quantile(value, [setting.tail, 1 - setting.tail])
    return _within(float(lower), float(upper), setting.limits)


def studentised(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Bootstrap of (replicate - value) / replicate's error; second-order right where the percentile is first."""
    draw = _finite(_draw(terms, setting))
    usable = draw.standard_error > 0
    if not usable.any() or draw.estimate_error == 0:
        return draw.estimate, draw.estimate
    t = (draw.value[usable] - draw.estimate) / draw.standard_error[usable]
    low, high = np.quantile(t, [setting.tail, 1 - setting.tail])
    value = terms.value()
    error = draw.estimate_error
    return _within(float(value - high * error), float(value - low * error), setting.limits)


def bernstein(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Holds at any sample size for rows within known limits; wide. Maurer and Pontil (2009), theorem 4."""
    if len(terms) < 2:
        return setting.limits
    moved, zero = from_zero(terms)
    s, n = moved.linear(), len(terms)
    low, high = contribution_limits(moved)
    log, middle = np.log(2 / setting.tail), zero + float(s.mean())
    half = float(np.sqrt(2 * s.var(ddof=1) * log / n) + 7 * (high - low) * log / (3 * (n - 1)))
    return _within(middle - half, middle + half, setting.limits)


def clopper_pearson(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Exact binomial limits of the mean contribution, seen as a share of its largest possible size.

    Holds for any rows within the limits (a bounded variable is at most as spread as a coin), for real counts too.
    """
    moved, zero = from_zero(terms)
    s, (low, high) = moved.linear(), contribution_limits(moved)
    if not high > low:
        return low + zero, high + zero
    n, hits = len(s), float((s - low).sum() / (high - low))
    lower = beta_quantile(setting.tail, hits, n - hits + 1) if hits > 0 else 0.0
    upper = beta_quantile(1 - setting.tail, hits + 1, n - hits) if hits < n else 1.0
    return _within(zero + low + (high - low) * lower, zero + low + (high - low) * upper, setting.limits)


def empirical_likelihood(terms: Terms, setting: Setting) -> tuple[float, float]:
    """The default: profile likelihood with weights that average 1. See `bart.ope.intervals.empirical_likelihood`.

    It is an interval of the evaluation policy's value, not of the estimator's expectation: where weights were capped or
    shrunk it uses the plain ones, so that the bias of the cap shows as a value near or beyond its end.
    """
    if terms.control is None:
        raise ValueError("this estimator has no weights; expected another interval, e.g. student")
    s = terms.base + terms.control * terms.residual if terms.shrunk else terms.linear()
    if setting.user is None:
        return likelihood_limits(terms, setting, terms.control, s)
    effect, users = design_effect(terms, setting.user)
    return likelihood_limits(terms, setting, terms.control, s, effect=effect, clusters=users)


def likelihood_limits(
    kind: Terms,
    setting: Setting,
    weight: Floats,
    contribution: Floats,
    count: Floats | None = None,
    *,
    effect: float = 1.0,
    clusters: int | None = None,
) -> tuple[float, float]:
    """The likelihood interval from rows, or from cells of `count` rows, of an estimator of which `kind` tells limits.

    The zero of rewards is moved to the least that is possible: with weights that average 1, E[w (r + c)] = E[w r] + c.
    """
    corners = np.array(corners_of(kind))
    if kind.base_limits == (0.0, 0.0):
        zero = kind.n_positions * kind.residual_limits[0]
        moved, corners[:, 1] = contribution - zero * weight, corners[:, 1] - zero * corners[:, 0]
    else:
        zero = setting.limits[0]
        moved, corners[:, 1] = contribution - zero, corners[:, 1] - zero
    lower, upper = likelihood_interval(
        weight,
        moved,
        [(w, s) for w, s in corners.tolist()],
        setting.level,
        (setting.limits[0] - zero, setting.limits[1] - zero),
        count,
        effect=effect,
        clusters=clusters,
    )
    return lower + zero, upper + zero


def design_effect(terms: Terms, user: NDArray[Any]) -> tuple[float, int]:
    """By how much rows of one user together vary more than independent ones (at least 1), and how many users there are.

    Source: Kish (1965), of the estimate's linearised rows.
    """
    _, number = np.unique(user, return_inverse=True)
    row = terms.influence()
    row = row - row.mean()
    by_user = np.bincount(number.reshape(-1), row)
    users, square = len(by_user), float(row @ row)
    if users < 2 or square <= 0:
        return 1.0, users
    return max(float(by_user @ by_user) * users / (users - 1) / square, 1.0), users


def stratified(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Binomial limits in each class of weights, melded. Needs weights in few classes and no base."""
    if terms.weight.ndim != 1 or terms.base_limits != (0.0, 0.0) or terms.shrunk:
        raise ValueError("stratified needs plain weights of single choices; expected ips or snips")
    return stratified_interval(
        terms.weight, terms.residual, terms.weight_limits[1], setting.level, setting.limits, setting.generator()
    )


def anytime(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Holds at every sample size at once, rows in the order of the log; for monitoring.

    See `bart.ope.intervals.anytime`.
    """
    if terms.base_limits != (0.0, 0.0) or terms.shrunk or terms.weight.ndim != 1:
        raise ValueError("anytime needs plain weights of single choices; expected ips or snips")
    lower, upper = confidence_sequence(
        terms.weight, terms.residual, terms.weight_limits[1], setting.level, setting.limits
    )
    return float(lower[-1]), float(upper[-1])


def model_assisted(terms: Terms, setting: Setting) -> tuple[float, float]:
    """Short where the reward model is right, wrong where it is not: only under this label. See `model_assisted`."""
    return model_assisted_interval(terms, setting.level, setting.limits)


INTERVALS: Mapping[str, Interval] = {
    "empirical_likelihood": empirical_likelihood,
    "studentised": studentised,
    "percentile": percentile,
    "normal": normal,
    "student": student,
    "bernstein": bernstein,
    "clopper_pearson": clopper_pearson,
    "stratified": stratified,
    "anytime": anytime,
    "model_assisted": model_assisted,
}


BY_USER = (
    "empirical_likelihood",
    "studentised",
    "percentile",
)  # the intervals that allow rows of one user to hang together


def interval_of(name: str, terms: Terms, setting: Setting) -> tuple[float, float]:
    """(lower, upper) by the interval of that name; a ValueError that lists the names where there is none."""
    if name not in INTERVALS:
        raise ValueError(f"interval is {name!r}; expected one of {', '.join(INTERVALS)}")
    if setting.user is not None and name not in BY_USER:
        raise ValueError(f"user is given, but {name} takes rows as independent; expected {', '.join(BY_USER)}")
    return INTERVALS[name](terms, setting)


def from_zero(terms: Terms) -> tuple[Terms, float]:
    """The terms with the least possible reward as zero, and what is to be added to their value: with weights that
    average 1, E[w (r + c)] = E[w r] + c. As they are where weights were shrunk, or a model stands beside them."""
    low, high = terms.residual_limits
    if terms.control is None or terms.shrunk or terms.base_limits != (0.0, 0.0):
        return terms, 0.0
    moved = replace(terms, residual=terms.residual - low, residual_limits=(0.0, high - low))
    return moved, terms.n_positions * low


def contribution_limits(terms: Terms) -> tuple[float, float]:
    """The least and the largest contribution that one row could have had."""
    corner = [s for _, s in corners_of(terms)]
    return min(corner), max(corner)


def corners_of(terms: Terms) -> list[tuple[float, float]]:
    """Pairs (control weight, contribution) at the edge of what could have been logged."""
    low, high = terms.residual_limits
    m = terms.n_positions
    corners = []
    for edge in terms.weight_limits:
        corners.append((edge, terms.base_limits[0] + m * edge * low))
        corners.append((edge, terms.base_limits[1] + m * edge * high))
    return corners


def _symmetric(terms: Terms, setting: Setting, quantile: float) -> tuple[float, float]:
    row = terms.influence()
    error = float(row.std(ddof=1)) / float(np.sqrt(len(row))) if len(row) > 1 else np.inf
    value = terms.value()
    return _within(value - quantile * error, value + quantile * error, setting.limits)


def _draw(terms: Terms, setting: Setting) -> Replicates:
    return bootstrap(terms, setting.replicates, setting.generator(), setting.user)


def _finite(draw: Replicates) -> Replicates:
    """Replicates in which something with weight was drawn."""
    keep = np.isfinite(draw.value)
    if not keep.any():
        raise ValueError("the weights sum to 0 in every replicate: the evaluation policy takes none of the actions")
    return Replicates(draw.value[keep], draw.standard_error[keep], draw.estimate, draw.estimate_error)


def _within(lower: float, upper: float, limits: tuple[float, float]) -> tuple[float, float]:
    """The interval, cut at what is possible."""
    return min(max(lower, limits[0]), limits[1]), max(min(upper, limits[1]), limits[0])


def _effective(weight: Floats) -> float:
    square = float(weight @ weight)
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0
