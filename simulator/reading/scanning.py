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
    stream in the row). skipped: to pass over a row. returns: to start again at the top, behind what was come to.
    """

    stream: Floats
    look: Floats
    column_0: Floats
    column_1: Floats
    row_0: Floats
    row_1: Floats
    skipped: float = 0.0
    returns: float = 0.0


def two_state(h: Hazards, present: Bools) -> tuple[Floats, Floats]:
    """Probability that each card of a displayed page is streamed, and that it is seen, both [b, rows, columns]."""
    b, rows, _ = h.stream.shape
    streamed, seen = np.zeros(h.stream.shape), np.zeros(h.stream.shape)
    # Of the row: who comes to it on the first way down alone, on the second alone, on both.
    once, again, both = np.full(b, 1 - h.returns), np.zeros(b), np.full(b, h.returns)
    for r in range(rows):
        reach, read = _read(h, present, r, (once + again) * (1 - h.skipped))
        first = np.divide(once, once + again, out=np.zeros(b), where=once + again > 0)
        down = read[0] * h.row_0[:, r] + read[1] * h.row_1[:, r] + _skipped(h, present, r, once + again)
        once, again = first * down, (1 - first) * down
        if h.returns:
            twice, left = _read_twice(h, present, r, both)
            reach = reach + twice
            go = np.stack([h.row_0[:, r], h.row_1[:, r]])  # given what was streamed on either way
            once = once + (left[1] * (1 - go)).sum(axis=0)
            again = again + (left[0] * go).sum(axis=0)
            both = (left[1] * go).sum(axis=0)
        seen[:, r] = reach * h.look[:, r]
        streamed[:, r] = seen[:, r] * h.stream[:, r]
    return streamed, seen


def _skipped(h: Hazards, present: Bools, r: int, come: Floats) -> Floats:
    """[b] who pass over row r and go on."""
    out: Floats = come * h.skipped * present[:, r, 0] * h.row_0[:, r]
    return out


def _read(h: Hazards, present: Bools, r: int, start: Floats) -> tuple[Floats, Floats]:
    """Row r by those who start it, [b]: who comes to each card [b, columns]; who has left without and with a stream
    [2, b]."""
    b, columns = len(start), present.shape[2]
    reach, left = np.zeros((b, columns)), np.zeros((2, b))
    state = np.stack([start * present[:, r, 0], np.zeros(b)])
    for c in range(columns):
        here = present[:, r, c]
        left += np.where(here, 0.0, state)
        state = np.where(here, state, 0.0)
        reach[:, c] = state.sum(axis=0)
        state, gone = _card(h, r, c, state)
        left += gone
    return reach, left + state


def _read_twice(h: Hazards, present: Bools, r: int, start: Floats) -> tuple[Floats, Floats]:
    """The same of those who come to row r on both ways, with who has left [on the first way gone on, stream, b]."""
    b, columns = len(start), present.shape[2]
    go = np.stack([h.row_0[:, r], h.row_1[:, r]])
    on = np.stack([1 - go, go])  # [gone on, stream, b]
    reach, left, second = np.zeros((b, columns)), np.zeros((2, 2, b)), np.zeros((2, 2, b))
    first = np.stack([start * present[:, r, 0], np.zeros(b)])
    for c in range(columns):
        here = present[:, r, c]
        left += np.where(here, 0.0, second + first * on)
        first, second = np.where(here, first, 0.0), np.where(here, second, 0.0)
        reach[:, c] = first.sum(axis=0) + second.sum(axis=(0, 1))
        first, ended = _card(h, r, c, first)
        for k in range(2):
            second[k], gone = _card(h, r, c, second[k])
            left[k] += gone
        second += ended * on  # the second way starts behind this card
    return reach, left + second + first * on


def _card(h: Hazards, r: int, c: int, state: Floats) -> tuple[Floats, Floats]:
    """Who goes on behind a card and who leaves the row, both [without, with a stream in it; b]."""
    p = h.look[:, r, c] * h.stream[:, r, c]
    on0, on1 = h.column_0[:, r, c], h.column_1[:, r, c]
    plain, fresh, old = state[0] * (1 - p), state.sum(axis=0) * p, state[1] * (1 - p)
    going = np.stack([plain * on0, fresh * on1 + old * on0])
    leaving = np.stack([plain * (1 - on0), fresh * (1 - on1) + old * (1 - on0)])
    return going, leaving
