"""The inner loop of a listener's features: sums over what was played, each item's row read once for all."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bart.compiled import compiled, read, write

_INT, _FLOAT = numba.int64, numba.float32


@compiled(read(_INT), read(_FLOAT, 2), read(_FLOAT, 2), write(_FLOAT, 2))
def add_rows(item: Any, weight: Any, table: Any, out: Any) -> None:
    """Adds to out [c, d] the sum over items [k] of weight [k, c] times their rows of table [items, d].

    Items that the table does not hold are passed over.
    """
    columns, d = out.shape
    for k in range(len(item)):
        if item[k] < len(table):
            row = table[item[k]]
            for c in range(columns):
                w = weight[k, c]
                if w != np.float32(0.0):
                    total = out[c]
                    for j in range(d):
                        total[j] += w * row[j]
