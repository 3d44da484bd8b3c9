"""Exact marginals of epsilon-greedy rankings without replacement, without enumeration.

Follow one action of rank r (0 is best) and count d, how many better ones are already taken. After t draws n_t = n - t
actions are left, i = r - d better and n_t - 1 - i worse. It is drawn with probability eps / n_t + (1 - eps) [i = 0];
d grows with (1 - eps) [i > 0] + eps i / n_t, and otherwise one of the worse is drawn. Since d <= t, all n actions and
k positions cost O(n k^2). The table depends on (n, k, epsilon) only, so that pages and policies share it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from bart.ranking import checks as check
from bart.types import Bools, Floats, Ints

CACHE_BYTES = 64 * 2**20  # of the tables kept; a larger one is computed each time


def marginal_table(n: int, k: int, epsilon: float | Sequence[float] | Floats) -> Floats:
    """P(the action of rank r stands at position t), [n (rank), k], when no scores are tied.

    epsilon: a number or one a position. Positions beyond n are 0. Cached; the array is read-only.
    """
    k = check.count("k", k)
    n = check.count("n", n, 0)
    return _TABLES.get(n, k, tuple(check.rates("epsilon", epsilon, (k,)).tolist()))


class _Tables:
    """The tables used last, at most CACHE_BYTES of them: their sizes differ too much to bound their number."""

    def __init__(self) -> None:
        self.size = 0
        self._tables: OrderedDict[tuple[int, int, tuple[float, ...]], Floats] = OrderedDict()
        self._lock = Lock()

    def get(self, n: int, k: int, epsilon: tuple[float, ...]) -> Floats:
        key = (n, k, epsilon)
        with self._lock:
            found = self._tables.get(key)
            if found is not None:
                self._tables.move_to_end(key)
                return found
        table = recurrence(n, k, np.array(epsilon))
        table.flags.writeable = False
        with self._lock:
            if key not in self._tables and _cost(table) <= CACHE_BYTES:
                self._tables[key] = table
                self.size += _cost(table)
                while self.size > CACHE_BYTES:
                    self.size -= _cost(self._tables.popitem(last=False)[1])
        return table


def _cost(table: Floats) -> int:
    return 8 * int(np.prod(table.shape)) + 32 * len(table.T) + 512  # with its key and the headers of both


_TABLES = _Tables()


def recurrence(n: int, k: int, epsilon: Floats) -> Floats:
    """The table of `marginal_table`, computed anew."""
    table = np.zeros((k, n))
    depth = min(k, n)
    rank = np.arange(n, dtype=np.float64)
    taken = np.arange(depth + 1, dtype=np.float64)[:, None]
    better = rank - taken  # [d, rank]: i, where it is negative the state cannot be reached
    state = np.zeros((depth + 1, n))  # [d, rank]: P(not yet drawn, d better ones taken)
    state[0] = 1.0
    for t in range(depth):
        n_left = n - t
        explore = epsilon[t] / n_left
        greedy = 1.0 - epsilon[t]
        now = state[: t + 1]  # [t + 1, rank]
        table[t] = explore * now.sum(axis=0)
        diagonal = np.arange(min(t + 1, n))  # states without a better action left: d = r
        table[t, diagonal] += greedy * now[diagonal, diagonal]
        above = explore * better[: t + 1]
        stay = now * ((n_left - 1) * explore - above)
        rise = now * (above + greedy)
        rise[diagonal, diagonal] = 0.0
        state[: t + 1] = stay
        state[1 : t + 2] += rise
    return np.ascontiguousarray(table.T)


def share_ties(table: Floats, score: Floats) -> Floats:
    """Marginals [n, k] of actions with these scores [n]: rows of the table by rank, tied ones the mean of theirs."""
    n = len(score)
    if n == 0:
        return table.copy()
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    out = np.empty_like(table)
    if first.all():
        out[order] = table
        return out
    start = np.flatnonzero(first)
    size = np.diff(np.append(start, n))
    mean = np.add.reduceat(table, start, axis=0) / size[:, None]
    out[order] = mean[np.repeat(np.arange(len(start)), size)]
    return out


def marginal_of_rank(rank: Ints, tie: Ints, offset: Ints, k: int, epsilon: float | Floats) -> Floats:
    """Marginals of all actions of a ragged log from shared tables, [N, k].

    rank, tie: [N] as from `min_rank`. offset: [groups + 1]. epsilon: a number, [k] or [groups, k]. One table is made
    for each distinct (size, epsilon); tied actions have the mean of the rows of their ranks.
    """
    k = check.count("k", k)
    rank, tie = check.integers("rank", rank), check.integers("tie", tie)
    if rank.ndim != 1 or tie.shape != rank.shape:
        raise ValueError(f"rank {rank.shape} and tie {tie.shape} must both be [N]")
    offset = check.offsets("offset", offset, len(rank))
    size = np.diff(offset)
    bad = (rank < 0) | (tie < 1) | (rank + tie > np.repeat(size, size))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"rank[{i}] is {rank[i]} with tie {tie[i]}; expected ranks within its group, as of min_rank")
    per_group = check.rates("epsilon", epsilon, (len(size), k))
    if len(size) == 0:
        return np.empty((0, k))
    if np.shape(epsilon)[:1] == (len(size),) and np.ndim(epsilon) == 2:
        key = np.column_stack([size.astype(np.float64), per_group])
        distinct, group_key = np.unique(key, axis=0, return_inverse=True)
        group_key = group_key.reshape(-1)
    else:
        sizes, group_key = np.unique(size, return_inverse=True)
        distinct = np.column_stack([sizes.astype(np.float64), np.broadcast_to(per_group[0], (len(sizes), k))])
    tables = [marginal_table(int(row[0]), k, row[1:]) for row in distinct]
    base = np.concatenate([[0], np.cumsum([len(table) for table in tables])[:-1]])
    stacked = np.concatenate(tables)  # [sum of sizes, k]
    row = np.repeat(base[group_key], size) + rank
    out: Floats = stacked[row]
    tied: Bools = tie > 1
    if tied.any():
        total = np.concatenate([np.cumsum(table, axis=0) for table in tables])  # each column ends at 1 or less
        before = np.where(rank[tied, None] > 0, total[row[tied] - 1], 0.0)
        out[tied] = (total[row[tied] + tie[tied] - 1] - before) / tie[tied, None]
    return out
