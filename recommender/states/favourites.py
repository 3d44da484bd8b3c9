"""A listener's favourite items between two batches, kept in order by use alone.

A batch counts plays; afterwards only the list is known. The transposition rule (Rivest, "On self-organizing sequential
search heuristics", 1976) needs no counts: what is played moves one place forward, and in the long run the order is that
of frequency.
"""

from __future__ import annotations

import numpy as np

from bart.types import Ints


def refreshed_favourites(favourite: Ints, recent: Ints, played: Ints, limit: int = 50) -> Ints:
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
