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
        row_shelf, card = np.empty((b, rows), dtype=np.int64), np.empty((b, rows, columns), dtype=np.int64)
        row_shelf.fill(-1)
        card.fill(-1)
        return cls.to_recompute(row_shelf, card, np.zeros(card.shape, dtype=np.bool_))

    @classmethod
    def to_recompute(cls, row_shelf: Ints, card: Ints, pinned: Bools) -> Choices:
        """Given choices, whose propensities are not known yet."""
        shelf_propensity, card_propensity = np.empty(row_shelf.shape), np.empty(card.shape)
        shelf_propensity.fill(np.nan)  # np.full takes three times as long
        card_propensity.fill(np.nan)
        return cls(row_shelf, card, pinned, shelf_propensity, card_propensity)

    def page(self) -> Page:
        """The first page, as far as it is filled."""
        filled = int(np.count_nonzero(self.row_shelf[0] >= 0))
        return Page.drawn(
            self.row_shelf[0, :filled],
            self.card[0, :filled],
            self.shelf_propensity[0, :filled],
            self.card_propensity[0, :filled],
            self.pinned[0, :filled],
        )
