"""What is known of each candidate beyond its item: named numbers, each as one of a few levels.

Whoever finds candidates defines the numbers and where a level begins (`recommender.features`); the reward model gives
each level a weight; the decision's record keeps the levels, so that training and evaluation read what was served by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bart.types.arrays import Bools, Ints

LEVELS = 16  # half a byte each in a record
UNKNOWN = LEVELS - 1  # the level of what is not known


@dataclass(frozen=True, slots=True, eq=False)
class CardFeatures:
    """Levels of n candidates: name [f], distinct; level [n, f] uint8 in [0, LEVELS), UNKNOWN where not known."""

    name: tuple[str, ...]
    level: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.level.ndim != 2 or self.level.shape[1] != len(self.name) or self.level.dtype != np.uint8:
            raise ValueError(f"level is {self.level.dtype} {self.level.shape}; expected uint8 [n, {len(self.name)}]")
        if len(set(self.name)) != len(self.name):
            raise ValueError("name holds a name twice; expected distinct names")
        if self.level.size and self.level.max() >= LEVELS:
            raise ValueError(f"level is up to {int(self.level.max())}; expected [0, {LEVELS})")

    def __len__(self) -> int:
        return len(self.level)

    def take(self, row: Ints | Bools) -> CardFeatures:
        """Those of some candidates, in that order."""
        return CardFeatures(self.name, self.level[row])

    def named(self, name: Sequence[str]) -> NDArray[np.uint8]:
        """[n, names] levels of the given names; UNKNOWN for one that is not among them."""
        if tuple(name) == self.name:
            return self.level
        place = {own: k for k, own in enumerate(self.name)}
        out = np.full((len(self.level), len(name)), UNKNOWN, dtype=np.uint8)
        for k, wanted in enumerate(name):
            if wanted in place:
                out[:, k] = self.level[:, place[wanted]]
        return out

    def beside(self, other: CardFeatures) -> CardFeatures:
        """These and others of the same candidates."""
        return CardFeatures((*self.name, *other.name), np.concatenate([self.level, other.level], axis=1))

    @classmethod
    def unknown(cls, n: int, name: Sequence[str] = ()) -> CardFeatures:
        """Of n candidates of which nothing is known."""
        return cls(tuple(name), np.full((n, len(name)), UNKNOWN, dtype=np.uint8))

    @classmethod
    def concat(cls, parts: Sequence[CardFeatures]) -> CardFeatures:
        """Of all parts, one after another, with every name that one of them has."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.name))
        return cls(names, np.concatenate([part.named(names) for part in parts]))
