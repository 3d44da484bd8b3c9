"""Exact probabilities that an epsilon-greedy ranking puts its card of rank r at position t, for many logged rankings.

An epsilon-greedy ranking knows its actions only by their rank, so the table depends on (n, k, epsilon) alone: pages
share it. Follow one action of rank r (0 = best) and count d, how many better ones are already taken. After t draws,
i = r - d better and m = n_t - 1 - i worse ones are left; the action is drawn with eps / n_t + (1 - eps) [i = 0]; d
grows with (1 - eps) [i > 0] + eps i / n_t; with eps m / n_t nothing changes for it. The recursion runs for all
epsilons of a log at once, so that rates which differ from page to page cost little.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bart.ope.records.pages import Ranks
from bart.types import Floats, Ints

_CHUNK = 4_000_000  # numbers held at once by the recursion
_FEW = 4  # rows of rates whose tables are kept


def marginal_tables(n: int, epsilon: Floats) -> Floats:
    """P(action of rank r at position t) for each row of epsilon.

    epsilon: [e, k], k <= n. Returns [e, n, k]; each column sums to 1.
    """
    e, k = epsilon.shape
    if not 1 <= k <= n:
        raise ValueError(f"epsilon has {k} positions; expected 1 to n = {n}")
    return _kept(n, k, epsilon.tobytes()) if e <= _FEW else _made(n, epsilon)


@lru_cache(maxsize=2_048)
def _kept(n: int, k: int, epsilon: bytes) -> Floats:
    """Tables of a few rows of rates, which the blocks and passes of a log ask for again and again."""
    out = _made(n, np.frombuffer(epsilon).reshape(-1, k))
    out.flags.writeable = False
    return out


def _made(n: int, epsilon: Floats) -> Floats:
    e, k = epsilon.shape
    out = np.empty((e, n, k))
    step = max(1, _CHUNK // (n * (k + 1)))
    for start in range(0, e, step):
        out[start : start + step] = _tables(n, epsilon[start : start + step])
    return out


def _tables(n: int, epsilon: Floats) -> Floats:
    e, k = epsilon.shape
    out = np.zeros((e, n, k))
    taken = np.zeros((e, n, k + 1))  # P(not drawn yet, d better ones taken)
    taken[:, :, 0] = 1.0
    better = np.arange(n)[:, None] - np.arange(k + 1)[None, :]  # [n, d] better ones left
    for t in range(k):
        left = n - t
        eps = epsilon[:, t, None, None]
        # No more than t can be taken after t draws, so what lies outside carries no probability.
        explore = eps / left
        best = (better == 0)[None]
        draw = explore + (1 - eps) * best
        out[:, :, t] = (taken * np.where(better >= 0, draw, 0.0)).sum(axis=2)
        above = np.where(better > 0, (1 - eps) + explore * np.maximum(better, 0), 0.0)
        below = explore * np.maximum(left - 1 - np.maximum(better, 0), 0)
        moved = taken * above
        taken = taken * np.where(better >= 0, below, 0.0)
        taken[:, :, 1:] += moved[:, :, :-1]
    return out


class MarginalTables:
    """Tables of one policy, one for each size of a choice set and each row of exploration rates.

    epsilon: [b, k], the rates of each page by position; NaN where the page asked for no such position.
    """

    def __init__(self, epsilon: Floats) -> None:
        rows, self.kind = unique_rows(np.where(np.isnan(epsilon), -1.0, epsilon))
        self._asked = rows >= 0
        self.epsilon = np.where(self._asked, rows, 1.0)
        self._tables: dict[int, Floats] = {}

    @property
    def kinds(self) -> int:
        """How many different rows of rates there are."""
        return len(self.epsilon)

    def table(self, n: int) -> Floats:
        """[kinds, n, min(k, n)] for choice sets of n actions."""
        if n not in self._tables:
            k = min(n, self.epsilon.shape[1])
            self._tables[n] = marginal_tables(n, self.epsilon[:, :k]) * self._asked[:, None, :k]
        return self._tables[n]

    def of(self, n: Ints, page: Ints, rank: Ranks, tie: Ranks) -> Floats:
        """P(action at each position), [m, k], for actions in sets of n [m] on pages [m]; 0 where n < k.

        rank, tie: [m] minimum rank and number of actions with the same score, which share their ranks evenly.
        """
        out = np.zeros((len(rank), self.epsilon.shape[1]))
        by_size = np.argsort(n, kind="stable")
        sizes, first = np.unique(n[by_size], return_index=True)
        edges = [*first.tolist(), len(n)]
        for size, start, stop in zip(sizes.tolist(), edges[:-1], edges[1:], strict=True):
            rows = by_size[start:stop]
            table = self.table(size)
            kind, k = self.kind[page[rows]], table.shape[2]
            low, ties = rank[rows], tie[rows]
            out[rows, :k] = table[kind, low]
            if (tied := ties > 1).any():
                total = self.total(size)
                kind, low, ties = kind[tied], low[tied], ties[tied]
                out[rows[tied], :k] = (total[kind, low + ties] - total[kind, low]) / ties[:, None]
        return out

    def total(self, n: int) -> Floats:
        """[kinds, n + 1, k] sums of the table over the ranks below each."""
        table = self.table(n)
        return np.concatenate([np.zeros((len(table), 1, table.shape[2])), np.cumsum(table, axis=1)], axis=1)


def unique_rows(values: Floats) -> tuple[Floats, Ints]:
    """The different rows of a matrix, and which of them each row is."""
    if len(values) and np.all(values == values[0]):
        return values[:1].copy(), np.zeros(len(values), dtype=np.int64)
    rows, kind = np.unique(values, axis=0, return_inverse=True)
    return rows, kind.reshape(-1).astype(np.int64)
