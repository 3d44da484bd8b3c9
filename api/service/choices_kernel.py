"""Counts the choices of one page, in machine code: it is done at every request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float64, int64

from bart.compiled import compiled, read

_CLOSE = 1 + 1e-9


@compiled(
    *(read(int64), int64, read(int64), read(int64, 2), read(boolean, 2)),
    *(read(float64), read(float64), read(float64), read(float64, 2)),
)
def count_choices(
    shelf: Any,
    n_shelves: int,
    page_shelf: Any,
    card: Any,
    pinned: Any,
    shelf_epsilon: Any,
    card_epsilon: Any,
    shelf_propensity: Any,
    card_propensity: Any,
) -> tuple[int, int, float]:
    """(n, explored, weight) of `api.service.page_choices.PageChoices`; arguments as in `Decision` and `Page`."""
    size = np.zeros(n_shelves, dtype=np.int64)
    for number in shelf:
        if number >= 0:
            size[number] += 1
    shelves_left = np.count_nonzero(size)
    n, explored, weight = 0, 0, 0.0
    for r in range(card.shape[0]):
        if shelves_left > 1:
            n += 1
            explored += shelf_propensity[r] * shelves_left <= shelf_epsilon[r] * _CLOSE
            weight += 1 / (shelves_left * shelf_propensity[r])
        shelves_left -= 1
        left = size[page_shelf[r]]
        for c in range(card.shape[1]):
            if card[r, c] < 0 or pinned[r, c]:
                continue
            if left > 1:
                n += 1
                explored += card_propensity[r, c] * left <= card_epsilon[c] * _CLOSE
                weight += 1 / (left * card_propensity[r, c])
            left -= 1
    return n, explored, weight
