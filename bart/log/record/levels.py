"""The features of a decision's candidates as bytes: their names, then one after another, two levels a byte.

Neighbouring candidates stand in one shelf, so a feature by itself repeats, and what repeats compresses.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bart.errors import LogError
from bart.types import CardFeatures

_HEAD = struct.Struct("<I")  # bytes of the names
_SEPARATOR = ","


def pack_levels(features: CardFeatures) -> bytes:
    """The bytes, the same for equal features. Raises LogError for a name with a comma."""
    return _named(features.name) + _halves(features.level)


@lru_cache(maxsize=64)
def _named(names: tuple[str, ...]) -> bytes:
    """The names as bytes, with their size before them; the same few come with every page."""
    if any(_SEPARATOR in name or not name for name in names):
        raise LogError(f"features are called {', '.join(names)}; expected names without a comma")
    joined = _SEPARATOR.join(names).encode()
    return _HEAD.pack(len(joined)) + joined


def unpack_levels(data: bytes, n: int) -> CardFeatures:
    """What `pack_levels` packed of n candidates. Raises ValueError for other bytes."""
    (size,) = _HEAD.unpack_from(data)
    names = data[_HEAD.size : _HEAD.size + size].decode()
    name = tuple(names.split(_SEPARATOR)) if names else ()
    packed = np.frombuffer(data, dtype=np.uint8, offset=_HEAD.size + size).reshape(len(name), (n + 1) // 2)
    level = np.empty((len(name), 2 * packed.shape[1]), dtype=np.uint8)
    level[:, 0::2] = packed & 15
    level[:, 1::2] = packed >> 4
    return CardFeatures(name, np.ascontiguousarray(level[:, :n].T))


def _halves(level: NDArray[np.uint8]) -> bytes:
    """[f, (n + 1) // 2] of level [n, f]: the first of a pair in the lower half."""
    from bart.log.record.levels_kernel import pair_up  # numba loads only where pages with features are written

    n, f = level.shape
    halves = np.empty((f, (n + 1) // 2), dtype=np.uint8)
    pair_up(np.ascontiguousarray(level), halves)
    return halves.tobytes()
