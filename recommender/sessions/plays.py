"""Which rows of an event table are plays, and what each row counts.

Sessions are made of plays alone. A like, a rating or a follow is a row with a `type`; it counts by its `weight`
wherever events are counted: popularity, favourites, shelves. A play of which nothing more is said has neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bart.types import Bools, Floats

if TYPE_CHECKING:
    import pyarrow as pa

PLAY = "play"


def is_play(events: pa.Table) -> Bools:
    """[n], the rows that are plays: without a type, or with one that begins with "play" ("play+like")."""
    import pyarrow.compute as pc

    if "type" not in events.column_names:
        return np.ones(len(events), dtype=np.bool_)
    told = pc.fill_null(pc.starts_with(events["type"], PLAY), True)
    return np.asarray(told.to_numpy(), dtype=np.bool_)


def only_plays(events: pa.Table) -> pa.Table:
    """The plays of an event table, in its order."""
    import pyarrow as pa

    play = is_play(events)
    return events if play.all() else events.filter(pa.array(play))


def worth(events: pa.Table) -> Floats:
    """[n], what each row counts in plays: its weight, else 1, or 0 for a skipped play. May be negative."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count = np.ones(len(events))
    if "skipped" in events.column_names:  # not known whether skipped: counted as played
        count -= pc.fill_null(events["skipped"], False).to_numpy().astype(np.float64)
    if "weight" not in events.column_names:
        return count
    weight = events["weight"].cast(pa.float64()).to_numpy()
    return np.where(np.isnan(weight), count, weight)
