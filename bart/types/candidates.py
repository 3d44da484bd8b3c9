"""What may be shown: shelves, their candidates, and the protocols of whoever finds them and of listener stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bart.types.arrays import Bools, Ints, check_integers
from bart.types.context import Context, Listener
from bart.types.levels import CardFeatures


@dataclass(frozen=True, slots=True)
class Shelf:
    """One row that may be shown: a rule (the explanation feature) and its words.

    title and explanation are text; key with parameters is the same for translation. specificity is the rule's rank
    when an item could stand in several shelves (lower wins).
    """

    rule: str
    title: str
    explanation: str = ""
    key: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The cards that may be shown, each in a shelf.

    item: [n] rows of the item table. shelf: [n] index into `shelves`, or -1 for an item held out of the draw (a pin).
    An item normally stands in one shelf; callers may give overlapping shelves (the same row in several).
    features: what else is known of each of the n, None where nothing is.
    """

    item: Ints
    shelf: Ints
    shelves: tuple[Shelf, ...]
    features: CardFeatures | None = None

    def __post_init__(self) -> None:
        if self.item.ndim != 1 or self.item.shape != self.shelf.shape:
            raise ValueError(f"item {self.item.shape} and shelf {self.shelf.shape} must both be [n]")
        for name in ("item", "shelf"):
            check_integers(name, getattr(self, name))
        if len(self.shelf) and (self.shelf.min() < -1 or self.shelf.max() >= len(self.shelves)):
            raise ValueError(f"shelf must lie in [-1, {len(self.shelves)})")
        if len(self.item) and self.item.min() < 0:
            raise ValueError(f"item[{int(np.argmin(self.item))}] is {int(self.item.min())}; expected a row >= 0")
        if self.features is not None and len(self.features) != len(self.item):
            raise ValueError(f"features are of {len(self.features)} candidates; expected {len(self.item)}")

    def __len__(self) -> int:
        return len(self.item)

    @property
    def overlapping(self) -> bool:
        """Whether an item stands in more than one place."""
        return len(np.unique(self.item)) != len(self.item)

    def knowing(self, features: CardFeatures) -> Candidates:
        """The same with what is known of each; not checked again but for their number."""
        if len(features) != len(self.item):
            raise ValueError(f"features are of {len(features)} candidates; expected {len(self.item)}")
        out = object.__new__(Candidates)
        for name, value in (("item", self.item), ("shelf", self.shelf), ("shelves", self.shelves)):
            object.__setattr__(out, name, value)
        object.__setattr__(out, "features", features)
        return out

    def keep(self, mask: Bools) -> Candidates:
        """The candidates where mask [n] is true; shelves keep their numbers."""
        known = None if self.features is None else self.features.take(mask)
        return Candidates(self.item[mask], self.shelf[mask], self.shelves, known)


class CandidateSource(Protocol):
    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        """Cards by shelf for one visit. `rng` is a stream apart from the policy's."""
        ...


class FeatureSource(Protocol):
    def features(self, listener: Listener, context: Context, candidates: Candidates) -> CardFeatures:
        """What is known of each candidate of one visit by then."""
        ...


class ListenerStore(Protocol):
    def listener(self, user_id: str, context: Context) -> Listener:
        """The listener's vector and history for this context; a cold start for an unknown id. Commits nothing."""
        ...
