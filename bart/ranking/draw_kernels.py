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


@compiled()
def lay_out(
    shelf: Ints, value: Floats, available: Bools, n_left: Ints, best: Floats, start: Ints, fill: Ints, member: Ints
) -> bool:
    """Candidates by shelf, in candidate order, with the best value of each shelf; whether any stands in none."""
    n_left[:] = 0
    best[:] = -np.inf
    held = False
    for c in range(len(shelf)):
        s = shelf[c]
        available[c] = s >= 0
        if s >= 0:
            n_left[s] += 1
            best[s] = max(best[s], value[c])
        else:
            held = True
    start[0] = 0
    for s in range(len(n_left)):
        start[s + 1] = start[s] + n_left[s]
        fill[s] = start[s]
    for c in range(len(shelf)):
        s = shelf[c]
        if s >= 0:
            member[fill[s]] = c
            fill[s] += 1
    return held


@compiled()
def open_up(unused: Bools, n_left: Ints, best: Floats, open_shelf: Bools) -> tuple[int, float, int]:
    """Marks the shelves that may stand in the next row: how many, their highest value, and how many share it."""
    n_open, top, n_top = 0, -np.inf, 0
    for s in range(len(unused)):
        open_shelf[s] = unused[s] and n_left[s] > 0
        if open_shelf[s]:
            n_open += 1
            if best[s] > top:
                top = best[s]
                n_top = 1
            elif best[s] == top:
                n_top += 1
    return n_open, top, n_top


@compiled()
def row_fault(chosen: int, card: Ints, open_shelf: Bools, ended: bool) -> tuple[int, int]:
    """(reason, column) of what cannot be in a recorded row before its cards are looked at; FINE where it can."""
    if chosen == -1:
        for column in range(len(card)):
            if card[column] != -1:
                return GAP, column
        return FINE, 0
    if ended:
        return BELOW_END, 0
    if chosen < 0 or chosen >= len(open_shelf) or not open_shelf[chosen]:
        return BAD_SHELF, 0
    return FINE, 0


@compiled()
def end_fault(card: Ints, column: int, m: int, asked: int) -> tuple[int, int]:
    """(reason, column) of why a recorded row may not end before `column`, m cards being left; FINE where it may."""
    if m > 0 and column < asked:
        return CUT_SHORT, column
    for after in range(column + 1, len(card)):
        if card[after] != -1:
            return GAP, after
    return FINE, 0


@compiled(inline=True)
def pin_at(pin: Ints, column: int, m: int) -> int:
    """Where the pin of a column stands: beyond the last card of its row a pin moves up to the end of the row."""
    at = column
    while m == 0 and at < len(pin) - 1 and pin[at] < 0:
        at += 1
    return at


@compiled(inline=True)
def count_of(value: Floats, m: int, top: float) -> int:
    """How many of the first m values are `top`."""
    count = 0
    for j in range(m):
        count += value[j] == top
    return count


@compiled()
def keep_available(left: Ints, value: Floats, m: int, available: Bools) -> int:
    """Drops what is not available any more from the m cards that were left; how many are left now."""
    kept = 0
    for j in range(m):
        if available[left[j]]:
            left[kept] = left[j]
            value[kept] = value[j]
            kept += 1
    return kept


@compiled(inline=True)
def place_of(left: Ints, m: int, c: int) -> int:
    """Where c stands among the first m; m where it does not."""
    place = 0
    while place < m and left[place] != c:
        place += 1
    return place


@compiled(inline=True)
def drop(left: Ints, value: Floats, m: int, place: int) -> None:
    """Takes one place out; m are left."""
    for j in range(place, m):
        left[j] = left[j + 1]
        value[j] = value[j + 1]


@compiled()
def longest(offset: Ints) -> int:
    """The largest number of places between two neighbours of offset [b + 1]."""
    most = 0
    for i in range(len(offset) - 1):
        most = max(most, offset[i + 1] - offset[i])
    return most


@compiled(inline=True)
def walk_row(
    replay: bool,
    at_row: tuple[int, int, int],
    candidates: tuple[Ints, Floats, Floats],
    epsilon: Floats,
    given: tuple[Floats, Ints, Ints],
    out: tuple[Ints, Bools, Floats],
    repeated: bool,
    state: tuple[Ints, Ints, Ints, Bools, Ints, Floats, Ints, Floats],
) -> tuple[int, int]:
    """Draws or recomputes the cards of one row; (reason, column) and arguments as those of `walk_pages`.

    at_row: page, row and its shelf. candidates: of the page, shelf, score and value. given: uniform, asked and pin.
    out: card, pinned and card_propensity. state: what `walk_pages` keeps of a page, in its order.
    """
    i, r, chosen = at_row
    shelf, score, value = candidates
    uniform, asked, pin = given
    card, pinned, card_propensity = out
    link, start, member, available, n_left, best, left, left_value = state
    columns = card.shape[2]
    m = 0
    for j in range(start[chosen], start[chosen + 1]):
        left[m] = member[j]
        left_value[m] = score[member[j]]
        m += 1
    m = keep_available(left, left_value, m, available)
    top, n_top = 0.0, 0
    for column in range(columns):
        c = card[i, r, column]
        if replay:
            if c == -1:
                return end_fault(card[i, r], column, m, asked[i])
            if c < 0 or c >= len(shelf):
                return BAD_CARD, column
            if pinned[i, r, column]:
                if shelf[c] >= 0:
                    return BAD_PIN, column
                card_propensity[i, r, column] = 1.0
                continue
        elif len(pin) > 0:
            at = pin_at(pin[i, r], column, m)
            if pin[i, r, at] >= 0:
                card[i, r, column] = pin[i, r, at]
                pin[i, r, at] = -1
                pinned[i, r, column] = True
                card_propensity[i, r, column] = 1.0
                continue
        if m == 0:
            return BAD_CARD if replay else FINE, column
        if n_top == 0:
            top = maximum(left_value, m)
            n_top = count_of(left_value, m, top)
        explore = epsilon[column] / m
        greedy = explore + (1.0 - epsilon[column]) / n_top
        if replay:
            place = place_of(left, m, c)
            if place == m:
                return BAD_CARD, column
        else:
            place = invert(left_value, m, top, explore, greedy, uniform[i, r, 1 + column])
            card[i, r, column] = left[place]
        is_top = left_value[place] == top
        card_propensity[i, r, column] = greedy if is_top else explore
        if repeated:
            take(left[place], shelf, value, link, start, member, available, n_left, best)
            m = keep_available(left, left_value, m, available)
            n_top = 0
        else:
            m -= 1
            n_top -= is_top
            drop(left, left_value, m, place)
    return FINE, 0


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
    rows = row_shelf.shape[1]
    largest = longest(offset)
    n_shelves = 0
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
    state = (link, start, member, available, n_left, best, left, left_value)

    for i in range(len(offset) - 1):
        here = slice(offset[i], offset[i + 1])
        page_shelf, page_value = shelf[here], value[here]
        row_epsilon = shelf_epsilon[i if len(shelf_epsilon) > 1 else 0]
        column_epsilon = card_epsilon[i if len(card_epsilon) > 1 else 0]
        held = lay_out(page_shelf, page_value, available, n_left, best, start, fill, member)
        unused[:] = True
        repeated = len(item) > 0 and link_repeats(item[here], table, link)
        if repeated and held:
            for c in range(len(page_shelf)):
                if page_shelf[c] < 0:
                    take(c, page_shelf, page_value, link, start, member, available, n_left, best)

        ended = False
        for r in range(rows):
            n_open, top, n_top = open_up(unused, n_left, best, open_shelf)
            chosen = row_shelf[i, r]
            if replay:
                reason, column = row_fault(chosen, card[i, r], open_shelf, ended)
                if reason != FINE:
                    return reason, i, r, column
                ended = chosen == -1
                if ended:
                    continue
            elif n_open == 0:
                break
            explore = row_epsilon[r] / n_open
            greedy = explore + (1.0 - row_epsilon[r]) / n_top
            if not replay:
                chosen = invert_open(open_shelf, best, top, explore, greedy, uniform[i, r, 0])
                row_shelf[i, r] = chosen
            shelf_propensity[i, r] = greedy if best[chosen] == top else explore
            unused[chosen] = False
            reason, column = walk_row(
                replay,
                (i, r, chosen),
                (page_shelf, score[here], page_value),
                column_epsilon,
                (uniform, asked, pin),
                (card, pinned, card_propensity),
                repeated,
                state,
            )
            if reason != FINE:
                return reason, i, r, column
    return FINE, 0, 0, 0
