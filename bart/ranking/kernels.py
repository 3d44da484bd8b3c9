"""Inner loops over many ragged rankings. Group g has the actions offset[g]:offset[g + 1] of the flat arrays."""

from __future__ import annotations

import numpy as np
from numba import float64, int64

from bart.compiled import compiled, read, write
from bart.types import Floats, Ints


@compiled(read(float64), read(int64), write(int64), write(int64))
def min_rank(score: Floats, offset: Ints, rank: Ints, tie: Ints) -> None:
    """Fills how many of the group score strictly higher, and how many score the same (itself included)."""
    for g in range(len(offset) - 1):
        start, stop = offset[g], offset[g + 1]
        if stop - start <= 100:
            for i in range(start, stop):
                above = 0
                same = 0
                for j in range(start, stop):
                    above += score[j] > score[i]
                    same += score[j] == score[i]
                rank[i] = above
                tie[i] = same
        else:
            order = np.argsort(-score[start:stop])
            t = 0
            while t < len(order):
                end = t + 1
                while end < len(order) and score[start + order[end]] == score[start + order[t]]:
                    end += 1
                for j in range(t, end):
                    rank[start + order[j]] = t
                    tie[start + order[j]] = end - t
                t = end


@compiled(read(float64), read(int64), read(int64, 2), read(float64, 2), write(float64, 2))
def conditional_propensity(score: Floats, offset: Ints, order: Ints, epsilon: Floats, propensity: Floats) -> int:
    """Fills propensity [groups, k] of order [groups, k] (-1 ends a row); returns -1, or the flat place of a bad entry.

    epsilon: [groups or 1, k]. The choice at t is greedy when the earlier choices strictly above it are as many as all
    actions strictly above it; it then shares the greedy mass with the tied ones that are left.
    """
    k = order.shape[1]
    for g in range(len(offset) - 1):
        start = offset[g]
        n = offset[g + 1] - start
        row = g if len(epsilon) > 1 else 0
        group = score[start : start + n]
        t = 0
        while t < k and order[g, t] >= 0:
            action = order[g, t]
            if action >= n:
                return int(g * k + t)
            value = group[action]
            above = 0
            same = 0
            for j in range(n):
                above += group[j] > value
                same += group[j] == value
            for s in range(t):
                if order[g, s] == action:
                    return int(g * k + t)
                above -= group[order[g, s]] > value
                same -= group[order[g, s]] == value
            explore = epsilon[row, t] / (n - t)
            if above == 0:
                propensity[g, t] = explore + (1.0 - epsilon[row, t]) / same
            else:
                propensity[g, t] = explore
            t += 1
        for s in range(t, k):
            if order[g, s] != -1:
                return int(g * k + s)
            propensity[g, s] = np.nan
    return -1
