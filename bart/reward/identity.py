"""Identities that have weights of their own: items, artists, listeners, and pairs of these with rule, genre and hour.

What a linear model cannot say by vectors and levels it learns here from the log itself: that an item earns more than
its like, that a listener takes one kind of explanation or one genre more than others do. An identity that the log has
not shown has weight 0. A pair is the cross of its parts' indices, as Vowpal Wabbit would make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bart.reward.feature_hash import Indices, cross_index, feature_index, feature_indices
from bart.types import ItemTable, Strings

PARTS: Mapping[str, tuple[str, ...]] = {
    "item": ("item",),
    "artist": ("artist",),
    "listener": ("listener",),
    "listener x rule": ("listener", "rule"),
    "listener x genre": ("listener", "genre"),
    "listener x artist": ("listener", "artist"),
    "rule x hour": ("rule", "hour"),
    "genre x hour": ("genre", "hour"),
}
IDS = tuple(PARTS)
_PARTNERS = ("rule", "genre", "artist")  # of the listener


def item_parts(items: ItemTable) -> dict[str, Indices]:
    """Indices [n] of the items, of their first artists and of their first genres; no artist and no genre are one."""
    artist = feature_indices("i", [f"artist={name}" for name in (*items.artists.vocabulary, "")])
    genre = feature_indices("g", [f"genre={name}" for name in (*items.genres.vocabulary, "")])
    return {
        "item": feature_indices("i", [f"item={name}" for name in items.item_id.tolist()]),
        "artist": artist[items.artists.first],  # -1 is the last
        "genre": genre[items.genres.first],
    }


def listener_index(user_id: Strings) -> Indices:
    """[b] indices of listeners by their ids."""
    known, place = np.unique(user_id.astype(str), return_inverse=True)
    return feature_indices("i", [f"listener={name}" for name in known.tolist()])[place]


def one_listener(user_id: str) -> int:
    """The same of one."""
    return feature_index("i", f"listener={user_id}")


def identities(ids: Sequence[str], part: Mapping[str, Indices], n: int) -> Indices:
    """[n, ids] indices of n examples from those of their parts, each [n]."""
    out: Indices = np.zeros((n, len(ids)), dtype=np.uint64)
    for k, name in enumerate(ids):
        out[:, k] = cross_index(*(part[one] for one in PARTS[name]))
    return out


def partners_of(ids: Sequence[str]) -> int:
    """What a listener's own weights go by: 1 for the listener alone, 2, 4, 8 for the rule, genre and artist."""
    return ("listener" in ids) + sum(2 << k for k, name in enumerate(_PARTNERS) if f"listener x {name}" in ids)
