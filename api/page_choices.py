"""How one page was drawn, in three numbers that add up over pages: cheap enough to be counted at every request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Decision

_CLOSE = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class PageChoices:
    """n: shelves and cards drawn among two or more. explored: of these, not the best that was left (or one that only
    chance could prefer). weight: the sum of 1 / (actions left x propensity), whose expectation is n."""

    n: int
    explored: int
    weight: float


def page_choices(decision: Decision) -> PageChoices:
    """The choices of an epsilon-greedy page; pins are no choices.

    Where items stand in several shelves, how many were left depends on the rows above: such a page counts nothing.
    """
    page = decision.page
    rows, columns = page.card.shape
    if rows == 0 or len(set(decision.item_id.tolist())) < len(decision.item_id):
        return PageChoices(0, 0, 0.0)
    size = np.bincount(decision.shelf[decision.shelf >= 0], minlength=len(decision.shelves))
    drawn = page.shown & ~page.pinned
    card_left = size[page.shelf][:, None] - (np.cumsum(drawn, axis=1) - drawn)  # [rows, columns]
    shelf_left = np.count_nonzero(size) - np.arange(rows)
    left = np.concatenate([shelf_left, card_left[drawn]])
    epsilon = np.broadcast_to(decision.card_epsilon[:columns], page.card.shape)[drawn]
    epsilon = np.concatenate([decision.shelf_epsilon[:rows], epsilon])
    propensity = np.concatenate([page.shelf_propensity, page.card_propensity[drawn]])
    among = left > 1
    left, epsilon, propensity = left[among], epsilon[among], propensity[among]
    return PageChoices(
        len(left),
        int(np.count_nonzero(propensity * left <= epsilon * _CLOSE)),
        float((1.0 / (left * propensity)).sum()),
    )
