"""A listener's interests: centres of what is played, by spherical k-means on the vectors of the played items."""

from __future__ import annotations

import numpy as np

from bart.types import Floats32

MOST_ITEMS = 300  # the most played, which carry nearly all plays


def interests_of(vector: Floats32, plays: Floats32, n_interests: int = 6, rounds: int = 8) -> tuple[Floats32, Floats32]:
    """Unit centres [c, d] of items with vectors [k, d], weighted by plays [k] > 0, and their shares of the plays [c].

    c is `n_interests`, or fewer where fewer items have a vector. It starts from the most played item and goes on with
    the one that is worst represented by then, its plays counted, so the same items give the same centres.
    """
    able = vector.any(axis=1) & (plays > 0)
    chosen = np.flatnonzero(able)
    chosen = chosen[np.argsort(-plays[chosen], kind="stable")[:MOST_ITEMS]]
    x, w = vector[chosen], plays[chosen].astype(np.float32)
    c = min(n_interests, len(x))
    if c == 0:
        return np.empty((0, vector.shape[1]), np.float32), np.empty(0, np.float32)
    centre = x[:1].copy()
    for _ in range(c - 1):
        far = w * (1.0 - (x @ centre.T).max(axis=1))
        centre = np.concatenate([centre, x[[int(np.argmax(far))]]])
    near = np.zeros(len(x), dtype=np.int64)
    for _ in range(rounds):
        near = np.argmax(x @ centre.T, axis=1)
        member = (near[:, None] == np.arange(c)) * w[:, None]  # [k, c]
        total = member.T @ x
        length = np.linalg.norm(total, axis=1, keepdims=True)
        centre = np.where(length > 1e-6, total / np.maximum(length, 1e-6), centre).astype(np.float32)
    share = np.bincount(near, w, minlength=c)
    return centre, (share / share.sum()).astype(np.float32)
