"""Pages whose recorded propensities do not follow from ranks and exploration rates, and what holds for them.

Two kinds: pages whose shelves share items, where a card taken by one shelf leaves the others, and pages drawn by a
policy of its own, such as Plackett-Luce. Their recorded conditionals are exact, and so are those of an epsilon-greedy
policy on the same choices, by the walk that serving takes; what is missing are the marginals. So they are weighed by
everything above and left of a slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.ope.records.pins import drawn_slots
from bart.page.batch import batch_propensity
from bart.page.final import FinalScores
from bart.types import Bools, Floats, Ints, PageBatch

CLOSE = 1e-9  # between a recorded propensity and the one that scores and rates give


@dataclass(frozen=True, slots=True, eq=False)
class Irregular:
    """shelf: [b, rows], card: [b, rows, columns] by draw: the evaluation policy's conditional propensities, NaN on
    pages that follow from ranks; None where all do. cautions: what is to be said of them."""

    shelf: Floats | None = None
    card: Floats | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OddPages:
    """[b] which pages are irregular, by their shared items or by a policy of its own; the same for any policy."""

    shared: Bools
    own: Bools

    @staticmethod
    def of(batch: PageBatch, pages: Ints) -> OddPages:
        """Those among `pages` of a batch; each is replayed."""
        if not len(pages):
            return OddPages.none(0)
        part = batch if len(pages) == len(batch) else batch.take(pages)
        shared = _sharing(part)
        return OddPages(shared, _of_its_own(part) & ~shared)

    @staticmethod
    def none(pages: int) -> OddPages:
        """So many pages that all follow from ranks."""
        regular = np.zeros(pages, dtype=np.bool_)
        return OddPages(regular, regular)

    def which(self) -> Ints:
        return np.flatnonzero(self.shared | self.own)


def irregular_pages(
    batch: PageBatch, pages: Ints, final: FinalScores, shelf_epsilon: Floats, card_epsilon: Floats, odd: OddPages
) -> Irregular:
    """Those among `pages` of a batch, for an evaluation policy with these final scores and rates ([b, positions])."""
    which = odd.which()
    if not len(which):
        return Irregular()
    chosen, flat = batch.take(pages[which]), _rows_of(batch, pages[which])
    shelf, card = batch_propensity(
        chosen,
        final.card[flat],
        _rates(shelf_epsilon[pages[which]]),
        _rates(card_epsilon[pages[which]]),
        raw_score=final.shelf[flat],
    )
    itself: Bools = (
        final.logging[pages[which]]
        & _equal(shelf_epsilon[pages[which]], chosen.shelf_epsilon)
        & _equal(card_epsilon[pages[which]], chosen.card_epsilon)
    )
    shelf = np.where(itself[:, None], chosen.shelf_propensity, shelf)
    card = np.where(itself[:, None, None], chosen.card_propensity, card)
    slots = drawn_slots(chosen)
    if slots is not None:
        card = slots.of(card, np.nan)
    out = Irregular(
        np.full((len(pages), *batch.row_shelf.shape[1:]), np.nan),
        np.full((len(pages), *batch.card.shape[1:]), np.nan),
        () if itself.all() else tuple(_said(odd.shared, odd.own, len(pages))),
    )
    if out.shelf is not None and out.card is not None:
        out.shelf[which], out.card[which] = shelf, card
    return out


def _said(shared: Bools, own: Bools, pages: int) -> list[str]:
    told = []
    if shared.any():
        told.append(
            f"{shared.sum():,} of {pages:,} pages have shelves that share items, which have no exact marginals: only"
            " the cascade_ips kind is exact there"
        )
    if own.any():
        told.append(
            f"{own.sum():,} of {pages:,} pages have propensities that do not follow from ranks and exploration rates"
            " (a policy of its own, or a fault): only the cascade_ips kind is exact there"
        )
    return told


def _sharing(batch: PageBatch) -> Bools:
    """[b], pages on which an item stands in two places of the draw."""
    known = (batch.item >= 0) & (batch.shelf >= 0)
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))[known]
    key = np.sort(page * (int(batch.item.max(initial=0)) + 1) + batch.item[known])
    out = np.zeros(len(batch), dtype=np.bool_)
    out[key[1:][key[1:] == key[:-1]] // (int(batch.item.max(initial=0)) + 1)] = True
    return out


def _of_its_own(batch: PageBatch) -> Bools:
    """[b], pages whose recorded propensities are not those of epsilon-greedy by their scores and rates."""
    shelf, card = batch_propensity(
        batch, batch.score, _rates(batch.shelf_epsilon), _rates(batch.card_epsilon), raw_score=batch.raw_score
    )
    by_shelf: Bools = np.any(np.abs(shelf - batch.shelf_propensity) > CLOSE, axis=1)
    by_card: Bools = np.any(np.abs(card - batch.card_propensity) > CLOSE, axis=(1, 2))
    return by_shelf | by_card


def _rates(epsilon: Floats) -> Floats:
    """Rates with 1 where the page asked for no such position: none is read there."""
    return np.where(np.isnan(epsilon), 1.0, epsilon)


def _rows_of(batch: PageBatch, pages: Ints) -> Ints:
    size = np.diff(batch.offset)[pages]
    first = np.repeat(batch.offset[:-1][pages] - (np.cumsum(size) - size), size)
    out: Ints = np.arange(int(size.sum())) + first
    return out


def _equal(one: Floats, other: Floats) -> Bools:
    """[b], rows of rates that are the same."""
    out: Bools = np.all((one == other) | (np.isnan(one) & np.isnan(other)), axis=1)
    return out
