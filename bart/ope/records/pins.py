"""Pages with pinned cards as evaluation reads them: the slots that were drawn, and apart from them what pins earned.

A pinned card stands where it stands with probability 1 under every policy that keeps the pins, so its weight is 1 and
what it earned enters the value as it is. The cards beside it were drawn one after another as on any page; here they
move up to the left, so that the slot of a card is the number of its draw. A policy without the pins has no support on
such a page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.types import Floats, Ints, PageBatch


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSlots:
    """Where the drawn cards of a batch stood. column: [b, rows, columns] the column of each draw; columns that no card
    was drawn for come last. held: [b, rows], pinned slots of each row."""

    column: Ints
    held: Ints

    def of(self, values: NDArray[Any], empty: Any) -> NDArray[Any]:
        """Values [b, rows, columns] of slots by draw; `empty` in the places of the pins."""
        moved = np.take_along_axis(values, self.column, axis=2)
        there = np.arange(values.shape[2]) < values.shape[2] - self.held[:, :, None]
        return np.where(there, moved, empty)


def drawn_slots(batch: PageBatch) -> DrawnSlots | None:
    """The drawn slots of each row in their order; None where no page holds a pin."""
    if not batch.pinned.any():
        return None
    return DrawnSlots(np.argsort(batch.pinned, axis=2, kind="stable"), batch.pinned.sum(axis=2))


def without_pins(batch: PageBatch, slots: DrawnSlots) -> PageBatch:
    """The pages as they were drawn, pinned cards gone."""
    return replace(
        batch,
        card=slots.of(batch.card, -1),
        card_propensity=slots.of(batch.card_propensity, np.nan),
        pinned=np.zeros_like(batch.pinned),
        seen=slots.of(batch.seen, False),
        listened_s=slots.of(batch.listened_s, 0.0),
        reward=slots.of(batch.reward, 0.0),
        saved=None if batch.saved is None else slots.of(batch.saved, False),
        skipped=None if batch.skipped is None else slots.of(batch.skipped, np.int8(-1)),
    )


def earned_by_pins(batch: PageBatch, values: Floats) -> Floats:
    """[b] sum over the pinned cards that were seen; values: [b, rows, columns]."""
    out: Floats = np.where(batch.pinned & batch.seen, values, 0.0).sum(axis=(1, 2))
    return out
