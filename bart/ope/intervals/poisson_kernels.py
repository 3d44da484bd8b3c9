"""The inner loop of the Poisson bootstrap: a hash, a count and a few additions for each user and replicate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bart.compiled import compiled
from bart.types import Floats

Hashes = NDArray[np.uint64]


@compiled()
def add_draws(user: Hashes, columns: Floats, key: Hashes, threshold: Hashes, out: Floats) -> None:
    """Adds count(user, replicate) x columns [n, k] to out [replicates, k], rows in order; see `poisson_hash`."""
    k = columns.shape[1]
    for r in range(len(key)):
        for i in range(len(user)):
            z = (key[r] ^ user[i]) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            count = 0
            while count < len(threshold) and z >= threshold[count]:
                count += 1
            if count > 0:
                times = float(count)
                for j in range(k):
                    out[r, j] += times * columns[i, j]
