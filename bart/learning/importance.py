"""Importance weights of logged cards: how much more often uniform exposure would have shown them.

Training with these weights fits what random exposure would have shown instead of what the logging policy chose to show.
`conditional` is the product of the factors of the card's own two draws; it leaves in place what earlier draws of the
page took away. `exposure` compares the probabilities that the card stands anywhere on the page, which undoes that as
well. Single weights can be large, so they are capped and divided by their mean.

Source: McInerney et al., "Explore, Exploit, and Explain" (RecSys 2018), counterfactual training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bart.errors import SupportError
from bart.ranking.batch import min_rank
from bart.ranking.marginals import marginal_table
from bart.types import Bools, Floats, Ints, PageBatch


@dataclass(frozen=True, slots=True, eq=False)
class SeenCards:
    """The cards of a batch that are data, in the order of pages, rows, columns: each [m].

    page: number in the batch. row, column: the slot. candidate: position in the batch's flat candidates.
    """

    page: Ints
    row: Ints
    column: Ints
    candidate: Ints

    def __len__(self) -> int:
        return len(self.page)

    def part(self, chosen: slice | Bools) -> SeenCards:
        """Some of the cards."""
        return SeenCards(self.page[chosen], self.row[chosen], self.column[chosen], self.candidate[chosen])


def no_weight(batch: PageBatch, cards: SeenCards) -> Floats:  # noqa: ARG001
    """[m] ones."""
    return np.ones(len(cards))


def conditional_weight(batch: PageBatch, cards: SeenCards) -> Floats:
    """[m] (1 / n_t) / propensity of the draw of the shelf, times the same of the draw of the card.

    n_t: shelves (with a card to draw) or cards of the shelf that were left at that draw. Raises SupportError for a
    propensity outside (0, 1].
    """
    shelves, size = _shelf_sizes(batch)
    free = (batch.card >= 0) & ~batch.pinned
    drawn: Ints = np.cumsum(free, axis=2) - free  # [b, rows, columns]: cards of the row drawn before
    at = (cards.page, cards.row, cards.column)
    shelf = batch.shelf_offset[cards.page] + batch.row_shelf[cards.page, cards.row]
    shelves_left = shelves[cards.page] - cards.row
    cards_left = size[shelf] - drawn[at]
    out: Floats = (1.0 / shelves_left) / _propensity("shelf_propensity", batch.shelf_propensity[at[:2]], batch, cards)
    out *= (1.0 / cards_left) / _propensity("card_propensity", batch.card_propensity[at], batch, cards)
    return out


def exposure_weight(batch: PageBatch, cards: SeenCards) -> Floats:
    """[m] P(card anywhere on the page | uniform policy) / P(card anywhere on the page | logging policy).

    The probability is the sum over slots of P(shelf at row) P(card at column), exact for epsilon-greedy by the recorded
    scores and rates. Pins, which shift the columns of their row, are left out of account.
    """
    row_sum, row_uniform = _shelf_exposure(batch)
    card_sum, card_uniform = _card_exposure(batch)
    shelf = batch.shelf_offset[cards.page] + batch.shelf[cards.candidate]
    logged = row_sum[shelf] * card_sum[cards.candidate]
    uniform = row_uniform[shelf] * card_uniform[cards.candidate]
    bad = np.flatnonzero(~(logged > 0))
    if len(bad):
        raise SupportError(f"{_where(batch, cards, int(bad[0]))}: the logging policy never shows this card")
    out: Floats = uniform / logged
    return out


WEIGHTINGS: Mapping[str, Callable[[PageBatch, SeenCards], Floats]] = {
    "none": no_weight,
    "conditional": conditional_weight,
    "exposure": exposure_weight,
}


class WeightScale:
    """Finds the cap and the mean of weights in one pass over them, in constant memory.

    Weights are counted in bins whose edges are 2 % apart; the percentile is rounded up to an edge, so that the mean of
    the capped weights is exact.
    """

    _FINE = 1.02
    _EDGES = 3500  # bins on either side of 1: from 1e-30 to 1e30

    def __init__(self, cap: float | None = None, percentile: float | None = None) -> None:
        if cap is not None and not cap > 0:
            raise ValueError(f"cap is {cap}; expected a positive number or None")
        if percentile is not None and not 0 < percentile <= 100:
            raise ValueError(f"cap_percentile is {percentile}; expected a number in (0, 100] or None")
        self._absolute, self._percentile = cap, percentile
        self._count = np.zeros(2 * self._EDGES + 1)
        self._sum = np.zeros(2 * self._EDGES + 1)
        self.largest = 0.0  # before any cap
        self._largest_counted = 0.0

    def add(self, weight: Floats) -> None:
        """Counts weights [m], each positive."""
        if len(weight) == 0:
            return
        self.largest = max(self.largest, float(weight.max()))
        if self._absolute is not None:
            weight = np.minimum(weight, self._absolute)
        self._largest_counted = max(self._largest_counted, float(weight.max()))
        # Bin k holds the weights in (edge k - 1, edge k].
        code = np.ceil(np.log(weight) / np.log(self._FINE) - 1e-9).astype(np.int64) + self._EDGES
        np.clip(code, 0, 2 * self._EDGES, out=code)
        self._count += np.bincount(code, minlength=len(self._count))
        self._sum += np.bincount(code, weights=weight, minlength=len(self._sum))

    @property
    def cap(self) -> float:
        """Largest weight that is kept as it is."""
        return self._cap_and_mean()[0]

    @property
    def mean(self) -> float:
        """Mean of the capped weights."""
        return self._cap_and_mean()[1]

    def apply(self, weight: Floats) -> Floats:
        """[m] weights capped and divided by their mean."""
        cap, mean = self._cap_and_mean()
        out: Floats = np.minimum(weight, cap) / mean
        return out

    def _cap_and_mean(self) -> tuple[float, float]:
        total = float(self._count.sum())
        if total == 0:
            raise ValueError("no weights were counted")
        top = len(self._count) - 1
        cap = self._largest_counted
        if self._percentile is not None:
            rank = np.searchsorted(np.cumsum(self._count), total * self._percentile / 100.0 - 1e-9)
            top = min(int(rank), top)
            cap = min(cap, float(self._FINE ** (top - self._EDGES)))
        below = float(self._sum[: top + 1].sum())
        above = float(self._count[top + 1 :].sum())
        return cap, (below + cap * above) / total


def _shelf_sizes(batch: PageBatch) -> tuple[Ints, Ints]:
    """Shelves with a candidate [b], and candidates of each shelf [S]."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    inside = batch.shelf >= 0
    size = np.bincount((batch.shelf_offset[page] + batch.shelf)[inside], minlength=len(batch.rule))
    shelf_page = np.repeat(np.arange(len(batch)), np.diff(batch.shelf_offset))
    return np.bincount(shelf_page, weights=size > 0, minlength=len(batch)).astype(np.int64), size


def _card_exposure(batch: PageBatch) -> tuple[Floats, Floats]:
    """P(card stands in its row | its shelf is shown), [N], under the logging and under the uniform policy."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    group = batch.shelf_offset[page] + batch.shelf
    shelf_page = np.repeat(np.arange(len(batch)), np.diff(batch.shelf_offset))
    inside = batch.shelf >= 0
    if inside.all() and (group[1:] >= group[:-1]).all():  # as the candidate step leaves them
        size = np.bincount(group, minlength=len(batch.rule))
        return _exposure(batch.score, size, batch.card_epsilon, shelf_page)
    there = np.flatnonzero(inside)
    order = there[np.argsort(group[there], kind="stable")]
    size = np.bincount(group[there], minlength=len(batch.rule))
    logged, uniform = np.zeros(len(batch.item)), np.zeros(len(batch.item))
    logged[order], uniform[order] = _exposure(batch.score[order], size, batch.card_epsilon, shelf_page)
    return logged, uniform


def _shelf_exposure(batch: PageBatch) -> tuple[Floats, Floats]:
    """P(shelf stands on the page), [S], under the logging and under the uniform policy."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    value = np.full(len(batch.rule), -np.inf)
    inside = batch.shelf >= 0
    np.maximum.at(value, (batch.shelf_offset[page] + batch.shelf)[inside], batch.raw_score[inside])
    there = np.flatnonzero(np.isfinite(value))  # a shelf without cards cannot be drawn
    shelf_page = np.repeat(np.arange(len(batch)), np.diff(batch.shelf_offset))
    size = np.bincount(shelf_page[there], minlength=len(batch))
    logged, uniform = np.zeros(len(batch.rule)), np.zeros(len(batch.rule))
    logged[there], uniform[there] = _exposure(value[there], size, batch.shelf_epsilon, np.arange(len(batch)))
    return logged, uniform


def _exposure(score: Floats, size: Ints, epsilon: Floats, row: Ints) -> tuple[Floats, Floats]:
    """Sum over positions of the marginals of each action [n], and what it is under the uniform policy.

    score: [n], groups in a row. size: [groups]. epsilon: [rows, k], NaN at positions that were not asked for; row
    [groups]: which of them a group was drawn by. One table is summed for each distinct (size, epsilons), and actions
    look theirs up by rank; tied ones have the mean over their ranks.
    """
    offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    rank, tie = min_rank(score, offset)
    rates, of_row = _distinct_rows(epsilon)
    asked = np.count_nonzero(~np.isnan(rates), axis=1)
    key, of_group = np.unique(size * len(rates) + of_row[row], return_inverse=True)
    tables = []
    for n, which in zip((key // len(rates)).tolist(), (key % len(rates)).tolist(), strict=True):
        one = rates[which][~np.isnan(rates[which])]
        summed = marginal_table(n, len(one), one).sum(axis=1) if n and len(one) else np.zeros(n)
        tables.append(np.concatenate([[0.0], np.cumsum(summed)]))
    table = np.concatenate(tables) if tables else np.zeros(1)
    start = np.concatenate([[0], np.cumsum([len(one) for one in tables])]).astype(np.int64)
    at = np.repeat(start[of_group], size) + rank
    share = np.minimum(asked[of_row[row]] / np.maximum(size, 1), 1.0)
    out: Floats = (table[at + tie] - table[at]) / tie
    return out, np.repeat(share, size)


def _distinct_rows(values: Floats) -> tuple[Floats, Ints]:
    """The distinct rows of [n, k], NaN equal to NaN, and which of them each row is."""
    if len(values) == 0 or (np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True)):
        return values[:1], np.zeros(len(values), dtype=np.int64)
    bits = np.ascontiguousarray(values).view(np.dtype((np.void, values.shape[1] * values.itemsize))).reshape(-1)
    _, first, which = np.unique(bits, return_index=True, return_inverse=True)
    return values[first], which.reshape(-1).astype(np.int64)


def _propensity(name: str, value: Floats, batch: PageBatch, cards: SeenCards) -> Floats:
    bad = np.flatnonzero(~((value > 0) & (value <= 1)))
    if len(bad):
        raise SupportError(f"{_where(batch, cards, int(bad[0]))}: {name} is {value[bad[0]]}; expected (0, 1]")
    return value


def _where(batch: PageBatch, cards: SeenCards, i: int) -> str:
    return f"request {batch.request_id[cards.page[i]]}, row {cards.row[i]}, column {cards.column[i]}"
