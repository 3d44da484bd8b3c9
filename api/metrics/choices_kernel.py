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
    offset = np.zeros(n_shelves + 1, dtype=np.int64)
    for j in range(len(shelf)):
        if shelf[j] >= 0:
            free[shelf[j]] = True
            best[shelf[j]] = max(best[shelf[j]], value[j])
            offset[shelf[j] + 1] += 1
    for s in range(n_shelves):
        offset[s + 1] += offset[s]
    # Scores by shelf, in the order of the candidates, and where each candidate stands among them.
    filled = offset[:n_shelves].copy()
    place, score_of = np.empty(len(shelf), dtype=np.int64), np.empty(len(shelf))
    stays = np.ones(len(shelf), dtype=np.bool_)
    for j in range(len(shelf)):
        if shelf[j] >= 0:
            place[j] = filled[shelf[j]]
            score_of[place[j]] = score[j]
            filled[shelf[j]] += 1
    for r in range(card.shape[0]):
        _count(best, free, page_shelf[r], shelf_propensity[r], shelf_epsilon[r], sums)
        free[page_shelf[r]] = False
        start, end = offset[page_shelf[r]], offset[page_shelf[r] + 1]
        among, left = score_of[start:end], stays[start:end]
        for c in range(card.shape[1]):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            chosen = place[card[r, c]] - start
            _count(among, left, chosen, card_propensity[r, c], card_epsilon[c], sums)
            left[chosen] = False
    return sums
