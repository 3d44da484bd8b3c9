"""What a caller says of an ordered list that answers a query: its scores and places as levels, its query as a rule.

Scores of a caller are on no known scale, so each is told by where it lies between the list's lowest and highest.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bart.types.arrays import Floats
from bart.types.levels import UNKNOWN, CardFeatures

CALLER = ("caller_score", "caller_place")  # names of the levels
QUERIES = 512  # rules that queries share; of more, some are taken as one
_TOP = UNKNOWN - 1  # the highest level


def caller_features(score: Floats) -> CardFeatures:
    """[n] levels of a list in the caller's order: the higher the score, or the nearer the top, the higher the level."""
    n = len(score)
    level = np.zeros((n, len(CALLER)), dtype=np.uint8)
    if n:
        span = float(score.max() - score.min())
        level[:, 0] = np.round((score - score.min()) / span * _TOP) if span > 0 else _TOP
        level[:, 1] = np.maximum(_TOP - np.arange(n), 0)
    return CardFeatures(CALLER, level)


def reads_caller(scorer: object) -> bool:
    """Whether a scorer has weights for what a caller says."""
    return set(CALLER) <= set(getattr(scorer, "levels", ()))


def caller_prior(name: str) -> NDArray[np.float32]:
    """[levels - 1] logits of the levels of a name before anything was learnt: the caller's order is followed."""
    step = {"caller_score": 0.15, "caller_place": 0.15}[name]
    out: NDArray[np.float32] = (step * (np.arange(UNKNOWN) - _TOP)).astype(np.float32)
    return out


def same_query(query: str) -> str:
    """A query as it is compared: without case and needless spaces."""
    return " ".join(query.casefold().split())


def query_rule(query: str) -> str:
    """The explanation of a list that answers a query, by which the reward model tells queries apart."""
    digest = blake2b(same_query(query).encode(errors="surrogatepass"), digest_size=8).digest()
    return f"search={int.from_bytes(digest, 'big') % QUERIES}"
