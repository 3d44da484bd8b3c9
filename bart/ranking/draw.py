"""What every ranking policy shares: the protocol, an order as drawn, and how one is drawn from pmfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from bart.ranking import checks as check
from bart.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """An order as drawn. order: [k] distinct actions. propensity: [k], each choice given those before it."""

    order: Ints
    propensity: Floats


@runtime_checkable
class RankingPolicy(Protocol):
    """Draws k of n actions by score, higher is better; fewer than k where n is smaller.

    All raise ValueError for a score that is not finite, k < 1, an order that repeats or leaves [0, n), or other shapes.
    """

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        """Probability of each action for the next position, [n]; 0 where not available, all 0 where none is.

        position: 0 for the first; by default the number of actions that are not available.
        """
        ...

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        """An order drawn with `rng.random(k)`, one variate a position."""
        ...

    def propensity(self, score: Floats, order: Ints) -> Floats:
        """Probability of each choice given those before it, [k]; equal to the last bit to what `rank` returned."""
        ...

    def marginal(self, score: Floats, k: int) -> Floats:
        """P(action at position), [n, k], exact; positions beyond n are 0."""
        ...


def choose(pmf: Floats, u: float) -> int:
    """The action at which the cumulative sum of `pmf` passes u in [0, 1): inversion, in the order of actions.

    The sum may end a rounding error below 1; what lies beyond goes to the last action of positive probability.
    """
    action = int(np.searchsorted(np.cumsum(pmf), u, side="right"))
    return action if action < len(pmf) else int(np.flatnonzero(pmf)[-1])


def draw(policy: RankingPolicy, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
    """An order of k actions, or of all where there are fewer, by the policy's pmfs."""
    score = check.finite("score", score)
    k = check.count("k", k)
    uniform = rng.random(k)
    depth = min(k, len(score))
    available = np.ones(len(score), dtype=np.bool_)
    order = np.empty(depth, dtype=np.int64)
    propensity = np.empty(depth)
    for t in range(depth):
        pmf = policy.pmf(score, available, t)
        action = choose(pmf, float(uniform[t]))
        order[t], propensity[t] = action, pmf[action]
        available[action] = False
    return Ranking(order, propensity)


def state_of(score: Floats, available: Bools, position: int | None) -> tuple[Floats, Bools, int]:
    """Score, mask and position of a choice, checked."""
    score = check.finite("score", score)
    available = check.mask("available", available, len(score))
    if position is None:
        position = len(score) - int(np.count_nonzero(available))
    return score, available, check.count("position", position, 0)
