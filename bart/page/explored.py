"""Which shown cards were explored, told from scores alone: those that were not the best left in their shelf."""

from __future__ import annotations

import numpy as np

from bart.types import Bools, Floats, Ints, PageBatch


def explored(pages: PageBatch) -> Bools:
    """[b, rows, columns] cards shown that were not the best left in their shelf (ties: some other was as good)."""
    score = np.where(pages.card >= 0, of_cards(pages, pages.score), -np.inf)
    b, rows, columns = pages.card.shape
    # A card was the best left when as many cards of its shelf score higher as were taken before it from above it.
    out = np.zeros((b, rows, columns), dtype=np.bool_)
    better = _better(pages)
    for c in range(columns):
        taken = (score[:, :, :c] > score[:, :, c : c + 1]).sum(axis=2)
        out[:, :, c] = (pages.card[:, :, c] >= 0) & (better[:, :, c] > taken)
    return out


def of_cards(pages: PageBatch, value: Floats | Ints) -> Floats:
    """[b, rows, columns] a value [N] of each card shown; 0 where none stands."""
    flat = np.where(pages.card >= 0, pages.card + pages.offset[:-1, None, None], 0)
    out: Floats = np.where(pages.card >= 0, value[flat], 0) if len(value) else np.zeros(pages.card.shape)
    return out


def _better(pages: PageBatch) -> Ints:
    """[b, rows, columns] how many candidates of a shown card's shelf score higher than it."""
    page = np.repeat(np.arange(len(pages)), np.diff(pages.offset))
    group = page * (int(pages.shelf.max(initial=0)) + 2) + pages.shelf + 1
    order = np.lexsort((-pages.score, group))
    ranked, value = group[order], pages.score[order]
    first = np.searchsorted(ranked, ranked)  # of the group
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (np.diff(ranked) != 0) | (np.diff(value) != 0)
    place = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))  # of the first with the same score
    better = np.empty(len(order), dtype=np.int64)
    better[order] = place - first
    out: Ints = of_cards(pages, better).astype(np.int64)
    return out
