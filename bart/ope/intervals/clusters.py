"""A mean over decisions of listeners who come back: errors that hold with few and with unequal ones, at every look.

Listeners are the independent units. With residual sums e_u and shares h_u of the decisions, leaving out listener u
moves the mean by e_u / (N (1 - h_u)), so the jackknife's error is known without fitting anew (CR3 of MacKinnon and
White, 1985; Bell and McCaffrey, 2002). Student's degrees of freedom are those of that variance estimate (Satterthwaite)
where a listener's sum spreads in proportion to the number of decisions, as it does where listeners differ: with one who
makes a third of them there are hardly two, however many the others are. Sums with heavy tails leave fewer, too.
Skewed sums make a studentised mean miss on one side more than it gains on the other: the second term of its Edgeworth
expansion (Hall, The Bootstrap and Edgeworth Expansion, 1992, section 2.6) says by how much a quantile must grow.

`always` is a normal mixture (Robbins, 1970; Waudby-Smith et al., Time-uniform central limit theory, 2024): at
information t, of which `TIGHT` is where it is tightest, |estimate - truth| exceeds

    error sqrt((1 + TIGHT / t) (log(1 + t / TIGHT) + 2 log(1 / alpha)))

at some look with probability alpha at most. Estimates that accumulate hang together at least as much as that process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.intervals.quantiles import normal_quantile, normal_tail, student_quantile
from bart.types import Floats

TIGHT = 100.0  # independent decisions as informative as the estimate; within 10 % from 300 to 10,000 of them


@dataclass(frozen=True, slots=True)
class Clustered:
    """value: mean of a decision, or a difference of two. error: its standard error, infinite for one listener. freedom:
    degrees of freedom of that. decisions, listeners: how many. largest: share of the decisions that one listener made.
    variance: of a single decision. third: third central moment of the error."""

    value: float
    error: float
    freedom: float
    decisions: int
    listeners: int
    largest: float
    variance: float
    third: float = 0.0

    def interval(self, level: float) -> tuple[float, float]:
        """For one look, decided upon beforehand."""
        z = normal_quantile(0.5 + level / 2)
        return self._around(student_quantile(0.5 + level / 2, self.freedom) * self._widened(z))

    def always(self, level: float) -> tuple[float, float]:
        """For any number of looks, at any time."""
        if not np.isfinite(self.error) or self.error <= 0:
            return self._around(np.inf)
        ratio = self.variance / self.error**2 / TIGHT
        normal = float(np.sqrt((1 + 1 / ratio) * (np.log1p(ratio) - 2 * np.log(1 - level)))) if ratio > 0 else np.inf
        return self._around(student_quantile(1 - normal_tail(normal), self.freedom) if normal < 8 else np.inf)

    def minus(self, other: Clustered) -> Clustered:
        """The difference of two independent means (Welch, 1947)."""
        one, two = self.error**2, other.error**2
        total = one + two
        spread = one**2 / self.freedom + two**2 / other.freedom
        return Clustered(
            self.value - other.value,
            float(np.sqrt(total)),
            total**2 / spread if 0 < spread < np.inf else min(self.freedom, other.freedom),
            self.decisions + other.decisions,
            self.listeners + other.listeners,
            max(self.largest, other.largest),
            self.variance + other.variance,
            self.third - other.third,
        )

    def _widened(self, z: float) -> float:
        """By which factor the normal quantile z must grow for what skewness takes from the coverage of two sides."""
        if not 0 < self.error < np.inf:
            return 1.0
        return 1 + (self.third / self.error**3) ** 2 * (z**4 + 2 * z**2 - 3) / 18

    def _around(self, quantile: float) -> tuple[float, float]:
        half = quantile * self.error if self.error > 0 else (np.inf if not np.isfinite(quantile) else 0.0)
        return self.value - float(half), self.value + float(half)


def clustered_mean(value: Floats, listener: NDArray[Any]) -> Clustered:
    """The mean of `value` [n] over decisions, of which each is `listener`'s [n]."""
    _, number = np.unique(listener, return_inverse=True)
    number = number.reshape(-1)
    size = np.bincount(number).astype(np.float64)
    total = np.bincount(number, value)
    n = float(size.sum())
    mean = float(total.sum()) / n
    return Clustered(
        mean,
        jackknife_error(total - mean * size, size),
        min(degrees_of_freedom(size), freedom_of_tails(total - mean * size)),
        int(n),
        len(size),
        float(size.max()) / n,
        float(np.var(value)),
        third_moment(total - mean * size, size),
    )


def jackknife_error(residual: Floats, size: Floats) -> float:
    """Standard error of a mean over sum(size) decisions, from residual sums [u] of listeners with `size` [u] each.

    Infinite for a single listener.
    """
    m, n = len(size), float(size.sum())
    if m < 2:
        return np.inf
    moved = residual / (n - size)
    return float(np.sqrt((m - 1) / m * np.sum((moved - moved.mean()) ** 2)))


def third_moment(residual: Floats, size: Floats) -> float:
    """Third central moment of the same mean's error, from what leaving out each listener does to it."""
    if len(size) < 2:
        return 0.0
    moved = residual / (float(size.sum()) - size)
    return float(np.sum((moved - moved.mean()) ** 3))


def degrees_of_freedom(size: Floats) -> float:
    """Satterthwaite's of `jackknife_error`, at least 1, where a listener's sum spreads in proportion to its size [u].

    (trace of S V)^2 / trace of (S V)^2 with V = diag(size^2) and S = M' diag(a^2) M, M the residual maker.
    """
    n = float(size.sum())
    if len(size) < 2:
        return 1.0
    share = size / n
    a, v = 1 / (1 - share) ** 2, share**2
    d, c = a * share, float(a @ share**2)
    # S_uv = a_u [u = v] - d_u - d_v + c
    off = c - 2 * d
    first = float(v @ (a + off))
    w0, w1, w2 = float(v.sum()), float(v @ d), float(v @ d**2)
    everywhere = c**2 * w0**2 + 2 * w0 * w2 - 4 * c * w0 * w1 + 2 * w1**2
    second = everywhere + float(v**2 @ ((a + off) ** 2 - off**2))
    return float(np.clip(first**2 / second, 1.0, len(size) - 1.0)) if second > 0 else 1.0


def freedom_of_tails(by_user: Floats) -> float:
    """Those of the variance of a mean of these sums: n - 1 for normal ones, fewer the heavier their tails."""
    n = len(by_user)
    centred = by_user - by_user.mean()
    square = float(np.mean(centred**2))
    if n < 3 or square == 0:
        return max(n - 1.0, 1.0)
    kurtosis = float(np.mean(centred**4)) / square**2
    return float(np.clip(2 * n / max(kurtosis - 1, 1e-9), 1.0, n - 1.0))
