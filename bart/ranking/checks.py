"""Checks of the input of rankings and pages: each returns clean float64 or int64 arrays, or says what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bart.types import Bools, Floats, Ints


def numbers(name: str, value: Any, kinds: str = "iuf") -> NDArray[Any]:
    """`value` as an array of numbers; ValueError for text, bool, complex, None and ragged lists. kinds: as of numpy."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r:.60}; expected an array of numbers") from None
    if array.dtype.kind not in kinds and array.size:
        expected = "integers" if "f" not in kinds else "real numbers"
        if array.ndim == 0:
            raise ValueError(f"{name} is {value!r:.60}; expected {expected}")
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected {expected}")
    return array


def integers(name: str, value: Any) -> Ints:
    """`value` as contiguous int64; floats are refused, since they would be cut off."""
    array = numbers(name, value, "iu")
    return array.astype(np.int64) if array.ndim == 0 else np.ascontiguousarray(array, dtype=np.int64)


def number(name: str, value: Any, expected: str = "a finite number") -> float:
    """`value` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} is {value!r:.60}; expected {expected}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise ValueError(f"{name} is {number}; expected {expected}")
    return number


def finite(name: str, value: ArrayLike, n: int | None = None) -> Floats:
    """`value` as contiguous float64 [n]; ValueError for another shape, NaN or an infinity."""
    array = numbers(name, value)
    if array.ndim != 1 or (n is not None and len(array) != n):
        expected = "(n,)" if n is None else f"({n},)"
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    array = np.ascontiguousarray(array, dtype=np.float64)
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


def count(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int >= `least`; a float that is whole passes."""
    whole = isinstance(value, (int, np.integer)) or (isinstance(value, (float, np.floating)) and value % 1 == 0)
    if isinstance(value, bool) or not whole or value < least:  # neither NaN nor infinity has remainder 0
        raise ValueError(f"{name} is {value!r:.60}; expected an integer >= {least}")
    return int(value)


def rate(name: str, value: float | Sequence[float] | Floats) -> float | tuple[float, ...]:
    """An exploration rate, or one a position, each in [0, 1]."""
    array = numbers(name, value).astype(np.float64)
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
    array = np.asarray(numbers(name, value), dtype=np.float64)
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
    array = integers(name, value)
    if array.ndim != 1 or len(array) == 0 or array[0] != 0 or array[-1] != n:
        raise ValueError(f"{name} of shape {array.shape} must run from 0 to {n}")
    falls = np.diff(array) < 0
    if falls.any():
        i = int(np.argmax(falls)) + 1
        raise ValueError(f"{name}[{i}] is {array[i]}; expected at least {name}[{i - 1}] = {array[i - 1]}")
    return array
