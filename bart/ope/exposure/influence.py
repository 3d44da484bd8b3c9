"""How much each page moves the estimates by exposures: through its own terms and through all that is fitted.

With estimating equations mean psi(theta) = 0, a mean m = mean m_i(theta) has the influence
m_i - m - dm (dpsi)^-1 psi_i. The parameters theta are, in this order: hazards (5), the log's and the target's level,
trust of rows and of columns but the first's, changes of the fitted slopes.
"""

from __future__ import annotations

import numpy as np

from bart.ope.exposure.doubly_robust import (
    ExposureFit,
    Parameters,
    calibration,
    page_terms,
    seen_logit,
    terms,
    with_slopes,
)
from bart.ope.exposure.exposure import Summary, appeal_at, level_slope, slots
from bart.ope.models.appeal import RIDGE, sigmoid
from bart.ope.models.browsing import SeenCards
from bart.ope.records.pages import LoggedPages
from bart.types import Floats, Ints

PAGES = 2_000  # enough for derivatives, whose error is of second order in the interval
LEVELS = 5, 6  # places of the log's and the target's level among the parameters
MEANS = ("terms", "modelled", "reward", "weighted", "direct", "beyond")


def influence(data: LoggedPages, fit: ExposureFit) -> Floats:
    """How much each page moves the doubly robust estimate, [b], mean 0: a product and ratio of three means.

    Made once a record, predictor and cap.
    """
    if data.is_logging:  # the value is the mean reward, whatever is fitted
        own: Floats = fit.reward - fit.reward.mean()
        return own
    key = f"{fit.predictor}/{fit.parameters.cap}, influence"
    if key not in data.fits:
        data.fits[key] = _influence(data, fit)
    found: Floats = data.fits[key]
    return found


def _influence(data: LoggedPages, fit: ExposureFit) -> Floats:
    psi, means = equations(fit)
    means = means[:, :3]
    of_psi, of_means = derivatives(data, fit)
    slopes = np.arange(psi.shape[1] - len(fit.appeal.pull), psi.shape[1])
    of_psi[slopes, slopes] -= RIDGE / len(fit.summary)
    # A position that nobody reached has no equation: the pseudo-inverse leaves its parameter alone.
    adjoint = np.linalg.pinv(of_psi.T, rcond=1e-9) @ of_means[:3].T  # [parameters, 3]
    each = means - means.mean(axis=0) - (psi - psi.mean(axis=0)) @ adjoint  # [b, 3]
    value, modelled, earned = (float(m) for m in means.mean(axis=0))
    scale = calibration(earned, modelled)
    out: Floats = scale * each[:, 0]
    if modelled > 0:
        out += value / modelled * (each[:, 2] - scale * each[:, 1])
    return out


def equations(fit: ExposureFit) -> tuple[Floats, Floats]:
    """psi [b, parameters] and `MEANS` [b, 6] of each page, at the parameters of the fit."""
    summary, at, now = fit.summary, fit.parameters, fit.terms
    seen, b = summary.seen, len(summary)
    logged = seen.reward - now.trust * sigmoid(seen_logit(summary, at) + at.logged_level)
    how = at.browsing
    went = summary.went - np.array([how.start, *how.column_hazard, *how.row_hazard]) * summary.possible
    sums = [np.bincount(seen.page, each, b)[:, None] for each in (logged, now.weight * now.residual)]
    margins = [_margin(seen, where, logged, b, n) for where, n in _positions(seen, at)]
    slopes = [np.bincount(seen.page, column * logged, b)[:, None] for column in summary.feature.T]
    weighted = np.bincount(seen.page, now.plain * seen.reward, b)
    beyond = np.bincount(seen.page, (now.plain - now.weight) * now.residual, b)
    means = [page_terms(summary, now), now.logged.reward, fit.reward, weighted, fit.direct, beyond]
    return np.concatenate([went, *sums, *margins, *slopes], axis=1), np.stack(means, axis=1)


def derivatives(data: LoggedPages, fit: ExposureFit, most: int = PAGES) -> tuple[Floats, Floats]:
    """Of the means of psi [parameters, parameters] and of `MEANS` [6, parameters], by the parameters, at those of the
    fit: means over at most `most` pages, evenly spread. Slopes enter mean appeals to first order."""
    pages = np.unique(np.linspace(0, len(data) - 1, min(len(data), most)).astype(np.int64))
    some, at = with_slopes(data, fit, pages), fit.parameters
    now, seen, b = terms(some, at), some.seen, len(some)
    left = np.concatenate([np.ones((len(seen.card), 1)), _indicators(seen, at), some.feature], axis=1)
    place = np.concatenate([[LEVELS[0]], np.arange(7, 6 + left.shape[1])])  # of these equations
    logged, target = (_of_predicted(some, at, left, place, level) for level in LEVELS)

    below = now.plain < at.cap
    worth = np.stack([now.residual * below, seen.reward, now.residual * ~below, np.zeros(len(below))])
    share = np.divide(worth, now.logged.card, out=np.zeros_like(worth), where=now.logged.card > 0)
    last = np.array([0.0, 0.0, 0.0, 1.0])
    of_target = _of_exposure(some, at, LEVELS[1], 1, share, last)
    of_logged = _of_exposure(some, at, LEVELS[0], 0, -share * now.plain, last)
    of_direct = _of_exposure(some, at, LEVELS[0], 1, share[3:], last[3:])
    corrected, weighted, beyond = of_target[:3] + of_logged[:3]
    corrected -= now.weight @ target
    beyond -= (now.plain - now.weight) @ target

    of_psi = np.zeros((7 + left.shape[1] - 1, 7 + left.shape[1] - 1))
    of_psi[np.arange(5), np.arange(5)] = -some.possible.sum(axis=0)
    of_psi[place] = -(left.T @ logged)
    of_psi[LEVELS[1]] = corrected
    of_means = [of_target[3] + corrected, of_logged[3], np.zeros(len(of_psi)), weighted, of_direct[0], beyond]
    return of_psi / b, np.stack(of_means) / b


def _of_predicted(summary: Summary, at: Parameters, left: Floats, place: Ints, level: int) -> Floats:
    """[m, parameters] derivatives of trust x appeal of the seen cards at a level. left: [m, .] what multiplies a
    residual in the equations at `place`."""
    seen, how = summary.seen, at.browsing
    row, column = how.row_trust[seen.row], how.column_trust[seen.column]
    q = sigmoid(summary.logit + (at.logged_level, at.target_level)[level - LEVELS[0]])
    rows, trusts = len(how.row_trust) - 1, len(how.row_trust) + len(how.column_trust) - 2
    by_logit = row * column * q * (1 - q)
    out = np.zeros((len(q), 7 + left.shape[1] - 1))
    out[:, level] = by_logit
    out[:, place[1 : 1 + rows]] = left[:, 1 : 1 + rows] * (column * q)[:, None]
    out[:, place[1 + rows : 1 + trusts]] = left[:, 1 + rows : 1 + trusts] * (row * q)[:, None]
    out[:, place[1 + trusts :]] = left[:, 1 + trusts :] * by_logit[:, None]
    return out


def _of_exposure(summary: Summary, at: Parameters, level: int, policy: int, card: Floats, reward: Floats) -> Floats:
    """[k, parameters] derivatives of k sums over exposures under a policy. card: [k, m] what exposure of a seen card
    is worth in each; reward: [k], what the modelled reward is."""
    from bart.ope.exposure import gradient_kernels

    how, shift = at.browsing, (at.logged_level, at.target_level)[level - LEVELS[0]]
    appeal = appeal_at(summary, shift, policy)
    shape, rows = appeal.shape, len(how.row_trust)
    flat = (summary.seen.shelf[:, None] * shape[1] + np.arange(shape[1])).reshape(-1)
    there = summary.by_column[policy]
    stands = np.stack([np.bincount(flat, (each[:, None] * there).reshape(-1), appeal.size) for each in card])
    worth: Floats = stands.reshape(-1, *shape) + reward[:, None, None] * appeal
    of_appeal = reward[:, None, None] * slots(summary, how, appeal, policy)
    trusts = np.zeros((len(card), 5 + rows + shape[1]))
    hazard = np.array([how.start, *how.column_hazard, *how.row_hazard])
    gradient_kernels.slot_gradient(
        summary.shelf_offset,
        summary.by_row[policy],
        appeal,
        hazard,
        how.row_trust,
        how.column_trust,
        worth,
        of_appeal,
        trusts,
    )
    levels = np.zeros((len(card), 2))
    levels[:, level - LEVELS[0]] = np.einsum("ksc,sc->k", of_appeal, level_slope(summary, shift, policy))
    slope = np.empty((len(card), 0))
    if summary.by_slope is not None:
        slope = np.einsum("ksc,fsc->kf", of_appeal, summary.by_slope[policy])
    return np.concatenate([trusts[:, :5], levels, trusts[:, 6 : 5 + rows], trusts[:, 6 + rows :], slope], axis=1)


def _positions(seen: SeenCards, at: Parameters) -> list[tuple[Ints, int]]:
    return [(seen.row, len(at.browsing.row_trust)), (seen.column, len(at.browsing.column_trust))]


def _indicators(seen: SeenCards, at: Parameters) -> Floats:
    """[m, .] which row and column a card stands in, the first ones left out."""
    return np.concatenate([np.eye(n)[where][:, 1:] for where, n in _positions(seen, at)], axis=1)


def _margin(seen: SeenCards, where: Ints, residual: Floats, b: int, n: int) -> Floats:
    """Sums of residuals by page and position, the first position left out: its trust is 1."""
    sums: Floats = np.bincount(seen.page * n + where, residual, b * n).astype(np.float64)
    return sums.reshape(b, n)[:, 1:]
