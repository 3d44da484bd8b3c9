"""Pmf and marginals of Plackett-Luce rankings.

Exact marginals sum over the sets of actions that may have been taken: P(a at t) is the sum over sets S of t actions
without a of P(S was taken first) x softmax over what is left. The number of sets grows as n over k - 1, so beyond a
bound only the estimate remains; it averages conditional pmfs along drawn orders (Rao-Blackwell), not mere counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from bart.types import Bools, Floats

MAX_SETS = 100_000  # of one size: half a second and about 20 MB at 25 actions


@dataclass(frozen=True, slots=True, eq=False)
class MarginalEstimate:
    """An estimated marginal [n, k] and its standard error [n, k]."""

    marginal: Floats
    standard_error: Floats
    n_draws: int


def softmax(score: Floats, available: Bools, temperature: float) -> Floats:
    """Softmax of score / temperature over the available actions, along the last axis; 0 elsewhere."""
    left = np.where(available, score, -np.inf)
    best = left.max(axis=-1, keepdims=True, initial=-np.inf)
    # The difference first: score / temperature alone may overflow.
    # Even that may fall to minus infinity, whose weight is the 0 that it ought to be.
    with np.errstate(over="ignore", under="ignore"):
        weight = np.exp((left - np.where(np.isfinite(best), best, 0.0)) / temperature)
    total = weight.sum(axis=-1, keepdims=True)
    pmf: Floats = weight / np.where(total > 0, total, 1.0)
    return pmf


def exact_marginal(score: Floats, k: int, temperature: float) -> Floats:
    """P(action at position), [n, k]; ValueError where more than MAX_SETS sets would have to be followed."""
    n = len(score)
    depth = min(k, n)
    largest = max((comb(n, t) for t in range(depth)), default=1)
    if largest > MAX_SETS or n > 62:
        raise ValueError(
            f"the exact marginal of n = {n}, k = {k} follows {largest} sets; expected at most {MAX_SETS}; "
            "use marginal_estimate"
        )
    marginal = np.zeros((n, k))
    bit = np.int64(1) << np.arange(n, dtype=np.int64)
    taken = np.zeros(1, dtype=np.int64)  # [m] sets as bit masks
    probability = np.ones(1)
    for t in range(depth):
        available = (taken[:, None] & bit) == 0  # [m, n]
        joint = probability[:, None] * softmax(score, available, temperature)
        marginal[:, t] = joint.sum(axis=0)
        following, group = np.unique((taken[:, None] | bit)[available], return_inverse=True)
        taken = following
        probability = np.bincount(group.reshape(-1), weights=joint[available]).astype(np.float64)
    return marginal


def estimate_marginal(
    score: Floats, k: int, temperature: float, rng: np.random.Generator, n_draws: int
) -> MarginalEstimate:
    """Mean over drawn orders of the conditional pmf at each position, and the standard error of that mean."""
    if n_draws < 2:
        raise ValueError(f"n_draws is {n_draws}; expected at least 2, for a standard error")
    n = len(score)
    depth = min(k, n)
    total, square = np.zeros((n, k)), np.zeros((n, k))
    chunk = max(1, 1_000_000 // max(n, 1))
    for start in range(0, n_draws, chunk):
        b = min(chunk, n_draws - start)
        uniform = rng.random((b, k))
        available = np.ones((b, n), dtype=np.bool_)
        for t in range(depth):
            pmf = softmax(score, available, temperature)  # [b, n]
            total[:, t] += pmf.sum(axis=0)
            square[:, t] += (pmf**2).sum(axis=0)
            passed = np.cumsum(pmf, axis=1) <= uniform[:, t, None]
            last = n - 1 - np.argmax(pmf[:, ::-1] > 0, axis=1)
            action = np.minimum(passed.sum(axis=1), last)
            available[np.arange(b), action] = False
    mean = total / n_draws
    variance = np.maximum(square / n_draws - mean**2, 0.0)
    return MarginalEstimate(mean, np.sqrt(variance / (n_draws - 1)), n_draws)
