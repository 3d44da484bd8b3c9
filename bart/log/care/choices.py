"""What each logged choice was made among, worked out apart from the page policy so that the two check each other.

For each choice of an epsilon-greedy page: how many actions were left, how many shared the best score, the propensity of
the chosen one, and the sum of the whole pmf. From these follow the first two moments of 1 / (actions left x
propensity), whose mean is 1 under the logging policy.
"""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.page.choices import Choices
from bart.types import Bools, Decision, Floats, Ints

# of one choice, in this order; NaN where no choice was made (padding, pins)
N_LEFT, N_BEST, PROPENSITY, PMF_SUM = range(4)


def choice_facts(decision: Decision, item: Ints, shelf_epsilon: Floats, card_epsilon: Floats) -> tuple[Floats, Floats]:
    """Facts of each choice: shelves [rows, 4] and cards [rows, columns, 4], by N_LEFT, N_BEST, PROPENSITY, PMF_SUM.

    item: [n], equal where candidates are the same item. PROPENSITY is 0 for a choice that was not to be had.
    """
    page = decision.page
    choices = Choices.to_recompute(page.shelf[None], page.card[None], page.pinned[None])
    candidates = np.array([0, len(item)]), decision.shelf, item, np.array([len(decision.shelves)])
    epsilon = shelf_epsilon[None], card_epsilon[None]
    shelf, card = facts_of_pages(candidates, (decision.score, decision.raw_score), choices, epsilon)
    return shelf[0], card[0]


def facts_of_pages(
    candidates: tuple[Ints, Ints, Ints, Ints],
    scores: tuple[Floats, Floats],
    choices: Choices,
    epsilon: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Facts of each choice of many pages: [b, rows, 4] and [b, rows, columns, 4].

    candidates: offset [b + 1], shelf [N], item [N], and the number of shelves [b]. scores: of cards and of shelves.
    epsilon: [b, at least rows] and [b, at least columns].
    """
    b, rows, columns = choices.card.shape
    shelf_facts, card_facts = np.full((b, rows, 4), np.nan), np.full((b, rows, columns, 4), np.nan)
    offset, shelf, item, n_shelves = (np.ascontiguousarray(ints, dtype=np.int64) for ints in candidates)
    score, value = (np.ascontiguousarray(each, dtype=np.float64) for each in scores)
    row_shelf, card = (np.ascontiguousarray(ints, dtype=np.int64) for ints in (choices.row_shelf, choices.card))
    pinned = np.ascontiguousarray(choices.pinned)
    of_shelf, of_card = (np.ascontiguousarray(rate, dtype=np.float64) for rate in epsilon)
    given = offset, shelf, item, n_shelves, score, value, row_shelf, card, pinned, of_shelf, of_card
    _facts_of_pages(*given, shelf_facts, card_facts)
    return shelf_facts, card_facts


@compiled()
def _describe(score: Floats, chosen: int, epsilon: float, facts: Floats) -> None:
    """score: -inf where not available."""
    highest = score.max() if len(score) else -np.inf
    n_left, n_best = 0, 0
    for s in score:
        if s > -np.inf:
            n_left += 1
            if s == highest:
                n_best += 1
    facts[N_LEFT], facts[N_BEST], facts[PROPENSITY], facts[PMF_SUM] = n_left, n_best, 0.0, 0.0
    for j in range(len(score)):
        if score[j] > -np.inf:
            mass = epsilon / n_left
            if score[j] == highest:
                mass += (1.0 - epsilon) / n_best
            facts[PMF_SUM] += mass
            if j == chosen:
                facts[PROPENSITY] = mass


@compiled()
def _leave_out(item: Ints, same: int, left: Bools) -> None:
    """Every candidate of an item is taken."""
    for j in range(len(item)):
        if item[j] == same:
            left[j] = False


@compiled()
def _facts(
    shelf: Ints,
    item: Ints,
    score: Floats,
    value: Floats,
    n_shelves: int,
    row_shelf: Ints,
    card: Ints,
    pinned: Bools,
    shelf_epsilon: Floats,
    card_epsilon: Floats,
    shelf_facts: Floats,
    card_facts: Floats,
) -> None:
    n = len(shelf)
    rows, columns = card.shape
    left = shelf >= 0
    for held in range(n):  # a pinned item stands nowhere else
        if shelf[held] < 0:
            _leave_out(item, item[held], left)
    used = np.zeros(n_shelves, dtype=np.bool_)
    for r in range(rows):
        if row_shelf[r] < 0:
            continue
        best = np.full(n_shelves, -np.inf)
        for j in range(n):
            if left[j] and not used[shelf[j]] and value[j] > best[shelf[j]]:
                best[shelf[j]] = value[j]
        _describe(best, row_shelf[r], shelf_epsilon[r], shelf_facts[r])
        if row_shelf[r] >= n_shelves:
            continue
        used[row_shelf[r]] = True
        member = np.flatnonzero(shelf == row_shelf[r])
        mine = np.empty(len(member))
        for c in range(columns):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            chosen = -1
            for m in range(len(member)):
                mine[m] = score[member[m]] if left[member[m]] else -np.inf
                if member[m] == card[r, c]:
                    chosen = m
            _describe(mine, chosen, card_epsilon[c], card_facts[r, c])
            if card[r, c] < n:
                _leave_out(item, item[card[r, c]], left)


@compiled()
def _facts_of_pages(
    offset: Ints,
    shelf: Ints,
    item: Ints,
    n_shelves: Ints,
    score: Floats,
    value: Floats,
    row_shelf: Ints,
    card: Ints,
    pinned: Bools,
    shelf_epsilon: Floats,
    card_epsilon: Floats,
    shelf_facts: Floats,
    card_facts: Floats,
) -> None:
    for i in range(len(n_shelves)):
        first, end = offset[i], offset[i + 1]
        _facts(
            shelf[first:end],
            item[first:end],
            score[first:end],
            value[first:end],
            n_shelves[i],
            row_shelf[i],
            card[i],
            pinned[i],
            shelf_epsilon[i],
            card_epsilon[i],
            shelf_facts[i],
            card_facts[i],
        )
