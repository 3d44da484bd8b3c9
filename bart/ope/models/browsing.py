"""How listeners go through a page, estimated from what they saw: hazards of going on, and trust in a position.

Rows are read from the top, cards from the left. After a card the listener goes on to the next column with probability
`column_hazard[0]` when it was not streamed and `column_hazard[1]` when it was; when the row is left, the next row is
reached with probability `row_hazard[0]` or `row_hazard[1]`, without or with a stream in the row. A card seen in row r
and column c is streamed with probability `row_trust[r] * column_trust[c] * q`, q being its appeal in the first slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.ope.records.pages import LoggedPages
from bart.types import Bools, Floats, Ints

PRIOR_STREAMS = 1.0  # expected streams at trust 1 that a position starts from, so that an empty one has trust 1
ROUNDS = 20
DEPENDENCE = 0.05  # of going on upon streams, from which the mean-field reach is corrected


@dataclass(frozen=True, slots=True, eq=False)
class Browsing:
    """start: P(the first row is reached | page displayed). The rest as in the header; trust is 1 at the first slot."""

    start: float
    column_hazard: tuple[float, float]
    row_hazard: tuple[float, float]
    column_trust: Floats
    row_trust: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SeenCards:
    """The seen cards of a log as flat arrays [m]: page, row, column, shelf (into S), card (into N), reward."""

    page: Ints
    row: Ints
    column: Ints
    shelf: Ints
    card: Ints
    reward: Floats


def seen_cards(data: LoggedPages) -> SeenCards:
    return data.kept("seen cards", lambda: _seen_cards(data))


def _seen_cards(data: LoggedPages) -> SeenCards:
    page, row, column = np.nonzero(data.seen)
    return SeenCards(
        page,
        row,
        column,
        data.shelf_offset[page] + data.row_shelf[page, row],
        data.offset[page] + data.order[page, row, column],
        data.reward[page, row, column],
    )


def transitions(data: LoggedPages) -> tuple[Floats, Floats]:
    """Times that listeners went on, and times that they could have, of each page: two arrays [b, 5].

    Columns: start, next column without a stream, with one, next row without a stream in this one, with one. A reward
    between 0 and 1 counts as that share of a stream.
    """
    return data.kept("transitions", lambda: _transitions(data))


def _transitions(data: LoggedPages) -> tuple[Floats, Floats]:
    seen, shown = data.seen, data.order >= 0
    reward = np.where(seen, data.reward, 0.0)
    reached: Bools = np.any(seen, axis=2)
    on = (seen[:, :, :-1] & seen[:, :, 1:]).astype(np.float64)
    could = (seen[:, :, :-1] & shown[:, :, 1:]).astype(np.float64)
    streamed = reward[:, :, :-1]
    no_stream: Floats = np.prod(1.0 - reward, axis=2)
    in_row = 1.0 - no_stream[:, :-1]
    row_on = (reached[:, :-1] & reached[:, 1:]).astype(np.float64)
    row_could = (reached[:, :-1] & (data.row_shelf[:, 1:] >= 0)).astype(np.float64)
    went = [
        reached[:, 0].astype(np.float64),
        ((1 - streamed) * on).sum(axis=(1, 2)),
        (streamed * on).sum(axis=(1, 2)),
        ((1 - in_row) * row_on).sum(axis=1),
        (in_row * row_on).sum(axis=1),
    ]
    possible = [
        np.ones(len(data)),
        ((1 - streamed) * could).sum(axis=(1, 2)),
        (streamed * could).sum(axis=(1, 2)),
        ((1 - in_row) * row_could).sum(axis=1),
        (in_row * row_could).sum(axis=1),
    ]
    return np.stack(went, axis=1), np.stack(possible, axis=1)


def hazards(went: Floats, possible: Floats) -> Floats:
    """The five probabilities of going on from summed transitions [5]; the pooled one where one kind never occurred."""
    out = np.zeros(5)
    out[0] = went[0] / possible[0]
    for a, b in ((1, 2), (3, 4)):
        pooled = (went[a] + went[b]) / max(possible[a] + possible[b], 1e-300)
        out[a] = went[a] / possible[a] if possible[a] > 0 else pooled
        out[b] = went[b] / possible[b] if possible[b] > 0 else pooled
    return out


def position_trust(
    row: Ints, column: Ints, reward: Floats, predicted: Floats, rows: int, columns: int
) -> tuple[Floats, Floats]:
    """Observed over predicted reward as a product of row_trust and column_trust, both 1 at the first position.

    row, column, reward, predicted: [m] of seen cards, the reward expected in the first slot. Alternates between rows
    and columns (iterative proportional fitting), which solves the sum over seen cards in a row (a column) of
    (reward - scale trust predicted) = 0.
    """
    by_row = np.bincount(row, reward, rows)
    by_column = np.bincount(column, reward, columns)
    flat = np.bincount(row * columns + column, predicted, rows * columns).reshape(rows, columns)
    scale = max(reward.sum(), 1e-12) / max(predicted.sum(), 1e-12)
    of_row, of_column = np.ones(rows), np.ones(columns)
    for _ in range(ROUNDS):
        of_column = (by_column + PRIOR_STREAMS) / (scale * (of_row @ flat) + PRIOR_STREAMS)
        of_row = (by_row + PRIOR_STREAMS) / (scale * (flat @ of_column) + PRIOR_STREAMS)
    return of_row / of_row[0], of_column / of_column[0]


def in_scanning_order(data: LoggedPages) -> float:
    """Share of seen cards that stand first or whose left neighbour was seen too: 1 where the model of reading holds."""
    first = data.seen[:, :, 0].sum()
    follows = (data.seen[:, :, 1:] & data.seen[:, :, :-1]).sum()
    return float((first + follows) / max(data.seen.sum(), 1))


def depends_on_streams(how: Browsing) -> bool:
    """Whether going on depends on streams so much that the mean-field reach is to be corrected."""
    return max(abs(h[0] - h[1]) for h in (how.column_hazard, how.row_hazard)) >= DEPENDENCE
