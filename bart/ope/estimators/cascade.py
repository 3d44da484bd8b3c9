"""Cascade doubly robust for pages: cascade importance weights with a model of what is still to come as a base.

A page is a sequence of choices, a shelf and then its cards, row by row, as far as the listener read. Where they have
come to a choice the model says what the rest of the page would earn under the evaluation policy, and what with the
choice that was logged:

    value = mean over pages of sum over choices reached [ w_before E_target(Q) - w_after Q(choice) ]
            + sum over cards seen of w_after reward

E_target averages Q over the evaluation policy's next choice given the logged ones before it, exactly. Choices were
drawn before anything was read, so that each bracket has mean 0 whatever Q is: unbiased wherever a card's reward and
whether it is reached depend on nothing but what stands above and left of it. The closer Q is, the less do weights
matter. Cards that were not seen add no factor to the weights: it would average out.
Source: Kiyohara et al. (2022) for a slate; Q here also knows how far the listener has come and what was streamed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.ope.exposure.doubly_robust import ExposureFit
from bart.ope.exposure.exposure import appeal_at
from bart.ope.models.appeal import sigmoid
from bart.ope.models.browsing import Browsing
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import Choices, choices, page_propensity, ratio
from bart.types import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class RestOfPage:
    """The model behind Q. appeal: [N] in the first slot. mean_appeal: [S, columns] of the card in each column, by_row:
    [S, rows] P(shelf stands in the row), both under the evaluation policy."""

    browsing: Browsing
    appeal: Floats
    mean_appeal: Floats
    by_row: Floats


def rest_of_page(fit: ExposureFit) -> RestOfPage:
    """Q from the prediction and the way of reading that `exposure_dr` fits."""
    summary, level = fit.summary, fit.parameters.logged_level
    return RestOfPage(
        fit.parameters.browsing,
        sigmoid(fit.appeal.score + level),
        appeal_at(summary, level, 1),
        summary.by_row[1],
    )


def cascade_dr_terms(data: LoggedPages, model: RestOfPage) -> tuple[Floats, Floats]:
    """Terms of each page, whose mean is the estimate, and the weights of the choices that were reached; both [b]."""
    at, how = choices(data), model.browsing
    b, rows, columns = at.shown.shape
    shelf_weight, card_weight = _step_weights(data)
    expected = _expected_appeal(data, at, model.appeal)
    appeal = np.where(at.shown, model.appeal[at.card], 0.0)
    first = data.shelf_offset[:-1]
    # From the last row upwards: what is still to come, from a row on, once it is reached.
    to_come, rest_by_row, chosen_by_row = np.zeros(b), [], []
    page = np.repeat(np.arange(b), np.diff(data.shelf_offset))
    for r in reversed(range(rows)):
        rest = _rest_of_row(model, r, to_come[page])  # [columns + 1, 2, S]
        rest_by_row.append(rest[:, :, at.shelf[:, r]])
        chosen_by_row.append(rest[0, 0])
        to_come = np.add.reduceat(model.by_row[:, r] * rest[0, 0], first)
    expected_shelf = _expected_shelf(data, at, chosen_by_row[::-1])
    out, weight = np.zeros(b), np.ones(b)
    for r, rest in enumerate(reversed(rest_by_row)):
        reached = at.rows[:, r] & data.seen[:, r].any(axis=1)
        before = weight
        weight = np.where(reached, weight * shelf_weight[:, r], weight)
        out += np.where(reached, before * expected_shelf[:, r] - weight * rest[0, 0], 0.0)
        quiet = np.ones(b)  # P(no stream yet in this row): 0 or 1 unless rewards are shares
        for c in range(columns):
            seen = data.seen[:, r, c]
            before = weight
            weight = np.where(seen, weight * card_weight[:, r, c], weight)
            reward = np.where(seen, data.reward[:, r, c], 0.0)
            trust = how.row_trust[r] * how.column_trust[c]
            last = ~at.shown[:, r, c + 1] if c + 1 < columns else np.ones(b, dtype=bool)
            q = [
                _value_of_card(np.minimum(trust * p, 1.0), quiet, rest[c + 1], rest[columns], last, how)
                for p in (expected[:, r, c], appeal[:, r, c])
            ]
            out += np.where(seen, before * q[0] - weight * q[1] + weight * reward, 0.0)
            quiet = quiet * (1 - reward)
    return out, weight


def _step_weights(data: LoggedPages) -> tuple[Floats, Floats]:
    """Ratios of the conditional propensities of shelves [b, rows] and cards [b, rows, columns]."""
    shelf_target, card_target = page_propensity(data, "target")
    shelf_logged, card_logged = page_propensity(data, "logged")
    return ratio(shelf_target, shelf_logged), ratio(card_target, card_logged)


def _value_of_card(p: Floats, quiet: Floats, further: Floats, left: Floats, last: Bools, how: Browsing) -> Floats:
    """Expected rewards from a card on that is streamed with probability p; linear in p.

    further, left: [2, ...] what is still to come at the next column and where the row is left, without and with a
    stream in the row. quiet: P(no stream yet).
    """
    on = np.where(last, 0.0, 1.0) * np.array(how.column_hazard)[:, None]
    after = [on[1] * further[1] + (1 - on[1]) * left[1]]
    after += [on[0] * further[y] + (1 - on[0]) * left[y] for y in (0, 1)]
    out: Floats = p * (1 + after[0]) + (1 - p) * (quiet * after[1] + (1 - quiet) * after[2])
    return out


def _rest_of_row(model: RestOfPage, row: int, below: Floats) -> Floats:
    """[columns + 1, 2, S]: expected rewards from a column on, without and with a stream so far in the row; the last
    entry is what comes once the row is left. below: [S] from the next row on, once it is reached."""
    how, (s, columns) = model.browsing, model.mean_appeal.shape
    out = np.empty((columns + 1, 2, s))
    out[columns] = np.array(how.row_hazard)[:, None] * below
    for c in reversed(range(columns)):
        p = np.minimum(how.row_trust[row] * how.column_trust[c] * model.mean_appeal[:, c], 1.0)
        last = np.full(s, c + 1 == columns)
        for y in (0, 1):
            out[c, y] = _value_of_card(p, np.full(s, 1.0 - y), out[c + 1], out[columns], last, how)
    return out


def _expected_shelf(data: LoggedPages, at: Choices, value: list[Floats]) -> Floats:
    """[b, rows]: mean of each row's value [S] over the target's choice of a shelf, given those above as logged."""
    b, rows = at.shelf.shape
    size = np.diff(data.shelf_offset)
    page = np.repeat(np.arange(b), size)
    inside = np.arange(len(page)) - data.shelf_offset[page]
    rank = np.zeros((b, int(size.max())), dtype=np.int64)
    rank[page, inside] = data.shelf_rank_target
    left = np.zeros(rank.shape, dtype=bool)
    left[page, inside] = True
    wide, out = np.zeros(rank.shape), np.zeros((b, rows))
    for r in range(rows):
        wide[page, inside] = value[r]
        there = np.flatnonzero(at.rows[:, r])
        out[there, r] = _average(wide[there], rank[there], left[there], data.shelf_epsilon_target[there, r])
        left[there, data.row_shelf[there, r]] = False
    return out


def _expected_appeal(data: LoggedPages, at: Choices, appeal: Floats) -> Floats:
    """[b, rows, columns]: mean appeal of the target's choice of a card, given the cards to the left as logged."""
    start = data.shelf_start()
    out = np.zeros(at.shown.shape)
    columns = at.shown.shape[2]
    page, row = np.nonzero(at.rows)
    shelf = at.shelf[page, row]
    size = np.diff(start)[shelf]
    for n in np.unique(size):
        some = np.flatnonzero(size == n)
        flat = start[shelf[some], None] + np.arange(n)
        rank, q = data.rank_target[flat].astype(np.int64), appeal[flat]
        left = np.ones(flat.shape, dtype=bool)
        for c in range(min(columns, int(n))):
            on = np.flatnonzero(at.shown[page[some], row[some], c])
            here = some[on]
            out[page[here], row[here], c] = _average(q[on], rank[on], left[on], data.card_epsilon_target[page[here], c])
            left[on, at.card[page[here], row[here], c] - start[shelf[here]]] = False
    return out


def _average(value: Floats, rank: Ints, left: Bools, epsilon: Floats) -> Floats:
    """[g]: mean of value [g, n] over an epsilon-greedy choice among those left; ties share the greedy mass."""
    best = np.where(left, rank, np.iinfo(np.int64).max).min(axis=1)
    top = left & (rank == best[:, None])
    uniform = (value * left).sum(axis=1) / np.maximum(left.sum(axis=1), 1)
    greedy = (value * top).sum(axis=1) / np.maximum(top.sum(axis=1), 1)
    out: Floats = epsilon * uniform + (1 - epsilon) * greedy
    return out
