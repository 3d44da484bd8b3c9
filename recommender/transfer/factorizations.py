"""Peers that factorize who played what: NMF, PMF, ALS and BPR, written small over one sparse matrix of plays.

Listeners' factors are their vectors, all of one dimension. Sources: Hu, Koren and Volinsky 2008 (ALS), solved by
conjugate gradients (Takács, Pilászy and Tikk 2011); Rendle and others 2009 (BPR); Lee and Seung 2001 (NMF, of log
counts); Mnih and Salakhutdinov 2007 (PMF, of log counts, with as many unplayed pairs drawn as zeros).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bart.types import Floats32

Factors = tuple[Floats32, Floats32]  # of listeners [n, f], of items [m, f] or, with their own term last, [m, f + 1]


def als(plays: Any, dimension: int, rng: np.random.Generator, ridge: float = 10.0, alpha: float = 5.0) -> Factors:
    """Implicit feedback: a play counts with confidence 1 + alpha log(1 + plays)."""
    confidence = _logs(plays) * alpha
    u, v = _start(plays.shape, dimension, rng)
    sides = ((confidence, u, v), (confidence.T.tocsr(), v, u))
    for _ in range(12):
        for weight, own, other in sides:
            _improve(weight, own, other, ridge)
    return u, v


def _improve(weight: Any, own: Floats32, other: Floats32, ridge: float, steps: int = 3) -> None:
    """Takes own [n, f] some steps of conjugate gradients nearer to each row's least squares solution, in place."""
    from recommender.transfer.steps import spread

    gram = other.T @ other

    def applied(x: Floats32) -> Floats32:
        out: Floats32 = x @ gram + np.float32(ridge) * x
        spread(weight.indptr, weight.indices, weight.data, x, other, out)
        return out

    ones = weight.copy()
    ones.data = 1 + ones.data
    residual = np.asarray(ones @ other, dtype=np.float32) - applied(own)
    direction, size = residual.copy(), (residual**2).sum(axis=1)
    for _ in range(steps):
        turned = applied(direction)
        step = size / np.maximum((direction * turned).sum(axis=1), 1e-20)
        own += step[:, None] * direction
        residual -= step[:, None] * turned
        after = (residual**2).sum(axis=1)
        direction = residual + (after / np.maximum(size, 1e-20))[:, None] * direction
        size = after


def bpr(plays: Any, dimension: int, rng: np.random.Generator, rate: float = 0.05, ridge: float = 0.01) -> Factors:
    """Pairwise ranking by stochastic gradient; an item has a term of its own."""
    from recommender.transfer.steps import bpr_steps

    csr = plays.tocsr()
    csr.sort_indices()
    owner = np.repeat(np.arange(csr.shape[0], dtype=np.int32), np.diff(csr.indptr))
    u, v = _start(plays.shape, dimension + 1, rng)
    u[:, -1], v[:, -1] = 1.0, 0.0
    for _ in range(60):
        one = rng.integers(0, max(csr.nnz, 1), csr.nnz)
        other = rng.integers(0, csr.shape[1], csr.nnz).astype(np.int32)
        bpr_steps(one, other, owner, csr.indptr, csr.indices, u, v, rate, ridge)
    return u[:, :-1].copy(), v


def pmf(plays: Any, dimension: int, rng: np.random.Generator, rate: float = 0.02, ridge: float = 0.02) -> Factors:
    """The maximum a posteriori by stochastic gradient."""
    from recommender.transfer.steps import pmf_steps

    weighted = _logs(plays)
    owner = np.repeat(np.arange(weighted.shape[0], dtype=np.int32), np.diff(weighted.indptr))
    u, v = _start(plays.shape, dimension, rng)
    for _ in range(30):
        one = rng.integers(0, max(weighted.nnz, 1), weighted.nnz)
        other = rng.integers(0, weighted.shape[1], weighted.nnz).astype(np.int32)
        pmf_steps(one, other, owner, weighted.indices, weighted.data, u, v, rate, ridge)
    return u, v


def nmf(plays: Any, dimension: int, rng: np.random.Generator) -> Factors:
    """By multiplicative updates of the squared error."""
    weighted = _logs(plays)
    u, v = (np.abs(x) for x in _start(plays.shape, dimension, rng))
    for _ in range(60):
        u *= np.asarray(weighted @ v) / np.maximum(u @ (v.T @ v), 1e-9)
        v *= np.asarray(weighted.T @ u) / np.maximum(v @ (u.T @ u), 1e-9)
    return u, v


FACTORIZATIONS: Mapping[str, Callable[[Any, int, np.random.Generator], Factors]] = {
    "NMF": nmf,
    "PMF": pmf,
    "ALS": als,
    "BPR": bpr,
}


def _logs(plays: Any) -> Any:
    out = plays.tocsr().astype(np.float32)
    out.data = np.log1p(out.data)
    return out


def _start(shape: tuple[int, int], dimension: int, rng: np.random.Generator) -> Factors:
    u, v = (0.1 * rng.standard_normal((n, dimension)) for n in shape)
    return u.astype(np.float32), v.astype(np.float32)
