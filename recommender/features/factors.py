"""Collaborative factors: items that the same listeners play lie near each other, whatever they are called.

The leading right singular vectors of the matrix of plays, log(1 + plays) with popular items and busy listeners held
back, by Lanczos iteration. A listener's factor is the projection of the own row, so a new session moves it without
learning anything anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bart.types import Floats32, Ints


def plays_matrix(listener: Ints, item: Ints, n_listeners: int, n_items: int) -> Any:
    """[listeners, items] sparse counts of plays [m]."""
    import scipy.sparse as sp

    one = np.ones(len(item), dtype=np.float32)
    return sp.csr_matrix((one, (listener, item)), shape=(n_listeners, n_items))


def item_factors(plays: Any, n_factors: int, rng: np.random.Generator) -> tuple[Floats32, Floats32]:
    """Factors [items, n_factors] of a matrix of counts [listeners, items], and the weight [items] of a play of each."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import svds

    weighted = plays.copy()
    weighted.data = np.log1p(weighted.data)
    weight = 1.0 / np.sqrt(np.maximum(np.asarray(weighted.sum(axis=0)).ravel(), 1.0))
    weighted = weighted @ sp.diags(weight)
    busy = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted = (sp.diags(1.0 / np.maximum(busy, 1e-9)) @ weighted).astype(np.float32)
    k = min(n_factors, min(weighted.shape) - 1)
    out = np.zeros((weighted.shape[1], n_factors), dtype=np.float32)
    if k < 1 or weighted.nnz == 0:
        return out, weight.astype(np.float32)
    _, size, right = svds(weighted, k, v0=rng.random(min(weighted.shape)).astype(np.float32))
    order = np.argsort(-size, kind="stable")
    out[:, :k] = right[order].T
    sign = np.sign(out[np.abs(out).argmax(axis=0), np.arange(n_factors)])
    return (out * np.where(sign == 0, 1.0, sign)).astype(np.float32), weight.astype(np.float32)


def listener_factor(plays: Floats32, factor: Floats32, weight: Floats32) -> Floats32:
    """[n_factors] of a listener with plays [k] of items of these factors and weights; of unit length, or zero."""
    total = (np.log1p(plays) * weight).astype(np.float32) @ factor
    length = float(np.linalg.norm(total))
    out: Floats32 = (total / length if length > 1e-9 else np.zeros_like(total)).astype(np.float32)
    return out
