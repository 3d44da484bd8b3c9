"""The order by score with neighbours exchanged now and then: exploration that moves nothing by more than one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bart.ranking import checks as check
from bart.ranking.draw import Ranking, draw, state_of
from bart.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Swaps:
    """The best left, or with the rate of the position the second best left, whose place the best then takes.

    So every order that can be drawn comes of the order by score by exchanging neighbours, none of them twice; where the
    first two rates are 0 the first two stand. rate: a number in [0, 1] or one a position (at least as many as positions
    drawn): the chance that what stands there and the next are exchanged, given that it was not exchanged with the one
    before. Equal scores are in the order in which they came.
    """

    rate: float | Sequence[float] | Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check.rate("rate", self.rate))

    def rates(self, k: int) -> Floats:
        """The rate of the first k positions, [k]; ValueError where fewer were given."""
        if isinstance(self.rate, tuple):
            if len(self.rate) < k:
                raise ValueError(f"rate has {len(self.rate)} entries; expected at least {k}, one a position")
            return np.array(self.rate[:k], dtype=np.float64)
        return np.full(k, self.rate, dtype=np.float64)

    def pmf(self, score: Floats, available: Bools, position: int | None = None) -> Floats:
        score, available, position = state_of(score, available, position)
        order = np.argsort(-score, kind="stable")
        place = np.flatnonzero(available[order])  # of those left, in the order by score
        pmf = np.zeros(len(score))
        if len(place) == 0:
            return pmf
        swapped = place[0] < len(score) - len(place)  # it was passed over at the position before
        rate = 0.0 if swapped or len(place) == 1 else float(self.rates(position + 1)[position])
        pmf[order[place[0]]] = 1.0 - rate
        if len(place) > 1:
            pmf[order[place[1]]] = rate
        return pmf

    def rank(self, score: Floats, k: int, rng: np.random.Generator) -> Ranking:
        return draw(self, score, k, rng)

    def propensity(self, score: Floats, order: Ints) -> Floats:
        score = check.finite("score", score)
        order = check.order("order", order, len(score))
        available = np.ones(len(score), dtype=np.bool_)
        out = np.empty(len(order))
        for t, action in enumerate(order.tolist()):
            out[t] = self.pmf(score, available, t)[action]
            available[action] = False
        return out

    def marginal(self, score: Floats, k: int) -> Floats:
        """As in the protocol. Whether places t and t + 1 are exchanged depends on the ones before through the exchange
        of t - 1 and t alone, so that all chances follow one after another."""
        score, k = check.finite("score", score), check.count("k", k)
        n = len(score)
        rates = np.concatenate([self.rates(min(k, n)), np.zeros(1)])
        out, before = np.zeros((n, k)), 0.0  # before: chance that t - 1 and t were exchanged
        for t, row in enumerate(np.argsort(-score, kind="stable").tolist()[: k + 1]):
            now = 0.0 if t >= min(k, n - 1) else rates[t] * (1.0 - before)
            if t < k:
                out[row, t] = 1.0 - before - now
            if t > 0:
                out[row, t - 1] = before
            if t + 1 < k:
                out[row, t + 1] = now
            before = now
        return out
