"""The features of a candidate, each defined once: its name, what it says, where it comes from, when it moves.

Values are floats, NaN where not known; `recommender.features.values` works them out for a visit, and a visit's scorer
and record get each as one of a few levels (`bart.types.CardFeatures`) whose bounds a batch finds when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats32
from bart.types.levels import UNKNOWN

SESSION = "with a reported session"
BUILD = "with a batch"


@dataclass(frozen=True, slots=True)
class Definition:
    """One feature. source: what it is worked out from; moves: what changes its value for a listener and an item."""

    name: str
    group: str
    says: str
    source: str
    moves: str


_ALL = "plays and skips of all"
_HISTORY = "plays and skips of the listener"
DEFINITIONS: tuple[Definition, ...] = (
    Definition("cosine", "vectors", "cosine of the listener's vector and the item's", "listener model", SESSION),
    Definition("popularity", "item", "popularity of the item, 0 to 1", "item table", BUILD),
    Definition("interest", "interests", "cosine to the nearest of the listener's interests", _HISTORY, SESSION),
    Definition("second_interest", "interests", "cosine to the second nearest", _HISTORY, SESSION),
    Definition("mean_interest", "interests", "cosine to the interests, by their share of plays", _HISTORY, SESSION),
    Definition("item_plays", "history", "plays of the item", _HISTORY, SESSION),
    Definition("item_skips", "history", "(skips + 1) / (plays and skips + 2) of the item", _HISTORY, SESSION),
    Definition("artist_plays", "history", "plays of the artist", _HISTORY, SESSION),
    Definition("artist_skips", "history", "(skips + 1) / (plays and skips + 2) of the artist", _HISTORY, SESSION),
    Definition(
        "artist_days", "history", "days since the artist was played, 99 at most and where never", _HISTORY, SESSION
    ),
    Definition("genre_plays", "history", "share of the genre in the plays", _HISTORY, SESSION),
    Definition("genre_skips", "history", "(skips + 2) / (plays and skips + 4) of the genre", _HISTORY, SESSION),
    Definition("plays", "listener", "plays", _HISTORY, SESSION),
    Definition("skips", "listener", "share of skips", _HISTORY, SESSION),
    Definition("repeats", "listener", "share of plays of an item that was played before", _HISTORY, SESSION),
    Definition("usual_popularity", "listener", "mean popularity of plays", _HISTORY, SESSION),
    Definition("popularity_gap", "listener", "distance of the item's popularity from that", _HISTORY, SESSION),
    Definition("collaborative", "collaborative", "product of the listener's and the item's factors", _HISTORY, SESSION),
    Definition("collaborative_cosine", "collaborative", "their cosine", _HISTORY, SESSION),
    Definition("all_plays", "item", "plays of the item by all", _ALL, BUILD),
    Definition("all_skips", "item", "(skips + 3) / (plays and skips + 6) of the item by all", _ALL, BUILD),
)
NAMES: tuple[str, ...] = tuple(one.name for one in DEFINITIONS)


def bounds_of(value: Floats32, levels: int = UNKNOWN) -> Floats32:
    """[levels - 1] where the levels of a feature begin, about equally frequent among the values [m] of candidates.

    The lowest value has a level of its own where it is frequent (no play at all). Bounds that are not needed are inf.
    """
    known = np.sort(value[np.isfinite(value)]).astype(np.float64)
    out = np.full(levels - 1, np.inf, dtype=np.float32)
    if not len(known):
        return out
    lowest = known[0]
    rest = known[known > lowest]
    bound: list[float] = []
    if len(rest) and len(known) - len(rest) > len(known) / levels:
        bound, known = [rest[0]], rest
    share = np.linspace(0.0, 1.0, levels - len(bound) + 1)[1:-1]
    found = np.unique(np.array([*bound, *np.quantile(known, share)], dtype=np.float32))
    found = found[found > np.float32(lowest)]
    out[: len(found)] = found
    return out
