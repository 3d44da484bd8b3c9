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


@compiled(inline=True)
def _highest(score: Any) -> Any:
    """The highest of the scores, in four lanes that do not wait for each other."""
    a = b = c = d = -np.inf
    j = 0
    while j + 4 <= len(score):
        a, b, c, d = max(a, score[j]), max(b, score[j + 1]), max(c, score[j + 2]), max(d, score[j + 3])
        j += 4
    while j < len(score):
        a = max(a, score[j])
        j += 1
    return max(max(a, b), max(c, d))


@compiled()
def _count(score: Any, n: int, chosen: int, propensity: float, epsilon: float, sums: Any) -> None:
    """One choice among n actions; score: -inf of those that are not left; chosen: the number of one."""
    if n < 2:
        return
    highest, best, place = _highest(score), 0, 0
    for j in range(len(score)):
        best += score[j] == highest
    if score[chosen] == highest:
        for j in range(chosen):
            place += score[j] == highest
    else:
        place = -1
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
    offset = np.zeros(n_shelves + 1, dtype=np.int64)
    for j in range(len(shelf)):
        if shelf[j] >= 0:
            best[shelf[j]] = max(best[shelf[j]], value[j])
            offset[shelf[j] + 1] += 1
    n_left = 0
    for s in range(n_shelves):
        n_left += offset[s + 1] > 0
        offset[s + 1] += offset[s]
    # Scores by shelf, in the order of the candidates, and where each candidate stands among them.
    filled = offset[:n_shelves].copy()
    place, score_of = np.empty(len(shelf), dtype=np.int64), np.empty(len(shelf))
    for j in range(len(shelf)):
        if shelf[j] >= 0:
            place[j] = filled[shelf[j]]
            score_of[place[j]] = score[j]
            filled[shelf[j]] += 1
    for r in range(card.shape[0]):
        s = page_shelf[r]
        _count(best, n_left, s, shelf_propensity[r], shelf_epsilon[r], sums)
        best[s] = -np.inf
        n_left -= 1
        start, end = offset[s], offset[s + 1]
        among, n_among = score_of[start:end], end - start
        for c in range(card.shape[1]):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            chosen = place[card[r, c]] - start
            _count(among, n_among, chosen, card_propensity[r, c], card_epsilon[c], sums)
            among[chosen] = -np.inf
            n_among -= 1
    return sums
