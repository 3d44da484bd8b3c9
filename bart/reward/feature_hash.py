"""Indices of features as Vowpal Wabbit computes them: MurmurHash3 of the names, FNV for the crosses.

With them a model can be read and used by its own tools, and weights can be gathered without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.uint64]

FNV_PRIME = 16777619  # of the hash that combines the indices of a cross
CONSTANT_INDEX = 11650396  # of the constant feature


@lru_cache(maxsize=100_000)
def feature_index(namespace: str, name: str) -> int:
    """Index of a named feature before the mask, as the text format of Vowpal Wabbit computes it."""
    return (_string_hash(name, _string_hash(namespace, 0))) & 0xFFFFFFFFFFFFFFFF


def feature_indices(namespace: str, names: Sequence[str]) -> Indices:
    """[n] `feature_index` of many names, in arrays."""
    data = [name.encode() for name in names]
    out = np.zeros(len(data), dtype=np.uint64)
    size = np.array([len(one) for one in data], dtype=np.int64)
    seed = _string_hash(namespace, 0)
    for length in np.unique(size).tolist():
        place = np.flatnonzero(size == length)
        width = -(-length // 4) * 4
        flat = b"".join(data[k].ljust(width, b"\0") for k in place.tolist())
        block = np.frombuffer(flat, dtype="<u4").reshape(len(place), width // 4).astype(np.uint64)
        out[place] = _murmur3_of(block, length, seed)
    number = [k for k, name in enumerate(names) if name == "" or (name.isascii() and name.isdigit())]
    out[number] = [feature_index(namespace, names[k]) for k in number]
    return out


def vector_index(namespace: str, dimension: int) -> Indices:
    """[d] indices of the elements of a vector, names "0", "1", ..."""
    return np.uint64(_string_hash(namespace, 0)) + np.arange(dimension, dtype=np.uint64)


def match_index(dimension: int) -> Indices:
    """[d + 1] indices of the match: the elements of the product, then the cosine."""
    return np.append(vector_index("m", dimension), np.uint64(feature_index("m", "cosine")))


def level_index(name: Sequence[str], levels: int) -> Indices:
    """[names, levels] indices of the levels of named features."""
    index = [[feature_index("h", f"{one}={k}") for k in range(levels)] for one in name]
    return np.array(index, dtype=np.uint64).reshape(len(name), levels)


def cross_index(*index: Indices) -> Indices:
    """Index of the cross of features (before the mask); arrays broadcast against each other."""
    out = index[0]
    for other in index[1:]:
        out = (out * np.uint64(FNV_PRIME)) ^ other  # wraps at 2^64 as in C
    return out


def _string_hash(name: str, seed: int) -> int:
    if name == "" or (name.isascii() and name.isdigit()):
        return int(name or "0") + seed  # a number, as Vowpal Wabbit reads it, is its own hash
    return _murmur3(name.encode(), seed)


def _murmur3_of(block: Indices, length: int, seed: int) -> Indices:
    """`_murmur3` of strings of one length, as blocks [n, length / 4] of four bytes, the last padded with zeros."""
    word = np.uint64(0xFFFFFFFF)

    def rotated(k: Indices, by: int) -> Indices:
        return ((k << np.uint64(by)) | (k >> np.uint64(32 - by))) & word

    def times(k: Indices, by: int) -> Indices:
        return (k * np.uint64(by)) & word

    h = np.full(len(block), seed & 0xFFFFFFFF, dtype=np.uint64)
    for j in range(block.shape[1]):
        h ^= times(rotated(times(block[:, j], 0xCC9E2D51), 15), 0x1B873593)
        if 4 * j + 4 <= length:
            h = (times(rotated(h, 13), 5) + np.uint64(0xE6546B64)) & word
    h ^= np.uint64(length)
    h = times(h ^ (h >> np.uint64(16)), 0x85EBCA6B)
    h = times(h ^ (h >> np.uint64(13)), 0xC2B2AE35)
    return h ^ (h >> np.uint64(16))


def _murmur3(data: bytes, seed: int) -> int:
    """MurmurHash3 x86 32-bit (Appleby 2011)."""
    c1, c2, word = 0xCC9E2D51, 0x1B873593, 0xFFFFFFFF

    def mixed(k: int) -> int:
        k = (k * c1) & word
        return (((k << 15) | (k >> 17)) * c2) & word

    h = seed & word
    end = len(data) & ~3
    for i in range(0, end, 4):
        h ^= mixed(int.from_bytes(data[i : i + 4], "little"))
        h = ((h << 13) | (h >> 19)) & word
        h = (h * 5 + 0xE6546B64) & word
    if end < len(data):
        h ^= mixed(int.from_bytes(data[end:], "little"))
    h ^= len(data)
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & word
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & word
    return h ^ (h >> 16)
