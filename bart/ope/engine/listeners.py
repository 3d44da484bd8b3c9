"""Sums by listener: what intervals that keep a listener's pages together need of a log, whatever its length.

A listener is a key of 63 bits that is the same in every part of the log. Where a log has more pages than `MOST`, keys
are cut to their leading bits, so that listeners are summed in that many groups at most: groups of independent listeners
are independent, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bart.ope.engine.sums import Statistics
from bart.ope.intervals.pages import Spread
from bart.ope.intervals.poisson_hash import hash_text
from bart.types import Floats, Ints, Strings

BITS = 17
MOST = 2**BITS


@dataclass(frozen=True, slots=True, eq=False)
class Listeners:
    """key: [u] of the listeners of some pages, ascending. place: [b] of each page's listener in it."""

    key: Ints
    place: Ints

    @staticmethod
    def of(key: Ints) -> Listeners:
        """key: [b]."""
        distinct, place = np.unique(key, return_inverse=True)
        return Listeners(distinct, place.reshape(-1))

    def put(self, out: Statistics, place: str, columns: Floats) -> None:
        """Adds the sums of the columns [b, k] by listener."""
        for i, column in enumerate(self.sums(columns).T):
            out.put(f"{place}/by listener {i}", column, key=self.key)

    def sums(self, columns: Floats) -> Floats:
        """[u, k] sums of the columns [b, k] by listener."""
        return np.stack([np.bincount(self.place, column, len(self.key)) for column in columns.T], axis=1)


def listener_keys(user_id: Strings, grouped: bool) -> Ints:
    """[b] keys of the listeners of pages. grouped: whether the log is long, see the header."""
    names, place = np.unique(user_id.astype(str), return_inverse=True)
    hashed = hash_text(names.tolist()) >> np.uint64(64 - BITS if grouped else 1)
    return hashed.astype(np.int64)[place.reshape(-1)]


def by_listener(found: Statistics, place: str) -> Floats:
    """[u, k] the sums that were put there."""
    columns: list[Floats] = []
    while len(values := found.values(f"{place}/by listener {len(columns)}")):
        columns.append(values)
    return np.stack(columns, axis=1) if columns else np.empty((0, 0))


def spread_of(value: float, sums: Floats, pages: Floats) -> Spread:
    """sums: [u] of influence by listener, pages: [u]."""
    return Spread(value, sums, np.arange(len(sums)), pages=pages)


def plus(spread: Spread, sums: Floats) -> Spread:
    """The spread of pages by listener with what their pages earned beside, [u]."""
    if spread.pages is None or not sums.any():
        return spread
    mean = float(sums.sum() / spread.pages.sum())
    return replace(spread, value=spread.value + mean, influence=spread.influence + (sums - spread.pages * mean))
