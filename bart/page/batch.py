"""Epsilon-greedy pages of a whole log, or of many simulated visits, at once."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from bart.page.choices import Choices
from bart.ranking import checks as check
from bart.types import Bools, Floats, Ints, PageBatch

Rates: TypeAlias = "float | Floats"

CHUNK = 2048  # pages drawn at a time: bounds the memory of variates, does not change what is drawn
NO_PINS = np.empty((0, 0, 0), dtype=np.int64)
NO_ITEMS = np.empty(0, dtype=np.int64)
NO_VARIATES = np.empty((0, 0, 0))


def batch_propensity(
    batch: PageBatch,
    score: Floats,
    shelf_epsilon: Rates,
    card_epsilon: Rates,
    *,
    raw_score: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Probability of each logged choice given those before it, under epsilon-greedy by these scores.

    score: [N], what cards are drawn by. raw_score: [N], what shelves are worth, `score` by default. shelf_epsilon: a
    number, [rows] or [b, rows]; card_epsilon: a number, [columns] or [b, columns].
    Returns shelf [b, rows] and card [b, rows, columns]; NaN where nothing stands, 1 for a pinned card. Where items
    repeat within a page, a taken one leaves its other shelves too; candidates without a row in the item table (-1)
    count as distinct.
    Raises ValueError where a logged choice was not to be had, naming its page. A page was asked for as many columns as
    it has card epsilons that are not NaN.
    """
    b, rows, columns = batch.card.shape
    # The walk reads without bounds: what it is given must fit, even if the arrays of the batch were changed since.
    for name, shape in (("shelf", batch.item.shape), ("row_shelf", (b, rows)), ("pinned", batch.card.shape)):
        if getattr(batch, name).shape != shape or len(batch.offset) != b + 1:
            raise ValueError(f"{name} has shape {getattr(batch, name).shape}; expected {shape}")
    score = check.finite("score", score, len(batch.item))
    raw_score = score if raw_score is None else check.finite("raw_score", raw_score, len(batch.item))
    offset = check.offsets("offset", batch.offset, len(score))
    choices = given_choices("row_shelf", batch.row_shelf, batch.card, batch.pinned)
    walk(
        True,
        (offset, check.integers("shelf", batch.shelf), check.integers("item", batch.item)),
        (score, raw_score),
        (_by_page("shelf_epsilon", shelf_epsilon, b, rows), _by_page("card_epsilon", card_epsilon, b, columns)),
        choices,
        asked=np.count_nonzero(~np.isnan(batch.card_epsilon), axis=1).astype(np.int64),
    )
    return choices.shelf_propensity, choices.card_propensity


def batch_decide(
    offset: Ints,
    shelf: Ints,
    score: Floats,
    rows: int,
    columns: int,
    shelf_epsilon: Rates,
    card_epsilon: Rates,
    rng: np.random.Generator,
    *,
    raw_score: Floats | None = None,
    item: Ints | None = None,
) -> tuple[Ints, Ints]:
    """Pages of many visits: row_shelf [b, rows] and card [b, rows, columns], -1 where nothing stands.

    offset: [b + 1]. shelf: [N], number within the page, -1 for a candidate that is held out. score: [N], finite.
    shelf_epsilon: a number, [rows] or [b, rows]; card_epsilon: a number, [columns] or [b, columns]. raw_score: [N],
    what shelves are worth, `score` by default. item: [N], only needed where items repeat within a page.
    The pages take `rng.random((b, rows, 1 + columns))` in turn, so each is drawn as `PagePolicy.decide` would.
    """
    score = check.finite("score", score)
    raw_score = score if raw_score is None else check.finite("raw_score", raw_score, len(score))
    offset = check.offsets("offset", offset, len(score))
    shelf = check.integers("shelf", shelf)
    if shelf.shape != score.shape or (len(shelf) and shelf.min() < -1):
        raise ValueError(f"shelf has shape {shelf.shape}; expected {score.shape}, each number at least -1")
    item = NO_ITEMS if item is None else check.integers("item", item)
    if len(item) and item.shape != score.shape:
        raise ValueError(f"item has shape {item.shape}; expected {score.shape}")
    rows, columns = check.count("rows", rows), check.count("columns", columns)
    b = len(offset) - 1
    shelf_rates = _by_page("shelf_epsilon", shelf_epsilon, b, rows)
    card_rates = _by_page("card_epsilon", card_epsilon, b, columns)
    row_shelf, card = np.empty((b, rows), dtype=np.int64), np.empty((b, rows, columns), dtype=np.int64)
    for first in range(0, b, CHUNK):
        part = slice(first, min(first + CHUNK, b))
        size = part.stop - first
        flat = slice(int(offset[first]), int(offset[part.stop]))
        choices = Choices.none(size, rows, columns)
        walk(
            False,
            (offset[first : part.stop + 1] - offset[first], shelf[flat], item[flat] if len(item) else item),
            (score[flat], raw_score[flat]),
            (_of_part(shelf_rates, part), _of_part(card_rates, part)),
            choices,
            uniform=rng.random((size, rows, 1 + columns)),
        )
        row_shelf[part], card[part] = choices.row_shelf, choices.card
    return row_shelf, card


def walk(
    replay: bool,
    candidates: tuple[Ints, Ints, Ints],
    scores: tuple[Floats, Floats],
    rates: tuple[Floats, Floats],
    choices: Choices,
    *,
    uniform: Floats = NO_VARIATES,
    asked: Ints = NO_ITEMS,
    pin: Ints = NO_PINS,
) -> None:
    """`draw_kernels.walk_pages` with its refusals turned into errors.

    candidates: offset, shelf and item. scores: those drawn from, and those that shelves are worth. rates: epsilons of
    shelves and of cards.
    """
    from bart.ranking import draw_kernels as kernels

    row_shelf, card, propensities = choices.row_shelf, choices.card, (choices.shelf_propensity, choices.card_propensity)
    reason, page, row, column = kernels.walk_pages(
        replay, *candidates, *scores, *rates, uniform, asked, pin, row_shelf, card, choices.pinned, *propensities
    )
    if reason == kernels.FINE:
        return
    where = f"{row}" if len(row_shelf) == 1 else f"{page}, {row}"
    if reason == kernels.BAD_SHELF:
        raise ValueError(
            f"shelf[{where}] is {row_shelf[page, row]}; expected a shelf that has cards left and stands in no row above"
        )
    if reason == kernels.BELOW_END:
        raise ValueError(f"shelf[{where}] is {row_shelf[page, row]}; expected -1, below a row without a shelf")
    what = {
        kernels.BAD_PIN: "a pinned candidate, held out of the draw (shelf -1)",
        kernels.BAD_CARD: f"a candidate of shelf {row_shelf[page, row]} that was not taken before",
        kernels.CUT_SHORT: f"a card, since shelf {row_shelf[page, row]} has some left",
        kernels.GAP: "-1, after the end of its row or in a row without a shelf",
    }[reason]
    raise ValueError(f"card[{where}, {column}] is {card[page, row, column]}; expected {what}")


def given_choices(name: str, row_shelf: Ints, card: Ints, pinned: Bools) -> Choices:
    """As the walk takes choices, which it fills when it draws: copied only where they may not be written. name: of the
    shelves."""
    shelf, cards = (
        np.require(check.integers(called, value), np.int64, ["C", "W"])
        for called, value in ((name, row_shelf), ("card", card))
    )
    return Choices.to_recompute(shelf, cards, np.require(pinned, np.bool_, ["C", "W"]))


def _of_part(rates: Floats, part: slice) -> Floats:
    return rates[part] if len(rates) > 1 else rates


def _by_page(name: str, epsilon: Rates, b: int, positions: int) -> Floats:
    """Epsilon [b, positions], or [1, positions] where all pages share it."""
    rows = b if np.ndim(epsilon) == 2 and np.shape(epsilon)[0] != 1 else 1
    return check.rates(name, epsilon, (rows, positions))
