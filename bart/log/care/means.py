"""Whether choices were drawn as recorded: the mean of 1 / (actions left x propensity) is 1 under the logging policy.

Each choice adds its weight less 1, a martingale difference whose variance follows from the recorded pmf. So the
standard error is known and not estimated: a few draws without any exploration are not mistaken for certainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from bart.log.care.replay import Moments

STANDARD_ERRORS = 4.0
_JUMPS = 5.0  # judged once the standard deviation is five of the largest jumps: before, a sum is far from normal
_AT_ONCE = 25_000  # choices whose moments are added up together


@dataclass(frozen=True, slots=True)
class ChoiceMean:
    """The mean of 1 / (actions left x propensity) of one choice ("shelf, row 2"; "card, column 0").

    judged: False where there are too few choices for a normal approximation. passed: within four standard errors of 1,
    or not judged.
    """

    choice: str
    n: int
    mean: float
    standard_error: float
    judged: bool
    passed: bool


class MeanWeights:
    """Adds up the moments of many pages. excluded: choices that could not enter, since some action had no chance."""

    def __init__(self) -> None:
        self.excluded = 0
        self._waiting: list[Moments] = []
        self._n_waiting = 0
        self._sums: dict[int, list[float]] = {}  # position: n, sum of weight - 1, sum of variance, largest weight

    def add(self, moments: Moments) -> None:
        """Takes the choices of some pages."""
        self.excluded += moments.excluded
        self._waiting.append(moments)
        self._n_waiting += len(moments.position)
        if self._n_waiting >= _AT_ONCE:
            self._sum_up()

    def means(self) -> tuple[ChoiceMean, ...]:
        """One for each choice of a page: shelves by row, then cards by column."""
        self._sum_up()
        in_order = sorted(self._sums, key=lambda position: (position >= 0, abs(position)))
        return tuple(_mean(position, *self._sums[position]) for position in in_order)

    def _sum_up(self) -> None:
        if not self._waiting:
            return
        all_of = Moments.concat(self._waiting)
        self._waiting, self._n_waiting = [], 0
        for at in np.unique(all_of.position).tolist():
            here = all_of.position == at
            total = self._sums.setdefault(at, [0.0, 0.0, 0.0, 1.0])
            total[0] += int(here.sum())
            total[1] += float((all_of.weight[here] - 1.0).sum())
            total[2] += float(all_of.variance[here].sum())
            total[3] = max(total[3], float(all_of.largest[here].max()))


def _mean(position: int, n: float, off: float, variance: float, largest: float) -> ChoiceMean:
    choice = f"card, column {position}" if position >= 0 else f"shelf, row {-1 - position}"
    deviation = sqrt(variance)
    judged = deviation >= _JUMPS * (largest - 1.0)
    passed = not judged or abs(off) <= STANDARD_ERRORS * deviation + 1e-9 * n
    return ChoiceMean(choice, int(n), 1.0 + off / n, deviation / n, judged, passed)
