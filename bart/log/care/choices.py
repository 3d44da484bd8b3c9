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

    item: [n], numbers from 0 to n - 1 that are equal where candidates are the same item. PROPENSITY is 0 for a choice
    that was not to be had.
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

    candidates: offset [b + 1], shelf [N], item [N] (numbers within the page, as above), and the number of shelves [b].
    scores: of cards and of shelves. epsilon: [b, at least rows] and [b, at least columns].
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
    highest, n_left, n_best = -np.inf, 0, 0
    for s in score:
        if s > highest:
            highest, n_best = s, 0
        if s > -np.inf:
            n_left += 1
            n_best += s == highest
    facts[N_LEFT], facts[N_BEST], facts[PROPENSITY], facts[PMF_SUM] = n_left, n_best, 0.0, 0.0
    if n_left == 0:
        return
    explore, greedy, total = epsilon / n_left, (1.0 - epsilon) / n_best, 0.0
    for j in range(len(score)):
        if score[j] > -np.inf:
            mass = explore + greedy if score[j] == highest else explore
            total += mass
            if j == chosen:
                facts[PROPENSITY] = mass
    facts[PMF_SUM] = total


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
    taken = np.zeros(n, dtype=np.bool_)  # by item: every candidate of it
    for held in range(n):  # a pinned item stands nowhere else
        if shelf[held] < 0:
            taken[item[held]] = True
    used, best = np.zeros(n_shelves, dtype=np.bool_), np.empty(n_shelves)
    member, scores = np.empty(n, np.int64), np.empty(n)
    for r in range(rows):
        if row_shelf[r] < 0:
            continue
        best[:] = -np.inf
        for j in range(n):
            if not taken[item[j]] and not used[shelf[j]] and value[j] > best[shelf[j]]:
                best[shelf[j]] = value[j]
        _describe(best, row_shelf[r], shelf_epsilon[r], shelf_facts[r])
        if row_shelf[r] >= n_shelves:
            continue
        used[row_shelf[r]] = True
        m = 0
        for j in range(n):
            if shelf[j] == row_shelf[r]:
                member[m] = j
                m += 1
        mine = scores[:m]
        for c in range(columns):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            chosen = -1
            for k in range(m):
                mine[k] = -np.inf if taken[item[member[k]]] else score[member[k]]
                if member[k] == card[r, c]:
                    chosen = k
            _describe(mine, chosen, card_epsilon[c], card_facts[r, c])
            if card[r, c] < n:
                taken[item[card[r, c]]] = True


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
