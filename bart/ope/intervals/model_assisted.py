"""Model-assisted intervals: short because they trust the reward model, right only where it is.

No interval without assumptions is narrower than Pratt's bound, and where a handful of rows match the evaluation policy
that bound is wide. Here the reward model fills the gap: its value of the policy counts as much as `strength` matched
rows. With m = strength, e the effective sample size of the weights, b the model's value and c the weighted mean of
r - q_hat (so that b + c is the self-normalised doubly robust value),

    posterior mean = b + e / (m + e) c        posterior = Beta with m + e rows in all

on the scale of the reward's limits. Where the model is right c is noise and shrinking it pays; where it is wrong the
interval is centred in the wrong place until e outgrows m, and covers anything between 0 and what it promises
(docs/selection.md has it measured). It must never stand in a report without that label.
"""

from __future__ import annotations

import numpy as np

from bart.ope.intervals.quantiles import beta_quantile
from bart.ope.records.terms import Terms

STRENGTH = 20.0  # rows: at a value of .2 the model alone then gives an interval .34 wide
LABEL = (
    "model-assisted: the reward model counts as {strength:g} matched rows; the interval covers only where the model is"
    " right, which this log cannot show"
)


def model_assisted_interval(
    terms: Terms, level: float, limits: tuple[float, float], strength: float = STRENGTH
) -> tuple[float, float]:
    """(lower, upper) of the posterior. Raises ValueError for estimators without a model, and for a strength of 0."""
    if terms.base_limits == (0.0, 0.0) and not np.any(terms.base):
        raise ValueError("model_assisted needs predicted rewards; expected dr, sndr or another estimator with q_hat")
    if terms.weight.ndim != 1:
        raise ValueError("model_assisted takes single choices; expected one weight a row")
    if not strength > 0:
        raise ValueError(f"strength is {strength}; expected a number of rows > 0")
    low, high = limits
    if not high > low:
        return low, high
    weight = terms.weight
    total = float(weight.sum())
    size = total**2 / float(weight @ weight) if total > 0 else 0.0
    correction = float(weight @ terms.residual) / total if total > 0 else 0.0
    centre = float(terms.base.mean()) + size / (strength + size) * correction
    # A share of exactly 0 or 1 has no Beta; half a row is what Jeffreys adds.
    rows = strength + size
    share = float(np.clip((centre - low) / (high - low), 0.5 / rows, 1 - 0.5 / rows))
    tail = (1 - level) / 2
    lower, upper = (beta_quantile(p, rows * share, rows * (1 - share)) for p in (tail, 1 - tail))
    return low + (high - low) * lower, low + (high - low) * upper
