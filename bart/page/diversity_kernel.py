"""The inner loop of Maximal Marginal Relevance."""

from __future__ import annotations

import numpy as np
from numba import float32, float64

from bart.compiled import compiled, read
from bart.types import Floats, Floats32


@compiled(read(float64), read(float32, 2), float64)
def marginal_relevance(score: Floats, similarity: Floats32, relevance: float) -> Floats:
    """The value at which each of n cards is picked, [n]; similarity: [n, n]. Equal values: the first card."""
    n = len(score)
    nearest = np.zeros(n)  # largest similarity with a picked card, at least 0
    left = np.ones(n, np.bool_)
    out = np.empty(n)
    for _ in range(n):
        chosen = -1
        top = -np.inf
        for j in range(n):
            if left[j]:
                value = relevance * score[j] - (1.0 - relevance) * nearest[j]
                if chosen < 0 or value > top:
                    chosen = j
                    top = value
        out[chosen] = top
        left[chosen] = False
        for j in range(n):
            nearest[j] = max(nearest[j], similarity[chosen, j])
    return out
