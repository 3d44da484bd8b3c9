"""Inner loops that draw: many epsilon-greedy rankings, or many pages, in one call.

For pages one loop decides and recomputes, so that a recorded propensity comes out the same to the last bit. All
candidates of page i are offset[i]:offset[i + 1] of the flat arrays; numbers of cards and shelves are within the page.
One file, since a cached function is compiled anew only when its own file changes.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64

from bart.compiled import compiled, read, write
from bart.types import Bools, Floats, Ints

FINE, BAD_SHELF, BAD_CARD, BAD_PIN, BELOW_END, CUT_SHORT, GAP = 0, 1, 2, 3, 4, 5, 6


@compiled()
def maximum(value: Floats, n: int) -> float:
    """Maximum of the first n > 0 values, in four lanes: one alone waits for each comparison."""
    a = b = c = d = value[0]
    for j in range(0, n - 3, 4):
        a = value[j] if value[j] > a else a
        b = value[j + 1] if value[j + 1] > b else b
        c = value[j + 2] if value[j + 2] > c else c
        d = value[j + 3] if value[j + 3] > d else d
    for j in range(n - n % 4, n):
        a = value[j] if value[j] > a else a
    top: float = max(max(a, b), max(c, d))
    return top


@compiled()
def invert(value: Floats, n: int, top: float, explore: float, greedy: float, u: float) -> int:
    """The place among the first n values at which the cumulative pmf passes u; never one of probability 0."""
    total = 0.0
    for j in range(n):
        total += greedy if value[j] == top else explore
        if u < total:
            return j
    # The sum ended a rounding error below 1.
    for j in range(n - 1, -1, -1):
        if explore > 0.0 or value[j] == top:
            return j
    return -1


@compiled(read(float64), read(int64), read(float64, 2), read(float64, 2), write(int64, 2), write(float64, 2))
def draw_rankings(
    score: Floats, offset: Ints, epsilon: Floats, uniform: Floats, order: Ints, propensity: Floats
) -> None:
    """Fills order and propensity [groups, k] from uniform [groups, k] by inversion of each pmf, as `choose` does."""
    k = order.shape[1]
    for g in range(len(offset) - 1):
        start = offset[g]
        n = offset[g + 1] - start
        row = g if len(epsilon) > 1 else 0
        left = np.arange(n)
        value = score[start : start + n].copy()
        top = 0.0
        n_best = 0
        for t in range(k):
            if n == 0:
                order[g, t] = -1
                propensity[g, t] = np.nan
                continue
            if n_best == 0:
                top = maximum(value, n)
                for j in range(n):
                    n_best += value[j] == top
            explore = epsilon[row, t] / n
            greedy = explore + (1.0 - epsilon[row, t]) / n_best
            chosen = invert(value, n, top, explore, greedy, uniform[g, t])
            best = value[chosen] == top
            order[g, t] = left[chosen]
            propensity[g, t] = greedy if best else explore
            if best:
                n_best -= 1
            n -= 1
            for j in range(chosen, n):
                left[j] = left[j + 1]
                value[j] = value[j + 1]


@compiled()
def link_repeats(item: Ints, table: Ints, link: Ints) -> bool:
    """Links candidates of the same item into rings (link[c] is the next one); whether there is any ring of two.

    A hash table with open addressing: sorting would cost more than the rest of the page. Items below 0 stay alone.
    """
    mask = len(table) - 1
    table[:] = -1
    repeated = False
    for c in range(len(item)):
        link[c] = c
        if item[c] < 0:
            continue
        slot = ((item[c] * 2654435761) >> 12) & mask
        while table[slot] >= 0 and item[table[slot]] != item[c]:
            slot = (slot + 1) & mask
        first = table[slot]
        if first >= 0:
            link[c] = link[first]
            link[first] = c
            repeated = True
        else:
            table[slot] = c
    return repeated


@compiled()
def take(
    c: int,
    shelf: Ints,
    value: Floats,
    link: Ints,
    start: Ints,
    member: Ints,
    available: Bools,
    n_left: Ints,
    best: Floats,
) -> None:
    """Marks candidate c and all others of its item as taken; shelves that lose a card get their new best value."""
    mate = c
    while True:
        if available[mate]:
            available[mate] = False
            s = shelf[mate]
            n_left[s] -= 1
            if value[mate] == best[s]:
                top = -np.inf
                for j in range(start[s], start[s + 1]):
                    if available[member[j]]:
                        top = max(top, value[member[j]])
                best[s] = top
        mate = link[mate]
        if mate == c:
            return


@compiled()
def invert_open(open_shelf: Bools, best: Floats, top: float, explore: float, greedy: float, u: float) -> int:
    """The shelf at which the cumulative pmf over open shelves passes u; never one of probability 0."""
    total = 0.0
    for s in range(len(open_shelf)):
        if open_shelf[s]:
            total += greedy if best[s] == top else explore
            if u < total:
                return s
    # The sum ended a rounding error below 1.
    for s in range(len(open_shelf) - 1, -1, -1):
        if open_shelf[s] and (explore > 0.0 or best[s] == top):
            return s
    return -1


@compiled(
    boolean,
    read(int64),
    read(int64),
    read(int64),
    read(float64),
    read(float64),
    read(float64, 2),
    read(float64, 2),
    read(float64, 3),
    read(int64),
    write(int64, 3),
    write(int64, 2),
    write(int64, 3),
    write(boolean, 3),
    write(float64, 2),
    write(float64, 3),
)
def walk_pages(
    replay: bool,
    offset: Ints,
    shelf: Ints,
    item: Ints,
    score: Floats,
    value: Floats,
    shelf_epsilon: Floats,
    card_epsilon: Floats,
    uniform: Floats,
    asked: Ints,
    pin: Ints,
    row_shelf: Ints,
    card: Ints,
    pinned: Bools,
    shelf_propensity: Floats,
    card_propensity: Floats,
) -> tuple[int, int, int, int]:
    """Draws pages (replay False: fills the last five arrays) or recomputes theirs (replay True: fills the last two).

    item: [N], or empty when no item repeats within a page. score: drawn from; value: raw, makes shelf values.
    shelf_epsilon [b or 1, rows], card_epsilon [b or 1, columns]. uniform [b, rows, 1 + columns] and pin [b, rows,
    columns] (candidate or -1; empty when there are none) are read only when drawing; asked [b], the columns that each
    page was asked for, only when recomputing: a row may end before them only for want of cards. The outputs come
    filled with -1, False and NaN. Returns (reason, page, row, column) of the first choice that cannot be, or zeros.
    """
    pages = len(offset) - 1
    rows = row_shelf.shape[1]
    columns = card.shape[2]
    largest = 0
    n_shelves = 0
    for i in range(pages):
        largest = max(largest, offset[i + 1] - offset[i])
    for c in range(len(shelf)):
        n_shelves = max(n_shelves, shelf[c] + 1)
    size = 16
    while size < 2 * largest:
        size *= 2
    table = np.empty(size if len(item) > 0 else 0, np.int64)
    link = np.arange(largest)
    available = np.empty(largest, np.bool_)
    member = np.empty(largest, np.int64)
    start = np.empty(n_shelves + 1, np.int64)
    fill = np.empty(n_shelves + 1, np.int64)
    n_left = np.empty(n_shelves, np.int64)
    best = np.empty(n_shelves)
    open_shelf = np.empty(n_shelves, np.bool_)
    unused = np.empty(n_shelves, np.bool_)
    left = np.empty(largest, np.int64)
    left_value = np.empty(largest)

    for i in range(pages):
        base = offset[i]
        n = offset[i + 1] - base
        page_shelf = shelf[base : base + n]
        page_score = score[base : base + n]
        page_value = value[base : base + n]
        row_epsilon = shelf_epsilon[i if len(shelf_epsilon) > 1 else 0]
        column_epsilon = card_epsilon[i if len(card_epsilon) > 1 else 0]

        # Candidates by shelf, in candidate order, and the best value of each shelf.
        n_left[:] = 0
        best[:] = -np.inf
        unused[:] = True
        held = False
        for c in range(n):
            s = page_shelf[c]
            available[c] = s >= 0
            if s >= 0:
                n_left[s] += 1
                best[s] = max(best[s], page_value[c])
            else:
                held = True
        start[0] = 0
        for s in range(n_shelves):
            start[s + 1] = start[s] + n_left[s]
            fill[s] = start[s]
        for c in range(n):
            s = page_shelf[c]
            if s >= 0:
                member[fill[s]] = c
                fill[s] += 1
        repeated = False
        if len(item) > 0:
            repeated = link_repeats(item[base : base + n], table, link)
            if repeated and held:
                for c in range(n):
                    if page_shelf[c] < 0:
                        take(c, page_shelf, page_value, link, start, member, available, n_left, best)

        ended = False
        for r in range(rows):
            n_open = 0
            top = -np.inf
            n_top = 0
            for s in range(n_shelves):
                open_shelf[s] = unused[s] and n_left[s] > 0
                if open_shelf[s]:
                    n_open += 1
                    if best[s] > top:
                        top = best[s]
                        n_top = 1
                    elif best[s] == top:
                        n_top += 1
            if replay:
                chosen = row_shelf[i, r]
                if chosen == -1:
                    for column in range(columns):
                        if card[i, r, column] != -1:
                            return GAP, i, r, column
                    ended = True
                    continue
                if ended:
                    return BELOW_END, i, r, 0
                if chosen < 0 or chosen >= n_shelves or not open_shelf[chosen]:
                    return BAD_SHELF, i, r, 0
            elif n_open == 0:
                break
            explore = row_epsilon[r] / n_open
            greedy = explore + (1.0 - row_epsilon[r]) / n_top
            if not replay:
                chosen = invert_open(open_shelf, best, top, explore, greedy, uniform[i, r, 0])
                row_shelf[i, r] = chosen
            shelf_propensity[i, r] = greedy if best[chosen] == top else explore
            unused[chosen] = False

            m = 0
            for j in range(start[chosen], start[chosen + 1]):
                c = member[j]
                if available[c]:
                    left[m] = c
                    left_value[m] = page_score[c]
                    m += 1
            n_top = 0
            for column in range(columns):
                if replay:
                    c = card[i, r, column]
                    if c == -1:
                        if m > 0 and column < asked[i]:
                            return CUT_SHORT, i, r, column
                        for after in range(column + 1, columns):
                            if card[i, r, after] != -1:
                                return GAP, i, r, after
                        break
                    if c < 0 or c >= n:
                        return BAD_CARD, i, r, column
                    if pinned[i, r, column]:
                        if page_shelf[c] >= 0:
                            return BAD_PIN, i, r, column
                        card_propensity[i, r, column] = 1.0
                        continue
                elif len(pin) > 0:
                    # Beyond the last card of its row a pin moves up to the end of the row.
                    at = column
                    while m == 0 and at < columns - 1 and pin[i, r, at] < 0:
                        at += 1
                    if pin[i, r, at] >= 0:
                        card[i, r, column] = pin[i, r, at]
                        pin[i, r, at] = -1
                        pinned[i, r, column] = True
                        card_propensity[i, r, column] = 1.0
                        continue
                if n_top == 0 and m > 0:
                    top = maximum(left_value, m)
                    for j in range(m):
                        n_top += left_value[j] == top
                if m == 0:
                    if replay:
                        return BAD_CARD, i, r, column
                    break
                explore = column_epsilon[column] / m
                greedy = explore + (1.0 - column_epsilon[column]) / n_top
                if replay:
                    place = 0
                    while place < m and left[place] != c:
                        place += 1
                    if place == m:
                        return BAD_CARD, i, r, column
                else:
                    place = invert(left_value, m, top, explore, greedy, uniform[i, r, 1 + column])
                    card[i, r, column] = left[place]
                is_top = left_value[place] == top
                card_propensity[i, r, column] = greedy if is_top else explore
                if repeated:
                    take(left[place], page_shelf, page_value, link, start, member, available, n_left, best)
                    kept = 0
                    for j in range(m):
                        if available[left[j]]:
                            left[kept] = left[j]
                            left_value[kept] = left_value[j]
                            kept += 1
                    m = kept
                    n_top = 0
                else:
                    m -= 1
                    n_top -= is_top
                    for j in range(place, m):
                        left[j] = left[j + 1]
                        left_value[j] = left_value[j + 1]
    return FINE, 0, 0, 0
