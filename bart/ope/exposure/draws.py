"""Exposures with the reach averaged over drawn pages: right also where going on depends on what was streamed.

The mean-field reach does not know which card stands where. Here pages of the policy are drawn; given a page the reach
is exact, and the probability of the next choice given the earlier ones is exact too, so that a draw tells of every
candidate and not only of the cards it holds (Rao-Blackwell): a card that the policy rarely shows has an exposure, too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from bart.ope.exposure.doubly_robust import ExposureFit, terms, with_reach
from bart.ope.exposure.exposure import Exposure, ragged_take
from bart.ope.models.appeal import sigmoid
from bart.ope.models.browsing import Browsing
from bart.ope.records.pages import LoggedPages
from bart.types import Floats, Ints

PAGES, DRAWS = 300, 64  # of what the mean field is corrected by
# Every policy is drawn for from the same stream: alike policies are corrected alike, the logging one not at all, and
# the estimate is a function of the log.
STREAM = 64


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """A value without the bias of the mean-field reach. influence: [u] on it, drawing included. bias: value by
    mean-field reach minus `value`."""

    value: float
    influence: Floats
    bias: float


def drawn_exposure(
    data: LoggedPages,
    pages: Ints,
    score: Floats,
    browsing: Browsing,
    level: float,
    who: str,
    draws: int,
    rng: np.random.Generator,
) -> Exposure:
    """Exposures of the seen cards of the given pages (in the order of `seen_cards`) and their sums by page."""
    from bart.ope.exposure import kernels

    if draws < 1:
        raise ValueError(f"draws is {draws}; expected at least 1")
    start = data.shelf_start()
    shelves, shelf_offset = ragged_take(data.shelf_offset, pages)
    # Cards in order of rank, shelf by shelf: the greedy choice is the first that is left.
    cards, card_start = ragged_take(start, shelves)
    shelf_of = np.repeat(np.arange(len(shelves)), np.diff(card_start))
    rank = getattr(data, f"rank_{who}")[cards]
    by_rank = np.lexsort((rank, shelf_of))
    place = np.empty(len(cards), dtype=np.int64)
    place[by_rank] = np.arange(len(cards)) - card_start[shelf_of]
    shelf_rank = getattr(data, f"shelf_rank_{who}")[shelves]
    page_of = np.repeat(np.arange(len(pages)), np.diff(shelf_offset))
    shelf_by_rank = np.lexsort((shelf_rank, page_of))
    inside = np.full(len(data.shelf), -1, dtype=np.int64)
    inside[cards] = place
    flat_shelf = np.full(len(start) - 1, -1, dtype=np.int64)
    flat_shelf[shelves] = np.arange(len(shelves))
    page, row, column = np.nonzero(data.seen[pages])
    seen_card = data.offset[pages[page]] + data.order[pages[page], row, column]
    seen_shelf = flat_shelf[data.shelf_offset[pages[page]] + data.row_shelf[pages[page], row]]
    seen_offset = np.searchsorted(page, np.arange(len(pages) + 1)).astype(np.int64)
    card_out, total, reward = np.zeros(len(page)), np.zeros(len(pages)), np.zeros(len(pages))
    kernels.draw_exposure(
        shelf_offset.astype(np.int64),
        card_start.astype(np.int64),
        rank[by_rank].astype(np.int64),
        sigmoid(score[cards] + level)[by_rank],
        (shelf_by_rank - shelf_offset[page_of]).astype(np.int64),
        shelf_rank[shelf_by_rank].astype(np.int64),
        _rates(getattr(data, f"shelf_epsilon_{who}")[pages]),
        _rates(getattr(data, f"card_epsilon_{who}")[pages]),
        np.array([browsing.start, *browsing.column_hazard, *browsing.row_hazard]),
        browsing.row_trust,
        browsing.column_trust,
        seen_offset,
        (seen_shelf - shelf_offset[page]).astype(np.int64),
        inside[seen_card],
        draws,
        rng,
        card_out,
        total,
        reward,
    )
    return Exposure(card_out / draws, total / draws, reward / draws)


def refine(data: LoggedPages, fit: ExposureFit, draws: int, rng: np.random.Generator) -> ExposureFit:
    """The fit with drawn reach: weights and the target's level anew, browsing and prediction as they were."""
    stream = dict(zip(("logged", "target"), rng.spawn(2), strict=True))
    pages, browsing = np.arange(len(data)), fit.parameters.browsing

    def reach(level: float, who: str) -> Exposure:
        # The same stream in every round, or the rounds would chase the noise of drawing.
        own = copy.deepcopy(stream[who])
        return drawn_exposure(data, pages, fit.appeal.score, browsing, level, who, draws, own)

    return with_reach(fit, reach)


def reach_gaps(data: LoggedPages, fit: ExposureFit, pages: int = PAGES) -> Floats:
    """[b, 4] what the mean field gives too much under the target and under the logging policy, and rewards by drawn
    reach under either; 0 but on some of the pages, evenly spread. At the fitted levels."""
    some = np.unique(np.linspace(0, len(data) - 1, min(pages, len(data))).astype(np.int64))
    summary = fit.summary if len(some) == len(data) else fit.summary.take(some)
    at = fit.parameters
    plain = terms(summary, at)
    rewards = [
        drawn_exposure(
            data, some, fit.appeal.score, at.browsing, level, who, DRAWS, np.random.default_rng(STREAM)
        ).reward
        for who, level in (("target", at.target_level), ("logged", at.logged_level))
    ]
    out = np.zeros((len(data), 4))
    out[some] = np.stack([plain.target.reward - rewards[0], plain.logged.reward - rewards[1], *rewards], axis=1)
    return out


def corrected(value: float, influence: Floats, gaps: Floats, pages: int) -> Corrected:
    """A value with what those gaps show taken off it. influence: [u] on the value; gaps: [u, 4] their sums by page or
    listener, of a log of so many pages.

    Compares modelled rewards of the target, relative to those of the log, since errors that both share cancel there.
    """
    target_gap, logged_gap, target, logged = gaps.sum(axis=0)
    if not (target > 0 and logged > 0):
        return Corrected(value, influence, 0.0)
    of_target, of_logged = float(target_gap / target), float(logged_gap / logged)
    share = of_target - of_logged
    each = (gaps[:, 0] - of_target * gaps[:, 2]) / target - (gaps[:, 1] - of_logged * gaps[:, 3]) / logged
    return Corrected(value * (1 - share), influence * (1 - share) - value * pages * each, value * share)


def _rates(epsilon: Floats) -> Floats:
    """Rates with -1 where the page asked for no such position."""
    return np.ascontiguousarray(np.where(np.isnan(epsilon), -1.0, epsilon))
