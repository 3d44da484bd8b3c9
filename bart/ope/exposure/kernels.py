"""Inner loops of exposures: in closed form by the mean field, conditioned on the card, and over drawn pages.

One file, since a cached function is compiled anew only when its own file changes.
"""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.types import Bools, Floats, Ints


@compiled(inline=True)
def read_row(appeal: Floats, n: int, row_trust: float, column_trust: Floats, hazard: Floats, reach: Floats) -> float:
    """Probability of going on to the next row from a row of n columns; fills reach [n] of each column.

    appeal: [n] of the card in the column. hazard: [5] as in `browsing.transitions`.
    """
    plain, streamed = 1.0, 0.0  # reached without, with a stream so far in the row
    ended_plain, ended_streamed = 0.0, 0.0
    for c in range(n):
        reach[c] = plain + streamed
        p = min(row_trust * column_trust[c] * appeal[c], 1.0)
        still, now = 0.0, 0.0
        if c + 1 < n:
            still = plain * (1.0 - p) * hazard[1]
            now = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
        ended_plain += plain * (1.0 - p) - still
        ended_streamed += plain * p + streamed - now
        plain, streamed = still, now
    onward: float = ended_plain * hazard[3] + ended_streamed * hazard[4]
    return onward


@compiled()
def widest(offset: Ints) -> int:
    """The largest number of places between two neighbours of offset [b + 1]."""
    most = 0
    for i in range(len(offset) - 1):
        most = max(most, offset[i + 1] - offset[i])
    return most


@compiled()
def slot_exposure(
    shelf_offset: Ints,
    by_row: Floats,
    appeal: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    out: Floats,
) -> None:
    """Fills out [S, columns] with sum over rows of P(shelf in row) P(row reached) row trust P(column reached | row).

    by_row: [S, rows] P(shelf stands in row). appeal: [S, columns] mean appeal of the card in the column. hazard: [5] as
    in `browsing.transitions`. Positions that a page lacks have by_row 0 or no marginals, so that going on there changes
    nothing.
    """
    rows, columns, most = by_row.shape[1], appeal.shape[1], widest(shelf_offset)
    # Shelves innermost: the same steps for all of a page's shelves side by side.
    shown, expected = np.empty((columns, most)), np.empty((columns, most))
    plain, streamed, share = np.empty(most), np.empty(most), np.empty(most)
    ended_plain, ended_streamed = np.empty(most), np.empty(most)
    for page in range(len(shelf_offset) - 1):
        first = shelf_offset[page]
        n = shelf_offset[page + 1] - first
        for e in range(n):
            for c in range(columns):
                shown[c, e] = appeal[first + e, c]
                expected[c, e] = 0.0
        reach = hazard[0]
        for r in range(rows):
            for e in range(n):
                share[e] = by_row[first + e, r] * reach * row_trust[r]
                plain[e], streamed[e] = 1.0, 0.0
                ended_plain[e], ended_streamed[e] = 0.0, 0.0
            for c in range(columns):
                trust = row_trust[r] * column_trust[c]
                on_plain, on_streamed = (hazard[1], hazard[2]) if c + 1 < columns else (0.0, 0.0)
                for e in range(n):
                    expected[c, e] += share[e] * (plain[e] + streamed[e])
                    p = min(trust * shown[c, e], 1.0)
                    still = plain[e] * (1.0 - p) * on_plain
                    now = plain[e] * p * on_streamed + streamed[e] * (p * on_streamed + (1.0 - p) * on_plain)
                    ended_plain[e] += plain[e] * (1.0 - p) - still
                    ended_streamed[e] += plain[e] * p + streamed[e] - now
                    plain[e], streamed[e] = still, now
            onward = 0.0
            for e in range(n):
                onward += by_row[first + e, r] * (ended_plain[e] * hazard[3] + ended_streamed[e] * hazard[4])
            reach *= onward
        for e in range(n):
            for c in range(columns):
                out[first + e, c] = expected[c, e]


@compiled()
def add_reach(
    out: Floats,
    share: float,
    by_column: Floats,
    appeal: float,
    mean: Floats,
    row_trust: float,
    column_trust: Floats,
    hazard: Floats,
) -> None:
    """Adds to out [1] the exposure of one card in one row, reading on past columns in which it does not stand."""
    plain, streamed = 1.0, 0.0
    for c in range(len(by_column)):
        out[0] += share * by_column[c] * column_trust[c] * (plain + streamed)
        # On to the next column on pages where the card stands beyond this one.
        other = 1.0 - by_column[c]
        if other < 1e-12:
            break
        average = max(mean[c] - by_column[c] * appeal, 0.0) / other
        p = min(row_trust * column_trust[c] * average, 1.0)
        still = plain * (1.0 - p) * hazard[1]
        streamed = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
        plain = still


@compiled()
def conditioned_exposure(
    shelf_offset: Ints,
    card_start: Ints,
    by_row: Floats,
    by_column: Floats,
    appeal: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    out: Floats,
) -> None:
    """Fills out [N] with the exposure of every card when reading on the way to it is that of pages which hold it there.

    by_row: [S, rows], by_column: [N, columns] marginals. appeal: [N]. A card in column c stands in none before it, and
    its shelf in no row above: both are taken out of the means that reading on depends on.
    """
    rows, columns = by_row.shape[1], by_column.shape[1]
    most = widest(shelf_offset)
    reached = np.empty(columns)
    mean = np.empty((most, columns))
    onward = np.empty((most, rows))
    all_onward = np.empty(rows)
    for page in range(len(shelf_offset) - 1):
        first = shelf_offset[page]
        shelves = shelf_offset[page + 1] - first
        for e in range(shelves):
            for c in range(columns):
                mean[e, c] = 0.0
            for k in range(card_start[first + e], card_start[first + e + 1]):
                out[k] = 0.0
                for c in range(columns):
                    mean[e, c] += by_column[k, c] * appeal[k]
        for r in range(rows):
            all_onward[r] = 0.0
            for e in range(shelves):
                onward[e, r] = read_row(mean[e], columns, row_trust[r], column_trust, hazard, reached)
                all_onward[r] += by_row[first + e, r] * onward[e, r]
        for e in range(shelves):
            reach = hazard[0]
            for r in range(rows):
                here = by_row[first + e, r]
                share = here * reach * row_trust[r]
                if share > 0.0:
                    for k in range(card_start[first + e], card_start[first + e + 1]):
                        add_reach(
                            out[k : k + 1], share, by_column[k], appeal[k], mean[e], row_trust[r], column_trust, hazard
                        )
                other = 1.0 - here
                if other < 1e-12:
                    break
                reach *= max(all_onward[r] - here * onward[e, r], 0.0) / other


@compiled()
def first_left(taken: Bools, n: int) -> int:
    for i in range(n):
        if not taken[i]:
            return i
    return -1


@compiled()
def tied_left(rank: Ints, taken: Bools, n: int, best: int) -> int:
    """How many that are left share the best rank."""
    count = 0
    for i in range(best, n):
        if rank[i] != rank[best]:
            break
        count += not taken[i]
    return count


@compiled()
def choose(rank: Ints, taken: Bools, n: int, left: int, epsilon: float, u: float, v: float) -> int:
    """Place drawn: uniform among those left with probability epsilon, else uniform among the best of them."""
    best = first_left(taken, n)
    if u < epsilon:
        k = min(int(v * left), left - 1)
        for i in range(n):
            if not taken[i]:
                if k == 0:
                    return i
                k -= 1
    ties = tied_left(rank, taken, n, best)
    k = min(int(v * ties), ties - 1)
    for i in range(best, n):
        if not taken[i]:
            if k == 0:
                return i
            k -= 1
    return best


@compiled(inline=True)
def draw_cards(
    rank: Ints,
    appeal: Floats,
    epsilon: Floats,
    taken: Bools,
    out: tuple[Ints, Ints, Ints, Floats, Floats],
    rng: np.random.Generator,
) -> int:
    """Draws the cards of one shelf by the ranks of its n cards; how many.

    Fills by column: the place taken, the best place left before it, how many shared its rank, the expected appeal of
    the choice given those before, the appeal of the one taken.
    """
    order, greedy, ties, mean, drawn = out
    n = len(rank)
    taken[:n] = False
    rest = 0.0
    for i in range(n):
        rest += appeal[i]
    shown = 0
    for c in range(min(n, len(epsilon))):
        if epsilon[c] < 0:
            break
        best = first_left(taken, n)
        same = tied_left(rank, taken, n, best)
        top = 0.0
        for i in range(best, n):
            if rank[i] != rank[best]:
                break
            if not taken[i]:
                top += appeal[i]
        mean[c] = epsilon[c] * rest / (n - c) + (1 - epsilon[c]) * top / same
        k = choose(rank, taken, n, n - c, epsilon[c], rng.random(), rng.random())
        order[c], greedy[c], ties[c], drawn[c] = k, best, same, appeal[k]
        taken[k] = True
        rest -= appeal[k]
        shown += 1
    return shown


@compiled(inline=True)
def draw_rows(
    shelf_at: Ints,
    rank: Ints,
    epsilon: Floats,
    shown: Ints,
    reach: Floats,
    onward: Floats,
    reading: tuple[Floats, Floats],
    taken: Bools,
    slot: Floats,
    rng: np.random.Generator,
) -> None:
    """Fills slot [shelves, columns] with the exposure of each slot: every shelf that is left stands next with its exact
    probability; then one of them is drawn."""
    hazard, row_trust = reading
    shelves = len(rank)
    taken[:shelves] = False
    slot[:shelves] = 0.0
    here = hazard[0]
    for r in range(min(len(epsilon), shelves)):
        if epsilon[r] < 0:
            break
        best = first_left(taken, shelves)
        same = tied_left(rank, taken, shelves, best)
        for i in range(shelves):
            if taken[i]:
                continue
            share = epsilon[r] / (shelves - r)
            if rank[i] == rank[best]:
                share += (1 - epsilon[r]) / same
            e = shelf_at[i]
            for c in range(shown[e]):
                slot[e, c] += share * here * row_trust[r] * reach[e, r, c]
        i = choose(rank, taken, shelves, shelves - r, epsilon[r], rng.random(), rng.random())
        taken[i] = True
        here *= onward[shelf_at[i], r]


@compiled()
def add_seen(
    out: Floats,
    m: int,
    rank: Ints,
    k: int,
    epsilon: Floats,
    slot: Floats,
    shown: int,
    order: Ints,
    greedy: Ints,
    ties: Ints,
) -> None:
    """Adds to out [m] the exposure of the card in place k of its shelf: the slots', by its chance of standing there."""
    for c in range(shown):
        share = epsilon[c] / (len(rank) - c)
        if rank[k] == rank[greedy[c]]:
            share += (1 - epsilon[c]) / ties[c]
        out[m] += slot[c] * share
        if order[c] == k:
            break


@compiled()
def draw_exposure(
    shelf_offset: Ints,
    card_start: Ints,
    rank: Ints,
    appeal: Floats,
    shelf_at: Ints,
    shelf_rank: Ints,
    shelf_epsilon: Floats,
    card_epsilon: Floats,
    hazard: Floats,
    row_trust: Floats,
    column_trust: Floats,
    seen_offset: Ints,
    seen_shelf: Ints,
    seen_place: Ints,
    draws: int,
    rng: np.random.Generator,
    card_out: Floats,
    total_out: Floats,
    reward_out: Floats,
) -> None:
    """Adds the exposures of `draws` pages of each visit to card_out, total_out and reward_out.

    rank, appeal: of cards in order of rank, shelf by shelf. shelf_at, shelf_rank: number and rank of the shelves of a
    page in order of rank. *_epsilon: -1 where the page asked for no such position. seen_shelf, seen_place: shelf of the
    page and place in its order of each seen card.
    """
    rows, columns = shelf_epsilon.shape[1], card_epsilon.shape[1]
    most = widest(shelf_offset)
    order = np.empty((most, columns), dtype=np.int64)
    greedy = np.empty((most, columns), dtype=np.int64)
    ties = np.empty((most, columns), dtype=np.int64)
    mean, drawn = np.empty((most, columns)), np.empty((most, columns))
    shown = np.empty(most, dtype=np.int64)
    reach = np.empty((most, rows, columns))
    onward = np.empty((most, rows))
    slot = np.empty((most, columns))
    taken = np.empty(max(widest(card_start), most), dtype=np.bool_)
    for page in range(len(shelf_offset) - 1):
        first, last = shelf_offset[page], shelf_offset[page + 1]
        shelves = last - first
        for _ in range(draws):
            for e in range(shelves):
                mine = slice(card_start[first + e], card_start[first + e + 1])
                by_column = (order[e], greedy[e], ties[e], mean[e], drawn[e])
                shown[e] = draw_cards(rank[mine], appeal[mine], card_epsilon[page], taken, by_column, rng)
                for r in range(rows):
                    onward[e, r] = read_row(drawn[e], shown[e], row_trust[r], column_trust, hazard, reach[e, r])
            draw_rows(
                shelf_at[first:last],
                shelf_rank[first:last],
                shelf_epsilon[page],
                shown,
                reach,
                onward,
                (hazard, row_trust),
                taken,
                slot,
                rng,
            )
            for e in range(shelves):
                for c in range(shown[e]):
                    slot[e, c] *= column_trust[c]
                    total_out[page] += slot[e, c]
                    reward_out[page] += slot[e, c] * mean[e, c]
            for m in range(seen_offset[page], seen_offset[page + 1]):
                e = seen_shelf[m]
                add_seen(
                    card_out,
                    m,
                    rank[card_start[first + e] : card_start[first + e + 1]],
                    seen_place[m],
                    card_epsilon[page],
                    slot[e],
                    shown[e],
                    order[e],
                    greedy[e],
                    ties[e],
                )
