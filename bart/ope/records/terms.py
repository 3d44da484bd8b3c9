"""What an estimator hands on: its pieces row by row, so that one interval works for all of them.

Every estimator here has the form

    value = mean(base) + sum over positions of [sum_i weight residual] / n     (or / sum_i weight, when normalised)

with base 0 and residual = reward for the importance-sampling kind, base = the model's value of the evaluation policy
and residual = reward - q_hat for the doubly robust kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bart.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """One estimator's pieces, row by row.

    base: [n]. weight, residual: [n] or [n, m] (m positions). normalised: whether weights are divided by their sum (per
    position) instead of n. control: [n], the weights whose mean is 1 in expectation, for diagnostics and as the
    constraint of empirical likelihood (weights before any cap or shrinkage); None where the estimator has none.
    shrunk: the weights were capped or shrunk on purpose, so the value is biased towards the base.
    weight_limits: least and largest weight that this log could have had. residual_limits: of `residual`.
    base_limits: of `base`. warnings: what the value rests on that no interval can show. row: [n], mean 1, by which rows
    of a subsampled log were multiplied (see `weighed`); its mean is an estimate, so that no weight constrains anything.
    """

    base: Floats
    weight: Floats
    residual: Floats
    normalised: bool = False
    control: Floats | None = None
    shrunk: bool = False
    weight_limits: tuple[float, float] = (0.0, np.inf)
    residual_limits: tuple[float, float] = (0.0, 1.0)
    base_limits: tuple[float, float] = (0.0, 0.0)
    warnings: tuple[str, ...] = field(default=())
    row: Floats | None = None

    def __len__(self) -> int:
        return len(self.base)

    @property
    def n_positions(self) -> int:
        return 1 if self.weight.ndim == 1 else int(self.weight.shape[1])

    def value(self) -> float:
        """The estimate."""
        return float(self.base.mean() + (self._total() / self._divisor()).sum())

    def linear(self) -> Floats:
        """[n] contributions whose mean is the estimate when weights are not normalised."""
        return np.asarray(self.base + _sum_positions(self.weight * self.residual))

    def influence(self) -> Floats:
        """[n] contributions whose mean is the estimate, linearised where weights are normalised.

        For a ratio R = sum w y / sum w the row is R + w (y - R) / mean(w): the delta method, so the error of their mean
        is that of the estimate to first order.
        """
        if not self.normalised:
            linear = self.linear()
            return linear if self.row is None else linear + (1 - self.row) * self.value()
        ratio = self._total() / self._divisor()
        spread = self.weight * (self.residual - ratio) * (len(self) / self._divisor())
        base = self.base if self.row is None else self.base + (1 - self.row) * self.base.mean()
        return np.asarray(base + ratio.sum() + _sum_positions(spread))

    def own_weight(self) -> Floats:
        """[n] the estimator's own weight, averaged over positions."""
        return self.weight if self.weight.ndim == 1 else np.asarray(self.weight.mean(axis=1))

    def weighed(self, row: Floats | None) -> Terms:
        """The terms with row i counting row[i] times, [n], mean 1; the same where None."""
        if row is None:
            return self
        wide = row if self.weight.ndim == 1 else row[:, None]
        least, most = float(row.min()), float(row.max())
        low, high = self.base_limits
        return replace(
            self,
            base=self.base * row,
            weight=self.weight * wide,
            control=None if self.control is None else self.control * row,
            weight_limits=(self.weight_limits[0] * least, self.weight_limits[1] * most),
            base_limits=(min(low * least, low * most), max(high * least, high * most)),
            row=row,
        )

    def _total(self) -> Floats:
        # einsum multiplies and adds in one pass, without a temporary of n rows.
        spec = "i,i->" if self.weight.ndim == 1 else "ij,ij->j"
        return np.asarray(np.einsum(spec, self.weight, self.residual))

    def _divisor(self) -> Floats:
        if not self.normalised:
            return np.asarray(float(len(self)))
        total = np.asarray(self.weight.sum(axis=0))
        if not (total > 0).all():
            raise ValueError("the weights sum to 0: the evaluation policy takes none of the logged actions")
        return total


def reward_limits(least: float, most: float) -> tuple[float, float]:
    """What rewards can be, from the least and the most that were seen: [0, 1] where they lie in it, else what was seen.

    A log of one reward alone shows no range; 0 is taken for the other end.
    """
    if least >= 0 and most <= 1:
        return 0.0, 1.0
    return (least, most) if most > least else (min(least, 0.0), max(most, 0.0))


def _sum_positions(array: Floats) -> Floats:
    return array if array.ndim == 1 else np.asarray(array.sum(axis=1))
