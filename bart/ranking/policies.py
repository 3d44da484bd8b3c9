"""Rankings without replacement whose propensities are exact: the one primitive under shelves and cards.

A policy draws an order, k of n actions, one position at a time from those that are left. Each position has a pmf; it
is built whole, sampled by inversion, and the sampled entry is the propensity that is recorded. The joint probability of
an order is the product of these conditionals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bart.ranking import checks as check
from bart.ranking.batch import conditional_propensity
from bart.ranking.draw import Ranking, RankingPolicy, choose, draw, state_of
from bart.ranking.marginals import marginal_table, share_ties
from bart.ranking.plackett_luce import MarginalEstimate, estimate_marginal, exact_marginal, softmax
from bart.ranking.swaps import Swaps
from bart.types import Bools, Floats, Ints

__all__ = ["POLICIES", "EpsilonGreedy", "PlackettLuce", "Ranking", "RankingPolicy", "Swaps", "Uniform", "choose"]


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """With n_t actions left each has probability epsilon / n_t, and tied best ones share another 1 - epsilon.

    epsilon: a number in [0, 1] or one a position (at least as many as positions drawn). With 0 the policy is greedy:
    what it never chooses has propensity 0.
    """

    epsilon: float | Sequence[float] | Floats

    def __post_init__(self) -> None:
        # A tuple, so that policies compare and hash by value.
        object.__setattr__(self, "epsilon", check.rate("epsilon", self.epsilon))

    def rates(self, k: int) -> Floats:
        """Epsilon of the first k positions, [k]; ValueError where fewer were given."""
        if isinstance(self.epsilon, tuple):
            if len(self.epsilon) < k:
                raise ValueError(f"epsilon has {len(self.epsilon)} entries; expected at least {k}, one a position")
            return np.array(self.epsilon[:k], dtype=np.float64)
        return np.full(k, self.epsilon, dtype=np.float64)

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        score, available, position = state_of(score, available, position)
        left = int(np.count_nonzero(available))
        if left == 0:
            return np.zeros(len(score))
        epsilon = float(self.rates(position + 1)[position])
        pmf = np.where(available, epsilon / left, 0.0)
        best = available & (score == score[available].max())
        pmf[best] += (1.0 - epsilon) / int(np.count_nonzero(best))
        return pmf

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        return draw(self, score, k, rng)

    def propensity(self, score: Floats, order: Ints) -> Floats:
        score = check.finite("score", score)
        order = check.order("order", order, len(score))
        offset = np.array([0, len(score)])
        propensity: Floats = conditional_propensity(score, offset, order[None, :], self.rates(len(order)))[0]
        return propensity

    def marginal(self, score: Floats, k: int) -> Floats:
        score = check.finite("score", score)
        k = check.count("k", k)
        return share_ties(marginal_table(len(score), k, self.rates(k)), score)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Each action that is left has the same probability."""

    def rates(self, k: int) -> Floats:
        """Epsilon of the epsilon-greedy policy that is this one: 1 at each position, [k]."""
        return np.ones(k)

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        score, available, _ = state_of(score, available, position)
        return np.where(available, 1.0 / max(int(np.count_nonzero(available)), 1), 0.0)

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        return draw(self, score, k, rng)

    def propensity(self, score: Floats, order: Ints) -> Floats:
        score = check.finite("score", score)
        order = check.order("order", order, len(score))
        return 1.0 / np.arange(len(score), len(score) - len(order), -1, dtype=np.float64)

    def marginal(self, score: Floats, k: int) -> Floats:
        score = check.finite("score", score)
        k = check.count("k", k)
        marginal = np.zeros((len(score), k))
        if len(score):
            marginal[:, : len(score)] = 1.0 / len(score)
        return marginal


@dataclass(frozen=True, slots=True)
class PlackettLuce:
    """Softmax of score / temperature over the actions that are left. temperature: > 0, in units of the score.

    Source: Plackett (1975), Luce (1959).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if check.number("temperature", self.temperature, "a finite number > 0") <= 0:
            raise ValueError(f"temperature is {self.temperature}; expected a finite number > 0")

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        score, available, _ = state_of(score, available, position)
        return softmax(score, available, self.temperature)

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        return draw(self, score, k, rng)

    def propensity(self, score: Floats, order: Ints) -> Floats:
        score = check.finite("score", score)
        order = check.order("order", order, len(score))
        available = np.ones(len(score), dtype=np.bool_)
        propensity = np.empty(len(order))
        for t, action in enumerate(order.tolist()):
            propensity[t] = softmax(score, available, self.temperature)[action]
            available[action] = False
        return propensity

    def marginal(self, score: Floats, k: int) -> Floats:
        """As in the protocol, by enumeration of the sets taken; ValueError where these are too many."""
        return exact_marginal(check.finite("score", score), check.count("k", k), self.temperature)

    def marginal_estimate(
        self, score: Floats, k: int, rng: np.random.Generator, n_draws: int = 10_000
    ) -> MarginalEstimate:
        """The marginal and its standard error, each [n, k], from drawn orders; for any n."""
        score, k = check.finite("score", score), check.count("k", k)
        return estimate_marginal(score, k, self.temperature, rng, check.count("n_draws", n_draws))


POLICIES: dict[str, Callable[..., RankingPolicy]] = {
    "epsilon_greedy": EpsilonGreedy,
    "uniform": Uniform,
    "plackett_luce": PlackettLuce,
    "swaps": Swaps,
}
