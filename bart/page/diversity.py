"""Maximal Marginal Relevance as a change of score before the policy draws.

Source: Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998). They build one list; here the value at which each card
would be picked becomes its score, so that greedy draws follow their list, exploration still reaches all cards and
propensities stay those of an ordinary ranking.
"""

from __future__ import annotations

import numpy as np

from bart.ranking import checks as check
from bart.types import Floats, Floats32, Ints


def diversify(score: Floats, shelf: Ints, vectors: Floats32, relevance: float = 0.6) -> Floats:
    """Scores whose descending order within each shelf is the order of Maximal Marginal Relevance, [n].

    score: [n], taken as it is: on the scale of a similarity, such as a probability. shelf: [n]; shelves do not
    affect one another, and shelf -1 keeps its scores. vectors: [n, d], unit length or zero. relevance: in [0, 1], 1
    leaves scores as they are. A card's new score is relevance x score - (1 - relevance) x its largest cosine with
    the cards picked before it in its shelf (negative ones count as 0); it never rises along the list.
    """
    from bart.page import diversity_kernel

    score = check.finite("score", score)
    shelf = check.integers("shelf", shelf)
    vectors = np.asarray(check.numbers("vectors", vectors), dtype=np.float32)
    if shelf.shape != score.shape or vectors.ndim != 2 or len(vectors) != len(score):
        raise ValueError(
            f"score {score.shape}, shelf {shelf.shape} and vectors {vectors.shape} must be [n], [n], [n, d]"
        )
    if not 0 <= check.number("relevance", relevance, "a number in [0, 1]") <= 1:
        raise ValueError(f"relevance is {relevance}; expected a number in [0, 1]")
    if not np.isfinite(vectors).all():
        raise ValueError(f"vectors[{int(np.argwhere(~np.isfinite(vectors))[0][0])}] is not finite")
    out = score.copy()
    if relevance == 1:
        return out
    order = np.argsort(shelf, kind="stable")
    bound = np.flatnonzero(np.diff(shelf[order])) + 1
    for member in np.split(order, bound):
        if len(member) and shelf[member[0]] >= 0:
            vector = vectors[member]
            out[member] = diversity_kernel.marginal_relevance(score[member], vector @ vector.T, relevance)
    return out
