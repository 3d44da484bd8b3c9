"""Expected exposure and streams of a page that is read in two states, in closed form.

Within a row a reader has either streamed something or not. With probabilities s0, s1 of being at a column in these
states, a card is seen with probability look (s0 + s1) and streamed with probability p given that; both states then go
on with their hazards. One pass over the cells gives every expectation exactly: O(rows x columns) a page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Bools, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Hazards:
    """Probabilities for b pages. Cards [b, rows, columns]: look (given reached), stream (given seen), column_0 and
    column_1 (to go on without, with a stream of this card). Rows [b, rows]: row_0, row_1 (to go on without, with a
    stream in the row).
    """

    stream: Floats
    look: Floats
    column_0: Floats
    column_1: Floats
    row_0: Floats
    row_1: Floats


def two_state(h: Hazards, present: Bools) -> tuple[Floats, Floats]:
    """Probability that each card of a displayed page is streamed, and that it is seen, both [b, rows, columns]."""
    b, rows, columns = h.stream.shape
    streamed = np.zeros((b, rows, columns))
    seen = np.zeros((b, rows, columns))
    reach = np.ones(b)  # of the row
    for r in range(rows):
        s0 = reach * present[:, r, 0]
        s1 = np.zeros(b)
        left_0 = np.zeros(b)  # have left the row without, with a stream
        left_1 = np.zeros(b)
        for c in range(columns):
            here = present[:, r, c]
            left_0 += np.where(here, 0.0, s0)
            left_1 += np.where(here, 0.0, s1)
            s0 = np.where(here, s0, 0.0)
            s1 = np.where(here, s1, 0.0)
            p = h.look[:, r, c] * h.stream[:, r, c]
            seen[:, r, c] = (s0 + s1) * h.look[:, r, c]
            streamed[:, r, c] = (s0 + s1) * p
            on0, on1 = h.column_0[:, r, c], h.column_1[:, r, c]
            left_0 += s0 * (1 - p) * (1 - on0)
            left_1 += (s0 + s1) * p * (1 - on1) + s1 * (1 - p) * (1 - on0)
            s0, s1 = s0 * (1 - p) * on0, (s0 + s1) * p * on1 + s1 * (1 - p) * on0
        left_0 += s0
        left_1 += s1
        reach = left_0 * h.row_0[:, r] + left_1 * h.row_1[:, r]
    return streamed, seen
