"""Inner loop of drawn exposures: pages of an epsilon-greedy policy, and the exact reach on each of them."""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.types import Bools, Floats, Ints


@compiled()
def first_left(taken: Bools, n: int) -> int:
    for i in range(n):
        if not taken[i]:
            return i
    return -1


@compiled()
def tied_left(rank: Ints, offset: int, taken: Bools, n: int, best: int) -> int:
    """How many that are left share the best rank."""
    count = 0
    for i in range(best, n):
        if rank[offset + i] != rank[offset + best]:
            break
        count += not taken[i]
    return count


@compiled()
def choose(rank: Ints, offset: int, taken: Bools, n: int, left: int, epsilon: float, u: float, v: float) -> int:
    """Place drawn: uniform among those left with probability epsilon, else uniform among the best of them."""
    best = first_left(taken, n)
    if u < epsilon:
        k = min(int(v * left), left - 1)
        for i in range(n):
            if not taken[i]:
                if k == 0:
                    return i
                k -= 1
    ties = tied_left(rank, offset, taken, n, best)
    k = min(int(v * ties), ties - 1)
    for i in range(best, n):
        if not taken[i]:
            if k == 0:
                return i
            k -= 1
    return best


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
    widest, most = 0, 0
    for s in range(len(card_start) - 1):
        widest = max(widest, card_start[s + 1] - card_start[s])
    for page in range(len(shelf_offset) - 1):
        most = max(most, shelf_offset[page + 1] - shelf_offset[page])
    order = np.empty((most, columns), dtype=np.int64)  # place taken by each column
    greedy = np.empty((most, columns), dtype=np.int64)  # best place left before it
    ties = np.empty((most, columns), dtype=np.int64)
    mean = np.empty((most, columns))  # expected appeal of the choice at the column, given those before
    shown = np.empty(most, dtype=np.int64)
    reach = np.empty((most, rows, columns))
    onward = np.empty((most, rows))
    slot = np.empty((most, columns))
    taken = np.empty(max(widest, most), dtype=np.bool_)
    for page in range(len(shelf_offset) - 1):
        first = shelf_offset[page]
        shelves = shelf_offset[page + 1] - first
        for _ in range(draws):
            for e in range(shelves):
                offset = card_start[first + e]
                n = card_start[first + e + 1] - offset
                taken[:n] = False
                shown[e] = 0
                rest = 0.0
                for i in range(n):
                    rest += appeal[offset + i]
                for c in range(min(n, columns)):
                    epsilon = card_epsilon[page, c]
                    if epsilon < 0:
                        break
                    best = first_left(taken, n)
                    same = tied_left(rank, offset, taken, n, best)
                    top = 0.0
                    for i in range(best, n):
                        if rank[offset + i] != rank[offset + best]:
                            break
                        if not taken[i]:
                            top += appeal[offset + i]
                    mean[e, c] = epsilon * rest / (n - c) + (1 - epsilon) * top / same
                    k = choose(rank, offset, taken, n, n - c, epsilon, rng.random(), rng.random())
                    order[e, c], greedy[e, c], ties[e, c] = k, best, same
                    taken[k] = True
                    rest -= appeal[offset + k]
                    shown[e] += 1
                for r in range(rows):
                    plain, streamed, ended_plain, ended_streamed = 1.0, 0.0, 0.0, 0.0
                    for c in range(shown[e]):
                        reach[e, r, c] = plain + streamed
                        p = min(row_trust[r] * column_trust[c] * appeal[offset + order[e, c]], 1.0)
                        still, now = 0.0, 0.0
                        if c + 1 < shown[e]:
                            still = plain * (1.0 - p) * hazard[1]
                            now = plain * p * hazard[2] + streamed * (p * hazard[2] + (1.0 - p) * hazard[1])
                        ended_plain += plain * (1.0 - p) - still
                        ended_streamed += plain * p + streamed - now
                        plain, streamed = still, now
                    onward[e, r] = ended_plain * hazard[3] + ended_streamed * hazard[4]
            # Rows: every shelf that is left stands next with its exact probability; then one of them is drawn.
            taken[:shelves] = False
            slot[:shelves] = 0.0
            here = hazard[0]
            for r in range(min(rows, shelves)):
                epsilon = shelf_epsilon[page, r]
                if epsilon < 0:
                    break
                best = first_left(taken, shelves)
                same = tied_left(shelf_rank, first, taken, shelves, best)
                for i in range(shelves):
                    if taken[i]:
                        continue
                    share = epsilon / (shelves - r)
                    if shelf_rank[first + i] == shelf_rank[first + best]:
                        share += (1 - epsilon) / same
                    e = shelf_at[first + i]
                    for c in range(shown[e]):
                        slot[e, c] += share * here * row_trust[r] * reach[e, r, c]
                i = choose(shelf_rank, first, taken, shelves, shelves - r, epsilon, rng.random(), rng.random())
                taken[i] = True
                here *= onward[shelf_at[first + i], r]
            for e in range(shelves):
                for c in range(shown[e]):
                    slot[e, c] *= column_trust[c]
                    total_out[page] += slot[e, c]
                    reward_out[page] += slot[e, c] * mean[e, c]
            for m in range(seen_offset[page], seen_offset[page + 1]):
                e, k = seen_shelf[m], seen_place[m]
                offset = card_start[first + e]
                n = card_start[first + e + 1] - offset
                for c in range(shown[e]):
                    share = card_epsilon[page, c] / (n - c)
                    if rank[offset + k] == rank[offset + greedy[e, c]]:
                        share += (1 - card_epsilon[page, c]) / ties[e, c]
                    card_out[m] += slot[e, c] * share
                    if order[e, c] == k:
                        break
