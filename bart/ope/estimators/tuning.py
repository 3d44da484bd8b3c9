"""Choosing a cap or a shrinkage from the log itself, without the truth: SLOPE, or an upper bound of the error.

A small cap is biased, a large one varies; neither the bias nor the error is known. `slope` (Su, Srinath and
Krishnamurthy, Adaptive estimator selection for off-policy evaluation, 2020, algorithm 1) goes from the least to the
most biased value and stops where an interval no longer meets all those before it. `bias_bound` (Su et al., 2020,
section 5; what the Open Bandit Pipeline calls automatic tuning) takes the least variance + squared bound of the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.estimators.conclude import run
from bart.ope.intervals.quantiles import normal_quantile
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.terms import Terms
from bart.ope.weights.choices import choice_weight
from bart.types import Floats

# The parameter of each estimator, and whether more of it means less bias.
TUNABLE = {
    "clipped_ips": ("cap", True),
    "ncis": ("cap", True),
    "switch_dr": ("tau", True),
    "dros": ("lam", True),
    "sg_ips": ("lam", False),
    "sg_dr": ("lam", False),
}


@dataclass(frozen=True, slots=True)
class Tuned:
    """The chosen parameter and the table it was chosen from.

    parameter: its name, `estimate(name, data, **{parameter: chosen})` uses it. grid: values tried, least biased
    first; value, standard_error, score: one for each (score: estimated squared error for bias_bound, width of the
    common interval left for slope).
    """

    name: str
    method: str
    parameter: str
    chosen: float
    grid: tuple[float, ...]
    value: tuple[float, ...]
    standard_error: tuple[float, ...]
    score: tuple[float, ...]


def tune(
    name: str,
    data: LoggedChoices,
    grid: Sequence[float],
    method: str = "slope",
    level: float = 0.95,
    **parameters: Any,
) -> Tuned:
    """The best value of the grid for the cap or shrinkage of the named estimator.

    method: "slope" or "bias_bound". level: of the intervals compared (slope), or with
    which the bound of the bias holds.
    """
    if name not in TUNABLE:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(TUNABLE)}")
    if method not in ("slope", "bias_bound"):
        raise ValueError(f"method is {method!r}; expected slope or bias_bound")
    if len(grid) == 0:
        raise ValueError("grid is empty; expected at least one value to choose from")
    parameter, more_is_less_biased = TUNABLE[name]
    ordered = sorted({float(g) for g in grid}, reverse=more_is_less_biased)
    terms = [run(name, ESTIMATORS, data, {parameter: g, **parameters}) for g in ordered]
    value = np.array([t.value() for t in terms])
    error = np.array([_error(t) for t in terms])
    if method == "slope":
        index, score = slope(value, error, level)
    else:
        weight = choice_weight(data)
        bound = np.array([_bias_bound(weight, t, 1 - level) for t in terms])
        score = error**2 + bound**2
        index = int(np.argmin(score))
    return Tuned(
        name,
        method,
        parameter,
        ordered[index],
        tuple(ordered),
        tuple(value.tolist()),
        tuple(error.tolist()),
        tuple(score.tolist()),
    )


def _error(terms: Terms) -> float:
    row = terms.influence()
    return float(row.std()) / float(np.sqrt(len(row)))


def slope(value: Floats, error: Floats, level: float) -> tuple[int, Floats]:
    """The last index whose interval, twice its deviation, meets all before it; and the width that is left at each."""
    # SLOPE needs deviations that fall along the grid: the running minimum is a valid bound for each.
    half = 2 * normal_quantile(0.5 + level / 2) * np.minimum.accumulate(error)
    low = np.maximum.accumulate(value - half)
    high = np.minimum.accumulate(value + half)
    meets = high >= low
    index = len(value) - 1 if meets.all() else int(np.argmin(meets)) - 1
    return max(index, 0), high - low


def _bias_bound(weight: Floats, terms: Terms, delta: float) -> float:
    """With probability 1 - delta, at least the bias: its estimate plus a Bernstein term of the plain weights."""
    n = len(weight)
    estimated = abs(float(((weight - terms.weight) * terms.residual).mean()))
    log = np.log(2 / delta)
    spread = np.sqrt(2 * float((weight**2).mean()) * log / n)
    return float(estimated + spread + 2 * float(weight.max()) * log / (3 * n))
