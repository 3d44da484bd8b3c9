"""Many decisions of one shape replayed at once: what `replay` finds right of each, at a part of its cost.

Nothing is said of a page that does not fit in every bit, nor of one with pins or of a policy that is not
epsilon-greedy or uniform: those are left to `replay`, which says what is wrong.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from bart.log.care.choices import N_LEFT, PMF_SUM, PROPENSITY, facts_of_pages
from bart.log.care.replay import CLOSE, NO_MOMENTS, Moments, moments
from bart.log.record.block import Block, starts
from bart.page.batch import walk
from bart.page.choices import Choices
from bart.types import Bools, Ints


def replay_many(block: Block) -> tuple[Bools, Moments]:
    """[b], which decisions were replayed without a problem; and the moments of those that were drawn, not forced."""
    good = np.zeros(len(block), dtype=np.bool_)
    groups: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)
    sizes = zip(block.count("rows_asked").tolist(), block.count("columns_asked").tolist(), strict=True)
    for i, (policy, size, pinned) in enumerate(zip(block.policy, sizes, block.has_pin.tolist(), strict=True)):
        if policy in ("epsilon_greedy", "uniform") and not pinned:
            groups[(policy, *size)].append(i)
    found = [NO_MOMENTS]
    for (policy, rows, columns), members in groups.items():
        pages = np.array(members)
        try:
            fine, drawn = _replay(block.take(pages), rows, columns, policy == "uniform")
        except (ValueError, IndexError):  # by one of them; which one, and why, is seen when each is looked at alone
            continue
        good[pages] = fine
        found.append(drawn)
    return good, Moments.concat(found)


def _replay(block: Block, rows: int, columns: int, uniform: bool) -> tuple[Bools, Moments]:
    """Those of one policy and size."""
    b = len(block)
    item, shelf, offset, score, value = block.item, block.shelf, block.offset, block.score, block.raw_score
    epsilon = np.ones((b, rows)), np.ones((b, columns))
    if not uniform:
        epsilon = block.shelf_epsilon.reshape(b, rows), block.card_epsilon.reshape(b, columns)
    recorded = _recorded(block, rows, columns)

    again = Choices.to_recompute(recorded.row_shelf, recorded.card, recorded.pinned)
    walk(True, (offset, shelf, item), (score, value), epsilon, again, asked=block.count("columns"))
    drawn = Choices.none(b, rows, columns)
    variates = np.stack([np.random.default_rng(seed).random((rows, 1 + columns)) for seed in block.seed])
    walk(False, (offset, shelf, item), (score, value), epsilon, drawn, uniform=variates)
    facts = facts_of_pages((offset, shelf, item, block.count("n_shelves")), (score, value), recorded, epsilon)

    good = np.ones(b, dtype=np.bool_)
    for ours, theirs in (
        (again.shelf_propensity, recorded.shelf_propensity),
        (again.card_propensity, recorded.card_propensity),
    ):
        good &= _every((ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs)))
    good &= _every(drawn.row_shelf == recorded.row_shelf) & _every(drawn.card == recorded.card)
    for fact, theirs in zip(facts, (recorded.shelf_propensity, recorded.card_propensity), strict=True):
        off = np.abs(fact[..., PMF_SUM] - 1.0) > CLOSE
        off |= ~(np.abs(fact[..., PROPENSITY] - theirs) <= CLOSE)
        good &= _every(~off | np.isnan(fact[..., N_LEFT]))
    used = good & ~block.forced
    return good, moments(*(fact[used] for fact in facts), *(rate[used] for rate in epsilon))


def _recorded(block: Block, rows: int, columns: int) -> Choices:
    """The pages as recorded, filled up to the size that was asked for; ValueError where one is larger."""
    height, width = block.count("rows"), block.count("columns")
    if (height > rows).any() or (width > columns).any():
        raise ValueError(f"a page has {height.max()} rows or {width.max()} columns; expected at most {(rows, columns)}")
    recorded = Choices.none(len(block), rows, columns)
    at_row = _places(block.row_offset, rows)
    recorded.row_shelf.ravel()[at_row] = block.row_shelf
    recorded.shelf_propensity.ravel()[at_row] = block.shelf_propensity
    at_slot = columns * np.repeat(at_row, np.repeat(width, height)) + _places(starts(np.repeat(width, height)), 0)
    recorded.card.ravel()[at_slot] = block.card
    recorded.card_propensity.ravel()[at_slot] = block.card_propensity
    return recorded


def _places(offset: Ints, each: int) -> Ints:
    """Where the entries of some parts stand in an array that has `each` places for every part."""
    part = np.arange(len(offset) - 1)
    return np.arange(offset[-1]) + np.repeat(each * part - offset[:-1], np.diff(offset))


def _every(each: Bools) -> Bools:
    return np.asarray(each.reshape(len(each), -1).all(axis=1))
