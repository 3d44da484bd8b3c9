"""Importance weights of logged pages: joint, cascade and by marginals, from ranks alone.

A page factorises: P(page) = P(shelf order) x product over rows of P(card order in that shelf), and so do its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.ope.records.pages import LoggedPages, Ranks
from bart.ope.weights.marginals import MarginalTables
from bart.ranking.batch import propensity_of_rank
from bart.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """Where the shown shelves and cards stand in the flat arrays of the log.

    shelf: [b, rows] into S, card: [b, rows, columns] into N; 0 where nothing stands (see the masks). shelf_count: [b],
    card_count: [b, rows], sizes of the choice sets.
    """

    shelf: Ints
    card: Ints
    rows: Bools
    shown: Bools
    shelf_count: Ints
    card_count: Ints


def choices(data: LoggedPages) -> Choices:
    return data.kept("choices", lambda: _choices(data))


def _choices(data: LoggedPages) -> Choices:
    rows, shown = data.row_shelf >= 0, data.order >= 0
    shelf = np.where(rows, data.shelf_offset[:-1, None] + data.row_shelf, 0)
    card = np.where(shown, data.offset[:-1, None, None] + data.order, 0)
    return Choices(shelf, card, rows, shown, np.diff(data.shelf_offset), np.diff(data.shelf_start())[shelf])


def _conditional(rank: Ranks, tie: Ranks, count: Ints, epsilon: Floats, there: Bools) -> Floats:
    """Probability of each choice [m, k] given those before it; 1 where nothing stands."""
    epsilon = np.where(np.isnan(epsilon), 1.0, epsilon)  # of positions that the page did not ask for
    out = propensity_of_rank(np.where(there, rank, -1).astype(np.int64), tie.astype(np.int64), count, epsilon)
    return np.where(there, out, 1.0)


def page_propensity(data: LoggedPages, who: str) -> tuple[Floats, Floats]:
    """Conditional propensities of the shelves [b, rows] and cards [b, rows, columns] shown, under "logged" or "target".

    1 where nothing stands. From ranks and rates; of irregular pages those that the record holds.
    """
    if who == "logged":
        return data.kept("page propensity", lambda: _page_propensity(data, who))
    return _page_propensity(data, who)


def _page_propensity(data: LoggedPages, who: str) -> tuple[Floats, Floats]:
    at = choices(data)
    rank, tie = getattr(data, f"shelf_rank_{who}"), getattr(data, f"shelf_tie_{who}")
    shelf = _conditional(rank[at.shelf], tie[at.shelf], at.shelf_count, getattr(data, f"shelf_epsilon_{who}"), at.rows)
    rank, tie = getattr(data, f"rank_{who}"), getattr(data, f"tie_{who}")
    b, rows, columns = at.shown.shape
    epsilon = _card_rates(data, who).reshape(-1, columns)
    card = _conditional(
        rank[at.card].reshape(-1, columns),
        tie[at.card].reshape(-1, columns),
        at.card_count.reshape(-1),
        epsilon,
        at.shown.reshape(-1, columns),
    ).reshape(b, rows, columns)
    odd = data.irregular
    if odd is not None and data.shelf_target is not None and data.card_target is not None:
        given_shelf = data.shelf_propensity if who == "logged" else data.shelf_target
        given_card = data.card_propensity if who == "logged" else data.card_target
        shelf = np.where(odd[:, None] & at.rows, given_shelf, shelf)
        card = np.where(odd[:, None, None] & at.shown, given_card, card)
    return shelf, card


def _card_rates(data: LoggedPages, who: str) -> Floats:
    """[b, rows, columns] exploration rate of each draw, in the column where its card stood."""
    rate: Floats = getattr(data, f"card_epsilon_{who}")
    wide = np.broadcast_to(rate[:, None, :], data.order.shape)
    return wide if data.column is None else np.take_along_axis(wide, data.column, axis=2)


def shelf_marginals(data: LoggedPages, who: str) -> Floats:
    """P(shelf stands in row r), [S, rows]."""
    if who == "logged" or data.alike("shelf_"):
        return data.kept("shelf marginals", lambda: _shelf_marginals(data, "logged"))
    return _shelf_marginals(data, who)


def _shelf_marginals(data: LoggedPages, who: str) -> Floats:
    page = np.repeat(np.arange(len(data)), np.diff(data.shelf_offset))
    tables = MarginalTables(getattr(data, f"shelf_epsilon_{who}"))
    count = np.diff(data.shelf_offset)[page]
    return tables.of(count, page, getattr(data, f"shelf_rank_{who}"), getattr(data, f"shelf_tie_{who}"))


def card_marginals(data: LoggedPages, who: str, card: Ints, page: Ints, count: Ints) -> Floats:
    """P(card stands in column c given that its shelf is shown), [m, columns], for cards [m] of the flat arrays."""
    tables = MarginalTables(getattr(data, f"card_epsilon_{who}"))
    return tables.of(count, page, getattr(data, f"rank_{who}")[card], getattr(data, f"tie_{who}")[card])


def marginal_propensity(data: LoggedPages, who: str) -> Floats:
    """P(card stands where it stands) for each card shown, [b, rows, columns]; 1 where nothing stands."""
    if who == "logged" or (data.alike("") and data.alike("shelf_")):
        return data.kept("marginal propensity", lambda: _marginal_propensity(data, "logged"))
    return _marginal_propensity(data, who)


def _marginal_propensity(data: LoggedPages, who: str) -> Floats:
    at = choices(data)
    b, rows, columns = at.shown.shape
    by_row = shelf_marginals(data, who)
    shelf = by_row[at.shelf, np.arange(rows)]  # [b, rows]
    page, row, column = np.nonzero(at.shown)
    flat, count = at.card[page, row, column], at.card_count[page, row]
    if data.column is None:
        card = card_marginals(data, who, flat, page, count)
    else:  # pins shift the columns of their row, and with them its rates
        tables = MarginalTables(_card_rates(data, who).reshape(b * rows, columns))
        rank, tie = getattr(data, f"rank_{who}")[flat], getattr(data, f"tie_{who}")[flat]
        card = tables.of(count, page * rows + row, rank, tie)
    out = np.ones((b, rows, columns))
    out[page, row, column] = shelf[page, row] * card[np.arange(len(column)), column]
    return out


def ratio(target: Floats, logged: Floats) -> Floats:
    """target / logged, where 0 / 0 (no support on either side) is 0."""
    out: Floats = np.divide(target, logged, out=np.zeros_like(target), where=logged > 0)
    return out


def marginal_weight(data: LoggedPages) -> Floats:
    """[b, rows, columns]: how much more often the evaluation policy puts this card into this slot; 0 where none is.

    Irregular pages have no marginals: there it is the weight of everything above and left of the slot.
    """
    weight = ratio(marginal_propensity(data, "target"), marginal_propensity(data, "logged"))
    if data.irregular is not None:
        weight = np.where(data.irregular[:, None, None], cascade_weight(data), weight)
    return np.where(data.order >= 0, weight, 0.0)


def cascade_weight(data: LoggedPages) -> Floats:
    """[b, rows, columns]: ratio for everything above and left of the slot, itself included; 0 where no card stands."""
    shelf_target, card_target = page_propensity(data, "target")
    shelf_logged, card_logged = page_propensity(data, "logged")
    shelf = np.cumprod(ratio(shelf_target, shelf_logged), axis=1)  # [b, rows]
    in_row = np.cumprod(ratio(card_target, card_logged), axis=2)  # [b, rows, columns]
    above = np.ones_like(shelf)
    above[:, 1:] = np.cumprod(in_row[:, :-1, -1], axis=1)
    return np.where(data.order >= 0, (shelf * above)[:, :, None] * in_row, 0.0)


def joint_weight(data: LoggedPages) -> Floats:
    """[b]: ratio of the probabilities of the whole page."""
    shelf_target, card_target = page_propensity(data, "target")
    shelf_logged, card_logged = page_propensity(data, "logged")
    shelf = ratio(shelf_target, shelf_logged).prod(axis=1)
    out: Floats = shelf * ratio(card_target, card_logged).prod(axis=(1, 2))
    return out


def seen_prefix_weight(data: LoggedPages) -> Floats:
    """[b, rows, columns]: ratio for the shelves and cards that were seen up to the slot, itself included.

    Rows above count with the cards seen in them, the slot's own row with the cards seen to its left. A card that was
    not seen adds no factor: it averages out. 0 where no card stands.
    """
    shelf_target, card_target = page_propensity(data, "target")
    shelf_logged, card_logged = page_propensity(data, "logged")
    seen_row = data.seen.any(axis=2)
    shelf = np.cumprod(np.where(seen_row, ratio(shelf_target, shelf_logged), 1.0), axis=1)
    in_row = np.cumprod(np.where(data.seen, ratio(card_target, card_logged), 1.0), axis=2)
    above = np.ones_like(shelf)
    above[:, 1:] = np.cumprod(in_row[:, :-1, -1], axis=1)
    return np.where(data.order >= 0, (shelf * above)[:, :, None] * in_row, 0.0)
