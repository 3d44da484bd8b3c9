"""Epsilon-greedy rankings of a whole log at once: ragged flat arrays and offsets, no Python loop over decisions.

Whether a logged choice was greedy under another policy needs only minimum ranks: it was, when the number of earlier
choices strictly above it equals its rank; its share of the greedy mass is 1 / (tie size - earlier ones tied with it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from bart.ranking import checks as check
from bart.types import Bools, Floats, Ints

Epsilon: TypeAlias = "float | Sequence[float] | Floats"

CHUNK = 4096  # rankings drawn at a time: bounds the memory of variates, does not change what is drawn


def min_rank(score: Floats, offset: Ints) -> tuple[Ints, Ints]:
    """Rank and tie size of each action in its group, each [N].

    score: [N]. offset: [groups + 1]. rank: how many of the group score strictly higher. tie: how many score the same,
    itself included.
    """
    from bart.ranking import kernels as ranking_kernels

    score = check.finite("score", score)
    offset = check.offsets("offset", offset, len(score))
    rank = np.empty(len(score), dtype=np.int64)
    tie = np.empty(len(score), dtype=np.int64)
    ranking_kernels.min_rank(score, offset, rank, tie)
    return rank, tie


def conditional_propensity(score: Floats, offset: Ints, order: Ints, epsilon: Epsilon) -> Floats:
    """Probability of each logged choice given those before it, [groups, k], under epsilon-greedy by these scores.

    score: [N]. offset: [groups + 1]. order: [groups, k] actions numbered within their group; -1 ends a shorter row,
    where the propensity is NaN. epsilon: a number, [k] or [groups, k].
    """
    from bart.ranking import kernels as ranking_kernels

    score = check.finite("score", score)
    offset = check.offsets("offset", offset, len(score))
    groups = len(offset) - 1
    if np.ndim(order) != 2 or len(order) != groups or not np.issubdtype(np.asarray(order).dtype, np.integer):
        raise ValueError(f"order has shape {np.shape(order)}; expected ({groups}, k) of integers")
    order = np.ascontiguousarray(order, dtype=np.int64)
    propensity = np.empty(order.shape)
    bad = ranking_kernels.conditional_propensity(score, offset, order, _by_group(epsilon, order), propensity)
    if bad >= 0:
        g, t = divmod(bad, order.shape[1])
        n = offset[g + 1] - offset[g]
        raise ValueError(f"order[{g}, {t}] is {order[g, t]}; expected an action in [0, {n}) not taken before, or -1")
    return propensity


def propensity_of_rank(rank: Ints, tie: Ints, n: Ints, epsilon: Epsilon) -> Floats:
    """The same from ranks alone, [groups, k]: for policies of which only ranks are kept.

    rank, tie: [groups, k] of the chosen actions under the policy, as from `min_rank`; rank -1 ends a shorter row. n:
    [groups] actions at the first position. epsilon: a number, [k] or [groups, k].
    """
    rank, tie, n = check.integers("rank", rank), check.integers("tie", tie), check.integers("n", n)
    if rank.ndim != 2 or np.shape(tie) != rank.shape or np.shape(n) != rank.shape[:1]:
        raise ValueError(f"rank {rank.shape}, tie {np.shape(tie)}, n {np.shape(n)}; expected [g, k], [g, k] and [g]")
    epsilon = _by_group(epsilon, rank)
    propensity = np.empty(rank.shape)
    for t in range(rank.shape[1]):
        earlier = rank[:, :t]
        above = (earlier < rank[:, t, None]).sum(axis=1)
        same = (earlier == rank[:, t, None]).sum(axis=1)
        left = np.asarray(n) - t
        shown = rank[:, t] >= 0
        if np.any(shown & (left < 1)):
            raise ValueError(f"n[{int(np.argmax(shown & (left < 1)))}] is too small for {t + 1} positions")
        explore = epsilon[:, t] / np.maximum(left, 1)
        share = (1.0 - epsilon[:, t]) / np.maximum(tie[:, t] - same, 1)
        greedy: Bools = above == rank[:, t]
        propensity[:, t] = np.where(shown, np.where(greedy, explore + share, explore), np.nan)
    return propensity


def batch_rank(score: Floats, offset: Ints, k: int, epsilon: Epsilon, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Orders drawn for many groups, and their propensities, each [groups, k]; -1 and NaN where a group is smaller.

    The groups take `rng.random((groups, k))` in turn, so each is drawn as `EpsilonGreedy.rank` would.
    """
    from bart.ranking import draw_kernels

    score = check.finite("score", score)
    offset = check.offsets("offset", offset, len(score))
    k = check.count("k", k)
    groups = len(offset) - 1
    order = np.empty((groups, k), dtype=np.int64)
    propensity = np.empty((groups, k))
    by_group = _by_group(epsilon, order)
    for start in range(0, groups, CHUNK):
        part = slice(start, min(start + CHUNK, groups))
        rates = by_group[part] if len(by_group) > 1 else by_group
        uniform = rng.random((part.stop - start, k))
        draw_kernels.draw_rankings(score, offset[start : part.stop + 1], rates, uniform, order[part], propensity[part])
    return order, propensity


def _by_group(epsilon: Epsilon, order: Ints) -> Floats:
    """Epsilon [groups, k], or [1, k] where all groups share it."""
    rows = len(order) if np.ndim(epsilon) == 2 and np.shape(epsilon)[0] != 1 else 1
    return check.rates("epsilon", epsilon, (rows, order.shape[1]))
