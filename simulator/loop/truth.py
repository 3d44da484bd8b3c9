"""The value of a policy in a world: expected streams a page, over its draws and the listeners' ways of reading.

The reading is averaged in closed form (simulator/reading/scanning.py), the policy's draws by sampling, with a stated
error.
"""

from __future__ import annotations

import numpy as np

from bart.page.batch import batch_decide
from bart.types import Bools, Floats, Ints, PageBatch
from simulator.reading.browsing import BrowsingParams, page_value

_CHUNK = 4_096  # pages evaluated at once; bounds the memory


def page_appeal(appeal: Floats, offset: Ints, card: Ints) -> tuple[Floats, Bools]:
    """Appeal of the cards on each page, [b, rows, columns], 0 where none stands; and where one stands.

    appeal [N] of all candidates, offset [b + 1], card [b, rows, columns]: candidate number within the page or -1.
    """
    present = card >= 0
    if len(appeal) == 0:
        return np.zeros(card.shape), present
    flat = np.where(present, card + offset[:-1, None, None], 0)
    return np.where(present, appeal[flat], 0.0), present


def page_values(
    appeal: Floats, offset: Ints, card: Ints, params: BrowsingParams, *, patience: Floats | None = None
) -> Floats:
    """[b] expected streams of given displayed pages."""
    out = np.empty(len(card))
    for first in range(0, len(card), _CHUNK):
        part = slice(first, min(first + _CHUNK, len(card)))
        own = None if patience is None else patience[part]
        on_page, present = page_appeal(appeal, offset[first : part.stop + 1], card[part])
        out[part] = page_value(on_page, present, params, patience=own)
    return out


def true_value(
    batch: PageBatch,
    appeal: Floats,
    score: Floats,
    shelf_epsilon: float | Floats,
    card_epsilon: float | Floats,
    params: BrowsingParams,
    rng: np.random.Generator,
    *,
    draws: int = 16,
    raw_score: Floats | None = None,
    patience: Floats | None = None,
) -> tuple[float, float]:
    """Expected streams a displayed page of the epsilon-greedy policy with these scores, for these visits; its error.

    appeal, score [N]: of the candidates of `batch`; raw_score [N] what shelves are worth, `score` by default.
    shelf_epsilon: a number, [rows] or [b, rows]; card_epsilon: a number, [columns] or [b, columns]. patience [b]:
    needed in worlds where it counts. draws: pages drawn for each visit, at least 2.
    The error is the standard error from the policy's draws alone, visits fixed; 0 where nothing is random.
    """
    b, rows, columns = batch.card.shape
    if b == 0:
        raise ValueError("batch has no pages; expected at least one")
    pages, rates = (batch.offset, batch.shelf, appeal, score, (rows, columns)), (shelf_epsilon, card_epsilon)
    return value_of_pages(*pages, *rates, params, rng, draws=draws, raw_score=raw_score, patience=patience)


def value_of_pages(
    offset: Ints,
    shelf: Ints,
    appeal: Floats,
    score: Floats,
    size: tuple[int, int],
    shelf_epsilon: float | Floats,
    card_epsilon: float | Floats,
    params: BrowsingParams,
    rng: np.random.Generator,
    *,
    draws: int = 16,
    raw_score: Floats | None = None,
    patience: Floats | None = None,
) -> tuple[float, float]:
    """The same from flat arrays: candidates of page i at offset[i]:offset[i + 1] of shelf, appeal and score [N].

    size: rows and columns of a page.
    """
    n, b, (rows, columns) = len(shelf), len(offset) - 1, size
    for name, given in (("appeal", appeal), ("score", score)):
        if given.shape != (n,):
            raise ValueError(f"{name} has shape {given.shape}; expected ({n},), one a candidate")
    if draws < 2:
        raise ValueError(f"draws is {draws}; expected at least 2")
    if patience is not None and np.shape(patience) != (b,):
        raise ValueError(f"patience has shape {np.shape(patience)}; expected ({b},), one a page")
    worth = score if raw_score is None else raw_score
    fixed = not np.any(shelf_epsilon) and not np.any(card_epsilon) and not _tied(offset, shelf, score, worth)
    total, square = np.zeros(b), np.zeros(b)
    draws = 1 if fixed else draws
    shift = np.zeros(b)
    for k in range(draws):
        _, card = batch_decide(offset, shelf, score, rows, columns, shelf_epsilon, card_epsilon, rng, raw_score=worth)
        value = page_values(appeal, offset, card, params, patience=patience)
        if k == 0:
            shift = value  # differences to the first draw keep the variance exact where nothing varies
        total += value - shift
        square += (value - shift) ** 2
    mean = shift + total / draws
    if fixed:
        return float(mean.mean()), 0.0
    variance = np.maximum(square - total**2 / draws, 0.0) / (draws - 1)
    return float(mean.mean()), float(np.sqrt((variance / draws).sum()) / b)


def _tied(offset: Ints, shelf: Ints, score: Floats, worth: Floats) -> bool:
    """Whether a greedy page could still be random: equal scores within a shelf, or shelves of equal worth."""
    kept = np.flatnonzero(shelf >= 0)
    page = np.repeat(np.arange(len(offset) - 1), np.diff(offset))[kept]
    place = page * (int(shelf.max(initial=0)) + 1) + shelf[kept]
    order = np.lexsort((score[kept], place))
    same = (np.diff(place[order]) == 0) & (np.diff(score[kept][order]) == 0)
    if same.any():
        return True
    shelves, first = np.unique(place, return_index=True)
    best = np.full(len(shelves), -np.inf)
    np.maximum.at(best, np.searchsorted(shelves, place), worth[kept])
    owner = page[first]
    order = np.lexsort((best, owner))
    return bool(np.any((np.diff(owner[order]) == 0) & (np.diff(best[order]) == 0)))
