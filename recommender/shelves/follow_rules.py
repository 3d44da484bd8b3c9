"""The shelf of what artists whom a listener follows released lately."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recommender.shelves.inputs import Proposal, ShelfInputs, shelf_of

_NEW_D = 90  # days for which a release of a followed artist is new


def new_from_followed(x: ShelfInputs) -> Iterator[Proposal]:
    """What artists whom the listener follows released lately and the listener has not just played, the newest first.

    Lately is before the visit, or before the catalogue's newest release, where that is older.
    """
    codes = followed(x)
    if not codes:
        return
    items, by_artist = x.lookups.items, x.lookups.by_artist
    row = np.unique(np.concatenate([by_artist.rows(code, len(items)) for code in codes]))
    released, today = items.released_at[row], np.datetime64(x.context.at.date())
    known = ~np.isnat(released) & (released <= today) & ~np.isin(row, x.listener.recent)
    row, released = row[known], released[known]
    new = released > min(today, x.lookups.newest) - np.timedelta64(_NEW_D, "D")
    order = np.lexsort((row[new], -items.popularity[row[new]], -released[new].astype(np.int64)))
    yield _NEW_FROM_FOLLOWED, row[new][order][: x.want]


def followed(x: ShelfInputs) -> list[int]:
    """Codes of the artists whom the listener follows and does not block, ascending."""
    wishes, index = x.listener.wishes, x.lookups.items.artists.index
    names = wishes.followed_artists - wishes.blocked_artists - x.listener.blocked_artists
    return sorted(index[name] for name in names if name in index)


_NEW_FROM_FOLLOWED = shelf_of(
    "new_from_followed", "New from artists you follow", "Released lately by artists you follow"
)
