"""Large samples in few cells: rows with nearly the same numbers are counted together.

A bootstrap or a likelihood over a million rows needs only how many rows have which value. Cells are the leading bits
of the floating-point numbers themselves, so each is a fixed relative width (2^-bits) and making them takes a few
passes without sorting. Cells carry exact sums of what they hold: first moments are those of the rows, second moments
lose a share of about width^2 / 12.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bart.types import Floats

Cells: TypeAlias = NDArray[np.int32]

FLOOR = 1e-6  # numbers this much smaller than the largest of their column share the cell of 0


def cell_of(columns: list[Floats], bits: int) -> tuple[Cells, int]:
    """The cell of each row [n], numbered from 0, and how many cells there are.

    columns: arrays [n]. bits: mantissa bits that are told apart (3: an eighth to a sixteenth, 6: about 1 %).
    """
    cell, n_cells = _dense(_key(columns[0], bits), 1 << (bits + 9))
    for column in columns[1:]:
        other, n_other = _dense(_key(column, bits), 1 << (bits + 9))
        # Products of keys stay far below 2^31: a column has at most a few thousand cells.
        cell, n_cells = _dense(cell * n_other + other, n_cells * n_other)
    return cell, n_cells


def cell_sums(cell: NDArray[np.integer[Any]], n_cells: int, columns: Iterable[Floats]) -> Floats:
    """[cells, columns] sums of each column over the rows of each cell."""
    return np.stack([np.bincount(cell, weights=column, minlength=n_cells) for column in columns], axis=1)


def _key(column: Floats, bits: int) -> Cells:
    small = np.asarray(column, dtype=np.float32)
    largest = max(abs(float(small.min())), abs(float(small.max())))
    small = np.where(np.abs(small) < FLOOR * largest, np.float32(0), small)
    return np.right_shift(small.view(np.uint32), 23 - bits).astype(np.int32)


def _dense(key: Cells, n_keys: int) -> tuple[Cells, int]:
    """The same partition with keys numbered without gaps."""
    present = np.zeros(n_keys, dtype=bool)
    present[key] = True
    number = np.cumsum(present, dtype=np.int32) - 1
    return number[key], int(number[-1]) + 1
