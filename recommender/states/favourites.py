"""A listener's favourite items: between two batches kept in order by use alone; and what they say of a listener who
played none.

A batch counts plays; afterwards only the list is known. The transposition rule (Rivest, "On self-organizing sequential
search heuristics", 1976) needs no counts: what is played moves one place forward, and in the long run the order is that
of frequency.
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats, Floats32, Ints
from recommender.sessions.table import unit

LIMIT = 50


def refreshed_favourites(favourite: Ints, recent: Ints, played: Ints, limit: int = LIMIT) -> Ints:
    """The favourites, best first, after a session. recent: what was heard before it; played: its rows in order.

    An item that is played for the second time becomes the last favourite, for the one that was last where there are
    `limit`.
    """
    out, heard = favourite.tolist(), set(recent.tolist())
    for item in played.tolist():
        if item in out:
            at = out.index(item)
            if at:
                out[at - 1], out[at] = out[at], out[at - 1]
        elif item in heard:
            out[limit - 1 :] = []
            out.append(item)
        heard.add(item)
    return np.array(out, dtype=np.int64)


def most_liked(row: Ints, count: Floats, limit: int = LIMIT) -> Ints:
    """The items that count most, best first, ties newest first. row, count: [n] of likes and ratings, oldest first."""
    item, where = np.unique(row, return_inverse=True)
    total = np.bincount(where.reshape(-1), weights=count, minlength=len(item))
    newest = np.zeros(len(item), dtype=np.int64)
    np.maximum.at(newest, where.reshape(-1), np.arange(len(row)))
    best = np.lexsort((-newest, -total))
    return np.asarray(item[best[total[best] > 0]][:limit])


def vector_of_liked(vector: Floats32, cold: Floats32) -> Floats32:
    """The vector of a listener who likes items and has played none: their unit mean, as of picks; `cold` without any.

    vector: [items liked, d].
    """
    mean = vector.sum(axis=0)
    return unit(mean) if mean.any() else cold
