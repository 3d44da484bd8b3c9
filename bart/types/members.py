"""What stands in what: the members of albums, playlists, artists and shows, as rows of one item table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bart.types.arrays import Ints

_NONE: Ints = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Lists of rows, one an item, in order: item i has `row[offset[i]:offset[i + 1]]`; none after the last offset.

    row: [m] int64; offset: [k + 1] int64 from 0 to m, k at most the number of items. Raises ValueError for others.
    """

    row: Ints
    offset: Ints

    def __post_init__(self) -> None:
        if self.offset.ndim != 1 or not len(self.offset) or self.offset[0] != 0 or self.offset[-1] != len(self.row):
            raise ValueError(f"offset must be [k + 1], from 0 to {len(self.row)}; got shape {self.offset.shape}")
        if np.any(np.diff(self.offset) < 0):
            raise ValueError("offset must not decrease")

    @classmethod
    def none(cls) -> Members:
        """Of items none of which holds another."""
        return cls(_NONE, np.zeros(1, dtype=np.int64))

    @classmethod
    def of_pairs(cls, holder: Ints, member: Ints, n: int) -> Members:
        """From pairs [m] of the rows of a holder and of its member, in the order of a holder's pairs; each once."""
        order = np.argsort(holder, kind="stable")
        holder, member = holder[order], member[order]
        first = np.sort(np.unique(holder * n + member, return_index=True)[1])
        holder, member = holder[first], member[first]
        size = np.bincount(holder, minlength=n)
        return cls(member.astype(np.int64), np.concatenate([[0], np.cumsum(size)]).astype(np.int64))

    @classmethod
    def of_lists(cls, lists: Iterable[Sequence[int] | None]) -> Members:
        """From a list of rows an item."""
        rows = [list(one or ()) for one in lists]
        offset = np.concatenate([[0], np.cumsum([len(one) for one in rows])]).astype(np.int64)
        return cls(np.array([row for one in rows for row in one], dtype=np.int64), offset)

    def __getitem__(self, item: int) -> Ints:
        """Rows of the members of one item, in order."""
        return self.row[self.offset[item] : self.offset[item + 1]] if 0 <= item < len(self.offset) - 1 else _NONE

    def size(self, n: int) -> Ints:
        """[n] members of each of n items."""
        out = np.zeros(n, dtype=np.int64)
        out[: len(self.offset) - 1] = np.diff(self.offset)
        return out

    def pairs(self) -> tuple[Ints, Ints]:
        """Rows of the holder and of the member, [m] each."""
        return np.repeat(np.arange(len(self.offset) - 1), np.diff(self.offset)), self.row

    def held_by(self, n: int) -> Members:
        """The other way round: the holders of each of n items, ascending."""
        holder, member = self.pairs()
        return Members.of_pairs(member, holder, n)

    def of(self, item: Ints) -> tuple[Ints, Ints]:
        """Members of many items [k]: the place in `item` of each, ascending, and its row, [m]."""
        known = (item >= 0) & (item < len(self.offset) - 1)
        place = np.flatnonzero(known)
        start, stop = self.offset[item[place]], self.offset[item[place] + 1]
        size = stop - start
        first = np.repeat(np.cumsum(size) - size, size)
        at = np.arange(int(size.sum())) - first + np.repeat(start, size)
        return np.repeat(place, size), self.row[at]
