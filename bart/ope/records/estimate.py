"""What every estimator hands back: a value, its interval, and how far the log supports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["conclusive", "weak", "unusable"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of the evaluation policy as one estimator sees it.

    value: mean reward a decision (a page: the sum over its cards). lower, upper: interval of nominal coverage `level`
    made by the method named in `interval`. n: decisions in the log. effective_sample_size: (sum w)^2 / sum w^2 of the
    estimator's own weights, at most n; n for an estimator without weights. max_weight, mean_weight: of the plain
    importance weights (mean_weight is 1 in expectation). verdict: "conclusive", "weak" or "unusable"; warnings say why.
    """

    name: str
    value: float
    lower: float
    upper: float
    level: float
    interval: str
    n: int
    effective_sample_size: float
    max_weight: float
    mean_weight: float
    verdict: Verdict
    warnings: tuple[str, ...]

    @property
    def width(self) -> float:
        """Length of the interval."""
        return self.upper - self.lower
