"""Vectors of a new build turned so that they lie where those of the build before lay.

Two builds find the same neighbours in spaces that are rotated against each other. The rotation that brings shared items
nearest to their old vectors keeps every cosine (the orthogonal Procrustes problem, Schönemann 1966), and what was
learnt or noted beside the old vectors goes on meaning nearly the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bart.types import Floats32, ItemTable

_ROUNDING = 1e-5  # of unit vectors: what two builds of the same data differ by


def aligned(vector: Floats32, row_of: Mapping[str, int], old: ItemTable) -> Floats32:
    """[n, d] the vectors rotated to lie near those of `old`; the very old ones where only rounding parts them.

    vector: [n, d] unit, or zero where an item has none. row_of: its row by item id. As they are where `old` has vectors
    of another length, or none of the items.
    """
    if old.dimension != vector.shape[1]:
        return vector
    pairs = [(row_of[item], there) for there, item in enumerate(old.item_id.tolist()) if item in row_of]
    here, there = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    both = vector[here].any(axis=1) & old.vector[there].any(axis=1)
    here, before = here[both], old.vector[there[both]]
    if not len(here):
        return vector
    left, _, right = np.linalg.svd(vector[here].T.astype(np.float64) @ before.astype(np.float64))
    turned: Floats32 = (vector @ (left @ right)).astype(np.float32)
    same = np.abs(turned[here] - before).max(axis=1) < _ROUNDING
    turned[here[same]] = before[same]
    return turned
