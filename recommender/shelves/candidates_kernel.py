"""Fills shelves with what was proposed for them, in machine code: numpy would need a hundred calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from bart.compiled import compiled, read, write


@compiled(*[read(int64)] * 3, *[int64] * 3, *[write(int64)] * 3)
def fill_shelves(
    proposed: Any, offset: Any, rested: Any, n_items: int, most: int, least: int, item: Any, shelf: Any, size: Any
) -> int:
    """Fills item and shelf (both as long as `proposed`) and size [shelves]; returns how many cards there are.

    proposed: rows for shelf i in offset[i]:offset[i + 1], best first. A shelf takes its first `most` rows that neither
    rest nor stand in a shelf before it, or none where they are fewer than `least`; shelf: number among those that took
    any. Returns -1 for a row outside [0, n_items).
    """
    taken = np.zeros(n_items, dtype=np.bool_)
    for row in rested:
        if 0 <= row < n_items:  # nothing checks the bounds here, and the store may know items that came later
            taken[row] = True
    n = number = 0
    for i in range(size.shape[0]):
        start = n
        for k in range(offset[i], offset[i + 1]):
            row = proposed[k]
            if row < 0 or row >= n_items:
                return -1
            if not taken[row] and n - start < most:
                item[n], shelf[n] = row, number
                taken[row] = True
                n += 1
        if n - start < least:
            for k in range(start, n):
                taken[item[k]] = False
            n = start
        size[i] = n - start
        number += size[i] > 0
    return n
