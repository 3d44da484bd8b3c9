"""Levels as half bytes, in machine code: a page has some twenty thousand of them."""

from __future__ import annotations

import numpy as np
from numba import uint8
from numpy.typing import NDArray

from bart.compiled import compiled, read, write


@compiled(read(uint8, 2), write(uint8, 2))
def pair_up(level: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Fills out [f, (n + 1) // 2] with the levels [n, f] of each feature, two a byte, the first in the lower half."""
    n, f = level.shape
    for i in range(n // 2):
        for k in range(f):
            out[k, i] = level[2 * i, k] | (level[2 * i + 1, k] << 4)
    if n % 2:
        for k in range(f):
            out[k, n // 2] = level[n - 1, k]
