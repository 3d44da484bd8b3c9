"""Poisson bootstrap without a random stream: the count of a user in a replicate is a function of both.

A user's count in replicate r is the inverse CDF of a Poisson distribution of mean 1 at a 64-bit hash of user, r and
seed. So the sums of a replicate add up over any division of a log, in any order, on any machine, and rows of one user
are drawn together wherever they stand. Source: Chamandy et al., Estimating uncertainty for massive data streams (2012);
the hash is splitmix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.types import Floats

Hashes = NDArray[np.uint64]

_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
MOST = 20  # a count above has a probability below 2^-64
CHUNK = 4_000_000  # hashes held at a time


def thresholds() -> Hashes:
    """[20]: 2^64 times the Poisson(1) distribution function at 0, 1, ...; a hash's count is how many it reaches."""
    with localcontext() as context:
        context.prec = 60
        term = Decimal(-1).exp()
        total, out = Decimal(0), []
        for k in range(MOST):
            total += term
            out.append(min(int(total * 2**64), 2**64 - 1))
            term /= k + 1
    return np.array(out, dtype=np.uint64)


THRESHOLDS = thresholds()


def splitmix64(x: Hashes) -> Hashes:
    """The finaliser of splitmix64 on 64-bit integers of any shape: a bijection that spreads every bit."""
    with np.errstate(over="ignore"):
        z = x + _STEP
        z = (z ^ (z >> np.uint64(30))) * _FIRST
        z = (z ^ (z >> np.uint64(27))) * _SECOND
        return np.asarray(z ^ (z >> np.uint64(31)))


def hash_text(values: list[str]) -> Hashes:
    """[n] 64-bit hashes of texts, equal on every machine."""
    joined = b"".join(blake2b(value.encode(), digest_size=8).digest() for value in values)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def hash_rows(name: str, first: int, n: int) -> Hashes:
    """[n] hashes of the rows first, first + 1, ... of the file of that name: for rows that nobody owns."""
    start = hash_text([name])[0]
    return splitmix64(splitmix64(np.arange(first, first + n, dtype=np.uint64)) ^ start)


def replicate_keys(replicates: int, seed: int) -> Hashes:
    """[replicates], what each replicate mixes into the hashes of users."""
    base = splitmix64(np.array([seed % 2**64], dtype=np.uint64))
    return splitmix64(np.arange(replicates, dtype=np.uint64) ^ base)


def counts(user: Hashes, replicates: int, seed: int = 0) -> NDArray[np.uint8]:
    """[replicates, n] how often each user is drawn in each replicate. user: [n], hashed."""
    mixed = splitmix64(replicate_keys(replicates, seed)[:, None] ^ user[None, :])
    return np.searchsorted(THRESHOLDS, mixed.ravel(), side="right").astype(np.uint8).reshape(mixed.shape)


def replicate_sums(user: Hashes, columns: Floats, replicates: int, seed: int = 0) -> Floats:
    """[replicates, k] sums of each column, every row counted as often as its user is drawn.

    user: [n], hashed; columns: [n, k]. Rows of one user in one call are added up before they are drawn.
    """
    from bart.ope.intervals.poisson_kernels import add_draws

    distinct, group = np.unique(user, return_inverse=True)
    if len(distinct) < len(user):
        columns = np.stack([np.bincount(group, column, len(distinct)) for column in columns.T], axis=1)
        user = distinct
    out = np.zeros((replicates, columns.shape[1]))
    data: Any = np.ascontiguousarray(columns, dtype=np.float64)
    add_draws(np.ascontiguousarray(user), data, replicate_keys(replicates, seed), THRESHOLDS, out)
    return out
