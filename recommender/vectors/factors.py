"""The leading factors of a large sparse symmetric matrix, by Lanczos iteration.

A randomized projection (Halko, Martinsson and Tropp 2011) is as fast only while it is inexact: information of
co-occurrence has a flat spectrum, and after eight products a tenth to a quarter of the neighbours still depends on the
seed. Lanczos takes the same time to the end, where no seed shows (docs/track_vectors.md), and gives the same bytes on
any number of threads.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

from bart.types import Floats32, Ints

_SMALL = 300  # rows up to which all eigenvectors are found at once
_TOLERANCE = 1e-4  # of eigenvalues, relative


def leading_factors(matrix: Any, dimension: int, power: float, rng: np.random.Generator) -> Floats32:
    """[n, dimension] eigenvectors of the largest absolute eigenvalues, each times its own to `power`.

    matrix: [n, n] symmetric, sparse. power: .5 shares an eigenvalue between the two sides of a product. rng: where the
    iteration starts. Rows without an entry are zero, and so are columns beyond the rows that have some.
    """
    filled = np.flatnonzero(np.diff(matrix.indptr))
    out = np.zeros((matrix.shape[0], dimension), dtype=np.float32)
    if not len(filled):
        return out
    some = len(filled) < 0.9 * len(out) or len(filled) <= _SMALL  # else a copy takes more than the empty rows do
    rows = filled if some else np.arange(len(out))
    value, vector = _leading(matrix[filled][:, filled] if some else matrix, min(dimension, len(filled)), filled, rng)
    first = np.argsort(-np.abs(value), kind="stable")[:dimension]
    out[rows, : len(first)] = vector[:, first] * np.abs(value[first]) ** power
    return out


def _leading(matrix: Any, k: int, filled: Ints, rng: np.random.Generator) -> tuple[Any, Any]:
    """At least k eigenvalues and their vectors [n, .]. filled: rows that have an entry."""
    from scipy.sparse.linalg import eigsh

    n = matrix.shape[0]
    if n <= max(_SMALL, 3 * k):
        whole = np.linalg.eigh(matrix.toarray())
        return whole.eigenvalues, whole.eigenvectors
    start = np.zeros(n, dtype=np.float32)
    start[filled if len(filled) < n else slice(None)] = rng.random(len(filled))
    # where fewer than k eigenvalues differ from zero it starts again at random, in scipy before 1.17 by no seed of ours
    seeded = {"rng": rng} if "rng" in signature(eigsh).parameters else {}
    value, vector = eigsh(matrix, k=k, which="LM", v0=start, tol=_TOLERANCE, **seeded)
    return value, vector
