"""exposure_dr: the value of a page policy by exposures, doubly robust; derived in docs/exposure_dr.md.

    value = scale x mean over pages of [ modelled reward of the target + sum over seen of omega (reward - trust q1) ]

omega is the ratio of a card's exposures under both policies. The browsing model and q come from the log; the level of
q1 = sigmoid(logit q + delta) is chosen so that the corrections sum to 0 (a targeted estimate), which keeps the value
within what a page can earn. omega depends on delta through the reach, so both are solved by turns. scale is the
log's mean reward over the modelled one: what the browsing model gets wrong under both policies cancels, and a policy
equal to the logging one has exactly the mean reward.

The spread of the whole pipeline comes from its estimating equations: hazards, trusts, levels and the value are all
means over pages of something that averages to zero, and their derivatives give the influence of each page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bart.ope.appeal import LOGIT_BOUND, fit_appeal, sigmoid
from bart.ope.browsing import Browsing, SeenCards, hazards, position_trust, seen_cards
from bart.ope.exposure import NARROW, WIDE, Exposure, Summary, exposure, summarise
from bart.ope.page_weights import ratio
from bart.ope.pages import LoggedPages
from bart.types import Floats, Ints

ROUNDS = 8
DERIVATIVE_PAGES = 4_000  # enough for derivatives, whose error is of second order in the interval
_STEP = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """logged_level, target_level: shifts of the prediction's logit, by the log and by the target's share of it."""

    browsing: Browsing
    logged_level: float
    target_level: float


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Terms of the estimate at given parameters.

    weight: [m] ratio of exposures. trust: [m] of the slot. logged, target: exposures. residual: [m] reward minus what
    was predicted at the target's level.
    """

    weight: Floats
    trust: Floats
    logged: Exposure
    target: Exposure
    residual: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ExposureFit:
    """What was fitted, and what the estimators read off it."""

    summary: Summary
    parameters: Parameters
    terms: Terms
    direct: Floats  # [b] modelled reward under the target at the log's own level: the direct method
    reward: Floats  # [b] reward of each page
    score: Floats  # [N] log odds of a reward in the first slot
    coefficient: dict[str, float]

    @property
    def value(self) -> float:
        """The doubly robust estimate, expected reward of a page."""
        return self.scale * float(page_terms(self.summary, self.terms).mean())

    @property
    def scale(self) -> float:
        """Observed over modelled reward of the log; 1 where pages and browsing are as modelled."""
        return _ratio(float(self.reward.mean()), float(self.terms.logged.reward.mean()))


def fit_exposure(data: LoggedPages, predictor: str = "stacked") -> ExposureFit:
    """Everything that exposure_dr needs of a log. predictor: "stacked", "target" or "logged" (see `appeal`).

    Made once a record and predictor, and kept with it. Raises ValueError where no card was seen.
    """
    if predictor not in data.fits:
        data.fits[predictor] = _fit(data, predictor)
    found: ExposureFit = data.fits[predictor]
    return found


def _fit(data: LoggedPages, predictor: str) -> ExposureFit:
    seen = seen_cards(data)
    if not len(seen.card):
        raise ValueError("no card was seen on any page; exposure needs seen flags")
    appeal = fit_appeal(data, seen, predictor)
    for span in (NARROW, WIDE):
        summary = summarise(data, appeal.score, span)
        browsing = _browsing(
            summary.went.sum(axis=0), summary.possible.sum(axis=0), appeal.row_trust, appeal.column_trust
        )
        trust = browsing.row_trust[seen.row] * browsing.column_trust[seen.column]
        level = solve_level(summary.logit, trust, seen.reward, np.ones(len(trust)))  # 0 but for rounding
        start = Parameters(browsing, level, level)
        parameters = _target_level(summary, start, np.ones(len(summary)), span[0])
        if abs(parameters.target_level) < span[0]:
            break
    return ExposureFit(
        summary=summary,
        parameters=parameters,
        terms=terms(summary, parameters),
        direct=exposure(summary, browsing, level, 1).reward,
        reward=data.page_reward,
        score=appeal.score,
        coefficient=appeal.coefficient,
    )


def terms(summary: Summary, at: Parameters) -> Terms:
    seen = summary.seen
    logged = exposure(summary, at.browsing, at.logged_level, 0)
    target = exposure(summary, at.browsing, at.target_level, 1)
    trust = at.browsing.row_trust[seen.row] * at.browsing.column_trust[seen.column]
    residual = seen.reward - trust * sigmoid(summary.logit + at.target_level)
    return Terms(ratio(target.card, logged.card), trust, logged, target, residual)


def page_terms(summary: Summary, at: Terms) -> Floats:
    """[b]: modelled reward and correction of each page; their mean is the estimate."""
    correction = np.bincount(summary.seen.page, at.weight * at.residual, len(summary))
    out: Floats = at.target.reward + correction
    return out


# ------------------------------------------------------------------------------------------------------------------ fit


def solve_level(score: Floats, trust: Floats, reward: Floats, weight: Floats, level: float = 0.0) -> float:
    """The shift of the logit at which weighted residuals sum to 0; bounded where all rewards are 0 or all are 1."""
    for _ in range(60):
        q = sigmoid(score + level)
        gap = float(np.sum(weight * (reward - trust * q)))
        slope = float(np.sum(weight * trust * q * (1 - q)))
        step = float(np.clip(gap / max(slope, 1e-12), -1.0, 1.0))
        level = float(np.clip(level + step, -LOGIT_BOUND, LOGIT_BOUND))
        if abs(step) < 1e-11:
            break
    return level


def _browsing(went: Floats, possible: Floats, row_trust: Floats, column_trust: Floats) -> Browsing:
    h = hazards(went, possible)
    return Browsing(float(h[0]), (float(h[1]), float(h[2])), (float(h[3]), float(h[4])), column_trust, row_trust)


def _target_level(summary: Summary, at: Parameters, multiplicity: Floats, bound: float) -> Parameters:
    """The level at which corrections sum to 0, weights and level by turns; at most `bound` away from the model."""
    seen = summary.seen
    logged = exposure(summary, at.browsing, at.logged_level, 0).card
    trust = at.browsing.row_trust[seen.row] * at.browsing.column_trust[seen.column]
    level = at.target_level
    for _ in range(ROUNDS):
        weight = ratio(exposure(summary, at.browsing, level, 1).card, logged) * multiplicity[seen.page]
        new = float(np.clip(solve_level(summary.logit, trust, seen.reward, weight, level), -bound, bound))
        done = abs(new - level) < 1e-8
        level = new
        if done:
            break
    return replace(at, target_level=level)


def refit(fit: ExposureFit, multiplicity: Floats) -> float:
    """The estimate when page i counts multiplicity[i] times: hazards, trusts and levels anew, slopes of q kept.

    Slopes are left as they are since the estimate is insensitive to them: what they get wrong is corrected.
    """
    summary, at = fit.summary, fit.parameters
    seen = summary.seen
    each = multiplicity[seen.page]
    row, column, level = at.browsing.row_trust, at.browsing.column_trust, at.logged_level
    for _ in range(ROUNDS):
        before = level
        level = solve_level(summary.logit, row[seen.row] * column[seen.column], seen.reward, each, level)
        row, column = position_trust(
            seen.row, seen.column, each * seen.reward, each * sigmoid(summary.logit + level), len(row), len(column)
        )
        if abs(level - before) < 1e-8:
            break
    browsing = _browsing(multiplicity @ summary.went, multiplicity @ summary.possible, row, column)
    bound = float(np.abs(summary.level).max())
    new = _target_level(summary, Parameters(browsing, level, at.target_level), multiplicity, bound)
    now = terms(summary, new)
    value, modelled, reward = (
        float(multiplicity @ each) for each in (page_terms(summary, now), now.logged.reward, fit.reward)
    )
    return value / float(multiplicity.sum()) * _ratio(reward, modelled)


# ------------------------------------------------------------------------------------------------------------ influence


def influence(fit: ExposureFit) -> Floats:
    """How much each page moves the estimate, [b], mean 0: through its own terms and through all that is fitted.

    With estimating equations mean psi(theta) = 0, a mean m = mean m_i(theta) has the influence
    m_i - m - dm (dpsi)^-1 psi_i; the estimate is a product and ratio of three such means.
    """
    summary, start = fit.summary, _pack(fit.parameters)
    rows, columns = len(fit.parameters.browsing.row_trust), len(fit.parameters.browsing.column_trust)
    psi, means = _equations(summary, fit.parameters, fit.reward)
    some, reward = summary, fit.reward
    if len(summary) > DERIVATIVE_PAGES:
        pages = np.linspace(0, len(summary) - 1, DERIVATIVE_PAGES).astype(np.int64)
        some, reward = summary.take(pages), fit.reward[pages]
    of_psi, of_means = np.zeros((len(start), len(start))), np.zeros((3, len(start)))
    for k in range(len(start)):
        ends = []
        for sign in (-1, 1):
            moved = start.copy()
            moved[k] += sign * _STEP
            ends.append(_equations(some, _unpack(moved, rows, columns), reward))
        of_psi[:, k] = (ends[1][0].mean(axis=0) - ends[0][0].mean(axis=0)) / (2 * _STEP)
        of_means[:, k] = (ends[1][1].mean(axis=0) - ends[0][1].mean(axis=0)) / (2 * _STEP)
    # A position that nobody reached has no equation: the pseudo-inverse leaves its parameter alone.
    adjoint = np.linalg.pinv(of_psi.T, rcond=1e-9) @ of_means.T  # [parameters, 3]
    each = means - means.mean(axis=0) - (psi - psi.mean(axis=0)) @ adjoint  # [b, 3]
    value, modelled, earned = (float(m) for m in means.mean(axis=0))
    scale = _ratio(earned, modelled)
    out: Floats = scale * each[:, 0]
    if modelled > 0:
        out += value / modelled * (each[:, 2] - scale * each[:, 1])
    return out


def _pack(at: Parameters) -> Floats:
    b = at.browsing
    trusts = [b.row_trust[1:], b.column_trust[1:]]
    return np.concatenate([[b.start, *b.column_hazard, *b.row_hazard, at.logged_level, at.target_level], *trusts])


def _unpack(theta: Floats, rows: int, columns: int) -> Parameters:
    h = [float(x) for x in theta[:7]]
    row = np.concatenate([[1.0], theta[7 : 6 + rows]])
    column = np.concatenate([[1.0], theta[6 + rows : 5 + rows + columns]])
    return Parameters(Browsing(h[0], (h[1], h[2]), (h[3], h[4]), column, row), h[5], h[6])


def _equations(summary: Summary, at: Parameters, reward: Floats) -> tuple[Floats, Floats]:
    """psi [b, parameters] in the order of `_pack`; page terms, modelled and earned reward [b, 3]."""
    seen, b = summary.seen, len(summary)
    now = terms(summary, at)
    logged = seen.reward - now.trust * sigmoid(summary.logit + at.logged_level)
    theta = _pack(at)
    went = summary.went - theta[:5] * summary.possible
    level = np.bincount(seen.page, logged, b)
    targeted = np.bincount(seen.page, now.weight * now.residual, b)
    margins = [_margin(seen, where, logged, b, n) for where, n in _positions(seen, at.browsing)]
    psi = np.concatenate([went, level[:, None], targeted[:, None], *margins], axis=1)
    return psi, np.stack([page_terms(summary, now), now.logged.reward, reward], axis=1)


def _ratio(earned: float, modelled: float) -> float:
    """earned / modelled; 1 where neither is anything."""
    return earned / modelled if modelled > 0 else 1.0


def _positions(seen: SeenCards, browsing: Browsing) -> list[tuple[Ints, int]]:
    return [(seen.row, len(browsing.row_trust)), (seen.column, len(browsing.column_trust))]


def _margin(seen: SeenCards, where: Ints, residual: Floats, b: int, n: int) -> Floats:
    """Sums of residuals by page and position, the first position left out: its trust is 1."""
    sums: Floats = np.bincount(seen.page * n + where, residual, b * n).astype(np.float64)
    return sums.reshape(b, n)[:, 1:]
