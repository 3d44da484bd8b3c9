"""Inner loops of the simulator in machine code. Import inside functions: numba takes half a second to load."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64

from bart.compiled import compiled, read, write
from bart.types import Floats, Floats32, Ints


@compiled(
    read(float32, 2),
    read(float32, 3),
    read(float32, 2),
    read(int64),
    read(int64),
    write(float64),
    write(float64),
)
def closeness(
    taste: Floats32, interest: Floats32, vector: Floats32, visit: Ints, item: Ints, match: Floats, closest: Floats
) -> None:
    """Fills match [m] with the dot products of items and the taste of their visit, closest [m] with the largest of
    those with the interests. taste [v, d], interest [v, k, d], vector [n, d]; visit, item [m].
    """
    for i in range(len(item)):
        v, row = visit[i], item[i]
        dot = np.float32(0.0)
        for j in range(taste.shape[1]):
            dot += taste[v, j] * vector[row, j]
        match[i] = dot
        best = np.float32(-2.0)
        for k in range(interest.shape[1]):
            dot = np.float32(0.0)
            for j in range(taste.shape[1]):
                dot += interest[v, k, j] * vector[row, j]
            best = max(best, dot)
        closest[i] = best
