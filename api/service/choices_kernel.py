"""Counts the choices of one page, in machine code: it is done at every request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float64, int64

from bart.compiled import compiled, read

_CLOSE = 1 + 1e-9
# of what a page adds to each sum, in the order of `PageChoices`
N, EXPLORED, WEIGHT, WEIGHT_EXPECTED, WEIGHT_VARIANCE = 0, 1, 2, 3, 4
GREEDY, GREEDY_EXPECTED, GREEDY_VARIANCE = 5, 6, 7
TIE_PLACE, TIE_EXPECTED, TIE_VARIANCE = 8, 9, 10
SUMS = 11


@compiled()
def _count(score: Any, left: Any, chosen: int, propensity: float, epsilon: float, sums: Any) -> None:
    """One choice among the actions left; chosen: its number."""
    n, best, highest, place = 0, 0, -np.inf, -1
    for j in range(len(score)):
        if left[j]:
            n += 1
            if score[j] > highest:
                highest, best, place = score[j], 0, -1
            if score[j] == highest:
                if j == chosen:
                    place = best
                best += 1
    if n < 2:
        return
    low = epsilon / n
    high = low + (1.0 - epsilon) / best
    sums[N] += 1
    sums[EXPLORED] += propensity * n <= epsilon * _CLOSE
    sums[WEIGHT] += 1.0 / (n * propensity)
    # Without exploration the others are never drawn: the weight of the best is all that can be expected.
    inverse = best / high + ((n - best) / low if low > 0 else 0.0)
    expected = 1.0 if low > 0 else best / n
    sums[WEIGHT_EXPECTED] += expected
    sums[WEIGHT_VARIANCE] += max(inverse / n**2 - expected**2, 0.0)
    greedy = min(best * high, 1.0)
    sums[GREEDY] += place >= 0
    sums[GREEDY_EXPECTED] += greedy
    sums[GREEDY_VARIANCE] += greedy * (1.0 - greedy)
    if place >= 0 and best > 1:
        sums[TIE_PLACE] += (place + 0.5) / best
        sums[TIE_EXPECTED] += 0.5
        sums[TIE_VARIANCE] += (1.0 - 1.0 / best**2) / 12.0


@compiled(
    *(read(int64), int64, read(int64), read(int64, 2), read(boolean, 2)),
    *(read(float64), read(float64), read(float64), read(float64, 2), read(float64), read(float64)),
)
def count_choices(
    shelf: Any,
    n_shelves: int,
    page_shelf: Any,
    card: Any,
    pinned: Any,
    shelf_epsilon: Any,
    card_epsilon: Any,
    shelf_propensity: Any,
    card_propensity: Any,
    score: Any,
    value: Any,
) -> Any:
    """[11] sums in the order above; arguments as in `Decision` and `Page`, value: the raw scores."""
    sums = np.zeros(SUMS)
    best = np.full(n_shelves, -np.inf)
    free = np.zeros(n_shelves, dtype=np.bool_)
    for j in range(len(shelf)):
        if shelf[j] >= 0:
            free[shelf[j]] = True
            best[shelf[j]] = max(best[shelf[j]], value[j])
    for r in range(card.shape[0]):
        _count(best, free, page_shelf[r], shelf_propensity[r], shelf_epsilon[r], sums)
        free[page_shelf[r]] = False
        member = np.flatnonzero(shelf == page_shelf[r])
        among, left = score[member], np.ones(len(member), dtype=np.bool_)
        for c in range(card.shape[1]):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            chosen = np.searchsorted(member, card[r, c])
            _count(among, left, chosen, card_propensity[r, c], card_epsilon[c], sums)
            left[chosen] = False
    return sums
