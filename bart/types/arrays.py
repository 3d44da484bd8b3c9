"""The array types of the records, and the checks of their values that several share."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Floats32: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Strings: TypeAlias = NDArray[np.object_]  # of str
Dates: TypeAlias = NDArray[np.datetime64]


def check_integers(name: str, value: Any) -> None:
    if value.dtype.kind not in "iu" and value.size:
        raise ValueError(f"{name} has type {value.dtype}; expected integers")


def check_range(name: str, value: Any, low: int, high: int) -> None:
    """Integers in [low, high); ValueError with the first that is not."""
    check_integers(name, value)
    if value.size and (value.min() < low or value.max() >= high):
        bad = value[(value < low) | (value >= high)].flat[0]
        raise ValueError(f"{name} holds {bad}; expected numbers in [{low}, {high})")


def check_probabilities(name: str, value: Floats) -> None:
    """Numbers in [0, 1] or NaN; ValueError with the first that is not."""
    if value.size and not (np.fmin.reduce(value, axis=None) >= 0 and np.fmax.reduce(value, axis=None) <= 1):
        bad = value[(value < 0) | (value > 1)]  # none where all are NaN
        if bad.size:
            raise ValueError(f"{name} holds {bad[0]}; expected numbers in [0, 1]")
