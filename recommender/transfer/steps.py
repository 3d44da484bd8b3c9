"""The inner loops of the factorizations. What is drawn is drawn by the caller."""

from __future__ import annotations

from typing import Any

import numpy as np

from bart.compiled import compiled


@compiled()
def spread(indptr: Any, indices: Any, data: Any, x: Any, y: Any, out: Any) -> None:
    """Adds to each row of out [n, f] the sum over its entries of data x (x . y) x y; x [n, f], y [m, f]."""
    f = x.shape[1]
    for row in range(x.shape[0]):
        for k in range(indptr[row], indptr[row + 1]):
            other = y[indices[k]]
            dot = np.float32(0.0)
            for j in range(f):
                dot += x[row, j] * other[j]
            dot *= data[k]
            for j in range(f):
                out[row, j] += dot * other[j]


@compiled()
def bpr_steps(
    one: Any, other: Any, owner: Any, indptr: Any, indices: Any, u: Any, v: Any, rate: float, ridge: float
) -> None:
    """A step for each played entry one [n] against an item other [n], unless that was played too.

    The last column of u is 1 and stays, that of v is the item's own term.
    """
    f = u.shape[1]
    for n in range(len(one)):
        a, i, j = owner[one[n]], indices[one[n]], other[n]
        row = indices[indptr[a] : indptr[a + 1]]
        place = np.searchsorted(row, j)
        if place < len(row) and row[place] == j:
            continue
        x = np.float32(0.0)
        for d in range(f):
            x += u[a, d] * (v[i, d] - v[j, d])
        g = np.float32(rate / (1.0 + np.exp(x)))
        for d in range(f):
            own, apart = u[a, d], v[i, d] - v[j, d]
            if d < f - 1:
                u[a, d] += g * apart - rate * ridge * own
            v[i, d] += g * own - rate * ridge * v[i, d]
            v[j, d] -= g * own + rate * ridge * v[j, d]


@compiled()
def pmf_steps(
    one: Any, other: Any, owner: Any, indices: Any, value: Any, u: Any, v: Any, rate: float, ridge: float
) -> None:
    """A step for each entry one [n] with its value, and one for the same listener and an item other [n] with 0."""
    f = u.shape[1]
    for n in range(len(one)):
        a = owner[one[n]]
        for side in range(2):
            i = indices[one[n]] if side == 0 else other[n]
            x = np.float32(0.0)
            for d in range(f):
                x += u[a, d] * v[i, d]
            e = np.float32((value[one[n]] if side == 0 else 0.0) - x)
            for d in range(f):
                own = u[a, d]
                u[a, d] += rate * (e * v[i, d] - ridge * own)
                v[i, d] += rate * (e * own - ridge * v[i, d])
