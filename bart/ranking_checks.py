"""Checks of the input of rankings and pages: each returns clean float64 or int64 arrays, or says what was wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bart.types import Bools, Floats, Ints


def finite(name: str, value: ArrayLike, n: int | None = None) -> Floats:
    """`value` as contiguous float64 [n]; ValueError for another shape, NaN or an infinity."""
    array = np.ascontiguousarray(value, dtype=np.float64)
    if array.ndim != 1 or (n is not None and len(array) != n):
        expected = "(n,)" if n is None else f"({n},)"
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    good = np.isfinite(array)
    if not good.all():
        i = int(np.argmin(good))
        raise ValueError(f"{name}[{i}] is {array[i]}; expected a finite number")
    return array


def mask(name: str, value: ArrayLike, n: int) -> Bools:
    """`value` as bool [n]."""
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected ({n},) bool")
    return array


def count(name: str, value: int) -> int:
    """`value` as an int >= 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} is {value}; expected an integer >= 1")
    return int(value)


def rate(name: str, value: float | Sequence[float] | Floats) -> float | tuple[float, ...]:
    """An exploration rate, or one a position, each in [0, 1]."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected a number or one a position")
    good = (array >= 0) & (array <= 1)
    if not good.all():
        if array.ndim == 0:
            raise ValueError(f"{name} is {float(array)}; expected a number in [0, 1]")
        i = int(np.argmin(good))
        raise ValueError(f"{name}[{i}] is {array[i]}; expected a number in [0, 1]")
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def rates(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Exploration rates broadcast to `shape` (the last axis may be longer: positions that are not needed)."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim and array.shape[-1] != shape[-1]:
        if array.shape[-1] < shape[-1]:
            raise ValueError(
                f"{name} has shape {array.shape}; expected at least {shape[-1]} on the last axis, or a number"
            )
        array = array[..., : shape[-1]]
    try:
        array = np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise ValueError(f"{name} has shape {np.shape(value)}; expected one that broadcasts to {shape}") from None
    good = (array >= 0) & (array <= 1)
    if not good.all():
        index = tuple(int(i) for i in np.argwhere(~good)[0])
        where = ", ".join(map(str, index))
        raise ValueError(f"{name}[{where}] is {array[index]}; expected a number in [0, 1]")
    return array


def order(name: str, value: ArrayLike, n: int) -> Ints:
    """`value` as int64 [k], distinct actions out of n."""
    array = np.asarray(value)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected (k,) of integers")
    array = array.astype(np.int64, copy=False)
    good = (array >= 0) & (array < n)
    if not good.all():
        i = int(np.argmin(good))
        raise ValueError(f"{name}[{i}] is {array[i]}; expected an action in [0, {n})")
    seen: dict[int, int] = {}
    for i, action in enumerate(array.tolist()):
        if action in seen:
            raise ValueError(
                f"{name}[{i}] repeats action {action} of {name}[{seen[action]}]; expected distinct actions"
            )
        seen[action] = i
    return array


def offsets(name: str, value: ArrayLike, n: int) -> Ints:
    """`value` as int64 [groups + 1], from 0 to n, never decreasing."""
    array = np.ascontiguousarray(value, dtype=np.int64)
    if array.ndim != 1 or len(array) == 0 or array[0] != 0 or array[-1] != n:
        raise ValueError(f"{name} of shape {array.shape} must run from 0 to {n}")
    falls = np.diff(array) < 0
    if falls.any():
        i = int(np.argmax(falls)) + 1
        raise ValueError(f"{name}[{i}] is {array[i]}; expected at least {name}[{i - 1}] = {array[i - 1]}")
    return array
