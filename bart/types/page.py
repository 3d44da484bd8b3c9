"""What was shown, with the propensity of each choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types.arrays import Bools, Floats, Ints, check_probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Shelves and cards as drawn, with the probability of each choice given those before it.

    shelf: [rows] shelf numbers. card: [rows, columns] candidate positions; a shorter row is padded with -1.
    shelf_propensity: [rows]; card_propensity: [rows, columns], NaN where padded. pinned: [rows, columns], cards
    that were fixed before the draw (propensity 1, no training datum). Rows that could not be filled are left out.
    """

    shelf: Ints
    card: Ints
    shelf_propensity: Floats
    card_propensity: Floats
    pinned: Bools

    def __post_init__(self) -> None:
        shape = self.card.shape
        if self.card.ndim != 2 or self.card_propensity.shape != shape or self.pinned.shape != shape:
            raise ValueError(
                f"card {shape}, card_propensity {self.card_propensity.shape}, pinned {self.pinned.shape} must agree"
            )
        if self.shelf.shape != shape[:1] or self.shelf_propensity.shape != shape[:1]:
            raise ValueError(
                f"shelf {self.shelf.shape} and shelf_propensity {self.shelf_propensity.shape} must be {shape[:1]}"
            )
        for name in ("shelf_propensity", "card_propensity"):
            check_probabilities(name, getattr(self, name))

    @classmethod
    def drawn(cls, shelf: Ints, card: Ints, shelf_propensity: Floats, card_propensity: Floats, pinned: Bools) -> Page:
        """Of parts that a draw has filled, which are not checked again."""
        out = object.__new__(cls)
        parts = (shelf, card, shelf_propensity, card_propensity, pinned)
        for name, value in zip(cls.__slots__, parts, strict=True):
            object.__setattr__(out, name, value)
        return out

    @property
    def shown(self) -> Bools:
        """[rows, columns], where a card stands."""
        return self.card >= 0

    @property
    def propensity(self) -> float:
        """Probability of the whole page: the product of all conditionals."""
        return float(np.prod(self.shelf_propensity) * np.prod(self.card_propensity[self.shown]))
