"""What can be shown: the table of items, and lists of labels as flat codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bart.types.arrays import Bools, Dates, Floats, Floats32, Ints, Strings
from bart.types.members import Members

ITEM_TYPES = ("track", "album", "playlist", "artist", "show", "episode", "article")
CONTAINERS = ("album", "playlist", "artist", "show")  # types that hold others
CREDITED = ("album", "artist", "show")  # of them, those that every play of a member is a play of as well


class Labels:
    """Lists of labels, one list an item (artists, genres, countries), as flat codes and offsets.

    code: [m] int64 into `vocabulary`; offset: [n + 1] int64; item i has `code[offset[i]:offset[i + 1]]`.
    """

    def __init__(self, code: Ints, offset: Ints, vocabulary: Sequence[str]) -> None:
        self.code = np.asarray(code, dtype=np.int64)
        self.offset = np.asarray(offset, dtype=np.int64)
        self.vocabulary = tuple(vocabulary)
        if self.offset.ndim != 1 or len(self.offset) == 0 or self.offset[0] != 0 or self.offset[-1] != len(self.code):
            raise ValueError(f"offset must be [n + 1], from 0 to {len(self.code)}; got shape {self.offset.shape}")
        if np.any(np.diff(self.offset) < 0):
            raise ValueError("offset must not decrease")
        if len(self.code) and (self.code.min() < 0 or self.code.max() >= len(self.vocabulary)):
            raise ValueError(f"code must lie in [0, {len(self.vocabulary)}), the size of the vocabulary")

    @classmethod
    def of(cls, lists: Iterable[Sequence[str] | None]) -> Labels:
        """Encodes lists of strings; None and an empty list are the same. Vocabulary in order of first appearance."""
        index: dict[str, int] = {}
        code: list[int] = []
        offset = [0]
        for labels in lists:
            code.extend(index.setdefault(label, len(index)) for label in (labels or ()))
            offset.append(len(code))
        return cls(np.array(code, dtype=np.int64), np.array(offset, dtype=np.int64), tuple(index))

    def __len__(self) -> int:
        return len(self.offset) - 1

    def __getitem__(self, row: int) -> tuple[str, ...]:
        """The labels of one item."""
        return tuple(self.vocabulary[c] for c in self.code[self.offset[row] : self.offset[row + 1]])

    @cached_property
    def first(self) -> Ints:
        """Code of each item's first label, [n]; -1 where it has none."""
        has = self.offset[1:] > self.offset[:-1]
        out = np.full(len(self), -1, dtype=np.int64)
        out[has] = self.code[self.offset[:-1][has]]
        return out

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Code of each label."""
        return {label: code for code, label in enumerate(self.vocabulary)}

    def rows_with(self, label: str) -> Ints:
        """Rows of the items that carry `label`, ascending; empty for an unknown label."""
        code = self.index.get(label)
        if code is None:
            return np.empty(0, dtype=np.int64)
        return np.unique(np.searchsorted(self.offset, np.flatnonzero(self.code == code), side="right") - 1)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What is known of each item; the rows of one batch.

    item_id, title: [n] str. type: [n] int8 into `ITEM_TYPES`. artists, genres, countries: a list an item (no country
    means everywhere). released_at: [n] datetime64[D], NaT where unknown. explicit: [n] bool. popularity: [n] in
    [0, 1], 1 for the most played. duration_s: [n] seconds, NaN where unknown. vector: [n, d] float32, unit length or
    all zero where the item has none. members: what albums, playlists, artists and shows hold. image: [n] str, where the
    cover is, "" where it has none; None where no item has one. Raises ValueError for repeated ids, other shapes or
    values outside these ranges.
    """

    item_id: Strings
    title: Strings
    type: NDArray[np.int8]
    artists: Labels
    genres: Labels
    released_at: Dates
    countries: Labels
    explicit: Bools
    popularity: Floats
    duration_s: Floats
    vector: Floats32
    members: Members = field(default_factory=Members.none)
    image: Strings | None = None

    def __post_init__(self) -> None:
        n = len(self.item_id)
        for name in (
            "title",
            "type",
            "artists",
            "genres",
            "released_at",
            "countries",
            "explicit",
            "popularity",
            "duration_s",
            *(() if self.image is None else ("image",)),
        ):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries; expected {n}, one an item")
        if self.vector.ndim != 2 or len(self.vector) != n:
            raise ValueError(f"vector has shape {self.vector.shape}; expected ({n}, d)")
        if not np.isfinite(self.vector).all():
            raise ValueError(f"vector[{int(np.argwhere(~np.isfinite(self.vector))[0][0])}] is not finite")
        if not np.all((self.popularity >= 0) & (self.popularity <= 1)):
            raise ValueError("popularity must lie in [0, 1]")
        if n and not (self.type.min() >= 0 and self.type.max() < len(ITEM_TYPES)):
            raise ValueError(f"type must lie in [0, {len(ITEM_TYPES)})")
        if len(self.row_of) != n:
            raise ValueError("item_id must not repeat")
        held = self.members.row
        if len(self.members.offset) > n + 1 or (len(held) and not (held.min() >= 0 and held.max() < n)):
            raise ValueError(f"members name rows that are not in [0, {n}), those of items")

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def dimension(self) -> int:
        return int(self.vector.shape[1])

    @cached_property
    def last_released_at(self) -> np.datetime64:
        """The latest of all days of release; NaT where none is known."""
        last: np.datetime64 = np.fmax.reduce(self.released_at, initial=np.datetime64("NaT", "D"))
        return last

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each item id."""
        return {item: row for row, item in enumerate(self.item_id.tolist())}

    @cached_property
    def is_container(self) -> Bools:
        """[n] whether an item holds others."""
        holds: Bools = np.asarray(self.members.size(len(self)) > 0)
        return holds

    @cached_property
    def held_by(self) -> Members:
        """The containers of each item, ascending."""
        return self.members.held_by(len(self))

    @cached_property
    def credits(self) -> Members:
        """The containers of each item that a play of it is a play of as well (`CREDITED`)."""
        holder, member = self.members.pairs()
        kept = np.isin(self.type[holder], [ITEM_TYPES.index(name) for name in CREDITED])
        return Members.of_pairs(member[kept], holder[kept], len(self))

    @cached_property
    def stands_alone(self) -> Bools:
        """[n] whether an item is offered for itself: no container, and no episode of a show, which its show offers."""
        holder, member = self.members.pairs()
        out = ~self.is_container
        out[member[self.type[holder] == ITEM_TYPES.index("show")]] = False
        return out

    @cached_property
    def album(self) -> Ints:
        """[n] row of the first album that holds an item; -1 where none does."""
        holder, member = self.members.pairs()
        albums = np.flatnonzero(self.type[holder] == ITEM_TYPES.index("album"))[::-1]  # the first is written last
        out = np.full(len(self), -1, dtype=np.int64)
        out[member[albums]] = holder[albums]
        return out

    def rows(self, item_id: Iterable[str]) -> Ints:
        """Rows of the given ids, [m]; -1 where the id is unknown."""
        get = self.row_of.get
        return np.fromiter((get(i, -1) for i in item_id), dtype=np.int64)
