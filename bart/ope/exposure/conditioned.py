"""Exposures with the reach conditioned on the card: the mean field without the pages that cannot be.

A card in column c stands in none before it, and its shelf in no row above. The mean appeal of the columns before it and
the mean of going on below the rows above it are taken over pages of which that is true. What still differs from the
truth is of second order: which other cards stand where, given these. Nothing is drawn.
"""

from __future__ import annotations

import numpy as np

from bart.ope.exposure.exposure import Exposure, ragged_take
from bart.ope.models.appeal import sigmoid
from bart.ope.models.browsing import Browsing
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import card_marginals, shelf_marginals
from bart.types import Floats, Ints

_CHUNK = 1_000_000  # candidates whose marginals are held at a time


def conditioned_exposure(
    data: LoggedPages, pages: Ints, score: Floats, browsing: Browsing, level: float, who: str
) -> Exposure:
    """Exposures of the seen cards of the given pages (ascending, in the order of `seen_cards`), and sums by page."""
    per_page = max(int(np.diff(data.offset).max()), 1)
    step = max(_CHUNK // per_page, 1)
    start, by_row = data.shelf_start(), shelf_marginals(data, who)
    parts = [
        _exposure(data, pages[k : k + step], start, by_row, score, browsing, level, who)
        for k in range(0, len(pages), step)
    ]
    return Exposure(
        np.concatenate([p.card for p in parts]),
        np.concatenate([p.total for p in parts]),
        np.concatenate([p.reward for p in parts]),
    )


def _exposure(
    data: LoggedPages,
    pages: Ints,
    start: Ints,
    by_row: Floats,
    score: Floats,
    browsing: Browsing,
    level: float,
    who: str,
) -> Exposure:
    from bart.ope.exposure import kernels

    shelves, shelf_offset = ragged_take(data.shelf_offset, pages)
    cards, card_start = ragged_take(start, shelves)
    size = np.diff(card_start)
    page = np.repeat(np.repeat(pages, np.diff(shelf_offset)), size)
    appeal = sigmoid(score[cards] + level)
    out = np.empty(len(cards))
    kernels.conditioned_exposure(
        shelf_offset,
        card_start,
        np.ascontiguousarray(by_row[shelves]),
        card_marginals(data, who, cards, page, np.repeat(size, size)),
        appeal,
        np.array([browsing.start, *browsing.column_hazard, *browsing.row_hazard]),
        browsing.row_trust,
        browsing.column_trust,
        out,
    )
    first = card_start[shelf_offset[:-1]]
    at, row, column = np.nonzero(data.seen[pages])
    return Exposure(
        card=out[first[at] + data.order[pages][at, row, column]],
        total=np.add.reduceat(out, first),
        reward=np.add.reduceat(out * appeal, first),
    )
