"""Means over the cards that an epsilon-greedy policy may put into a column: the sums over candidates of exposures."""

from __future__ import annotations

import numpy as np

from bart.compiled import compiled
from bart.types import Floats, Ints


@compiled()
def place_of(table: Floats, first: int, rank: Ints, tie: Ints, total: Floats, out: Floats) -> None:
    """Fills out [n, k] with the probability that each card of a shelf, from `first` on, stands in each column.

    table: [n, k] by rank. Tied cards share their ranks evenly. total: [n + 1, k] to work in.
    """
    n, k = table.shape
    made = False
    for i in range(n):
        low, ties = rank[first + i], tie[first + i]
        if ties == 1:
            for c in range(k):
                out[i, c] = table[low, c]
            continue
        if not made:
            for c in range(k):
                total[0, c] = 0.0
                for r in range(n):
                    total[r + 1, c] = total[r, c] + table[r, c]
            made = True
        for c in range(k):
            out[i, c] = (total[low + ties, c] - total[low, c]) / ties


@compiled()
def mean_appeal(
    shelf: Ints,
    first: Ints,
    kind: Ints,
    table: Floats,
    rank: Ints,
    tie: Ints,
    odds: Floats,
    shift: Floats,
    out: Floats,
) -> None:
    """Fills out [nodes, S, columns] for shelves [g] of one size n with the mean of 1 / (1 + odds x shift).

    first: [g] their first cards. table: [kinds, n, k] by rank; kind: [g]. odds: [N] against a reward, times shift
    [nodes].
    """
    n, k = table.shape[1:]
    total, place, mean = np.empty((n + 1, k)), np.empty((n, k)), np.empty((len(shift), k))
    for g in range(len(shelf)):
        place_of(table[kind[g]], first[g], rank, tie, total, place)
        mean[:] = 0.0
        for i in range(n):
            for node in range(len(shift)):
                q = 1.0 / (1.0 + odds[first[g] + i] * shift[node])
                for c in range(k):
                    mean[node, c] += q * place[i, c]
        for node in range(len(shift)):
            for c in range(k):
                out[node, shelf[g], c] = mean[node, c]


@compiled()
def mean_of(
    shelf: Ints, first: Ints, kind: Ints, table: Floats, rank: Ints, tie: Ints, values: Floats, out: Floats
) -> None:
    """The same of values [N, v]: fills out [v, S, columns]."""
    n, k = table.shape[1:]
    total, place, mean = np.empty((n + 1, k)), np.empty((n, k)), np.empty((values.shape[1], k))
    for g in range(len(shelf)):
        place_of(table[kind[g]], first[g], rank, tie, total, place)
        mean[:] = 0.0
        for i in range(n):
            for v in range(values.shape[1]):
                value = values[first[g] + i, v]
                for c in range(k):
                    mean[v, c] += value * place[i, c]
        for v in range(values.shape[1]):
            for c in range(k):
                out[v, shelf[g], c] = mean[v, c]
