"""The choices on some pages with the propensity of each, as they are filled by a draw or recomputed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Bools, Floats, Ints, Page


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """row_shelf, shelf_propensity: [b, rows]. card, pinned, card_propensity: [b, rows, columns].

    -1, False and NaN where nothing stands."""

    row_shelf: Ints
    card: Ints
    pinned: Bools
    shelf_propensity: Floats
    card_propensity: Floats

    @classmethod
    def none(cls, b: int, rows: int, columns: int) -> Choices:
        """To be drawn."""
        row_shelf, card = np.full((b, rows), -1, dtype=np.int64), np.full((b, rows, columns), -1, dtype=np.int64)
        return cls.to_recompute(row_shelf, card, np.zeros(card.shape, dtype=np.bool_))

    @classmethod
    def to_recompute(cls, row_shelf: Ints, card: Ints, pinned: Bools) -> Choices:
        """Given choices, whose propensities are not known yet."""
        return cls(row_shelf, card, pinned, np.full(row_shelf.shape, np.nan), np.full(card.shape, np.nan))

    def page(self) -> Page:
        """The first page, as far as it is filled."""
        filled = int(np.count_nonzero(self.row_shelf[0] >= 0))
        return Page(
            shelf=self.row_shelf[0, :filled],
            card=self.card[0, :filled],
            shelf_propensity=self.shelf_propensity[0, :filled],
            card_propensity=self.card_propensity[0, :filled],
            pinned=self.pinned[0, :filled],
        )
