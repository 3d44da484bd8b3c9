"""Differences between models over listeners and over trainings: what another seed would have given is chance, too.

Sessions of one listener resemble each other, so the listener is a unit; a network trained from another seed is another
network, so the seed is one as well. With d[s, u] the mean difference of listener u under the s-th training of both
models, the variance of the mean over both is at most that of the seeds' means over S plus that of the listeners' means
over U (two crossed random effects; the interaction counts twice: Owen, The pigeonhole bootstrap, 2007). Student's
degrees of freedom are Satterthwaite's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats, Ints


@dataclass(frozen=True, slots=True)
class SeededDifference:
    """value: mean difference. error: its standard error; freedom: degrees of freedom of that. seeds, listeners: how
    many of each. seed_deviation: standard deviation of the difference over seeds, NaN for a single one."""

    value: float
    error: float
    freedom: float
    seeds: int
    listeners: int
    seed_deviation: float

    @property
    def p_value(self) -> float | None:
        """Two-sided, of no difference; None where it cannot be made."""
        from scipy.stats import t

        if not np.isfinite(self.error):
            return None
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * t.sf(abs(self.value / self.error), self.freedom))

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        from scipy.stats import t

        if not np.isfinite(self.error):
            return None
        half = float(t.ppf(0.5 + level / 2, self.freedom)) * self.error if self.error else 0.0
        return self.value - half, self.value + half


def seeded_difference(difference: Floats, user: Ints) -> SeededDifference:
    """difference: [seeds, m] by session, NaN where a metric does not apply (the same sessions under every seed); user:
    [m]. Where seeds do not differ at all (models that are not trained), listeners are the only unit."""
    has = ~np.isnan(difference).any(axis=0)
    _, cluster = np.unique(user[has], return_inverse=True)
    size = np.bincount(cluster)
    seeds, listeners = len(difference), len(size)
    nothing = float("nan")
    if not listeners:
        return SeededDifference(nothing, nothing, 1.0, seeds, 0, nothing)
    each = np.stack([np.bincount(cluster, row[has]) / size for row in difference])  # [seeds, listeners]
    value = float(each.mean())
    if listeners < 2:
        return SeededDifference(value, nothing, 1.0, seeds, listeners, nothing)
    of_listeners = float(each.mean(axis=0).var(ddof=1)) / listeners
    by_seed = each.mean(axis=1)
    of_seeds = float(by_seed.var(ddof=1)) / seeds if seeds > 1 and np.ptp(by_seed) > 0 else 0.0
    total = of_listeners + of_seeds
    parts = of_listeners**2 / (listeners - 1) + (of_seeds**2 / (seeds - 1) if of_seeds else 0.0)
    deviation = float(by_seed.std(ddof=1)) if seeds > 1 else nothing
    return SeededDifference(
        value, float(np.sqrt(total)), total**2 / parts if parts else 1.0, seeds, listeners, deviation
    )
