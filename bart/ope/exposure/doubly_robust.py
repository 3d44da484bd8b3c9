"""exposure_dr: the value of a page policy by exposures, doubly robust; derived in docs/exposure_dr.md.

    value = scale x mean over pages of [ modelled reward of the target + sum over seen of omega (reward - trust q1) ]

omega is the ratio of a card's exposures under both policies (`Summary.weight`), at most `cap`. The browsing model and
q come from the log; the level of q1 = sigmoid(logit q + delta) is chosen so that the corrections sum to 0 (a targeted
estimate), which keeps the value within what a page can earn. omega depends on delta through the reach, so both are
solved by turns. scale is the log's mean reward over the modelled one: what the browsing model gets wrong under both
policies cancels, and a policy equal to the logging one has exactly the mean reward.

The cap trades the largest part of the variance, which a few rarely explored cards bring, for what the prediction gets
wrong there; `left_by_cap` says how much that is.

The spread of the whole pipeline comes from its estimating equations: hazards, trusts, levels and the value are all
means over pages of something that averages to zero, and their derivatives give the influence of each page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bart.ope.exposure.exposure import CLOSE, NARROW, WIDE, Exposure, Summary, by_slope, exposure, summarise
from bart.ope.models.appeal import LOGIT_BOUND, RIDGE, Appeal, damped, features, fit_appeal, sigmoid
from bart.ope.models.browsing import Browsing, SeenCards, hazards, position_trust, seen_cards
from bart.ope.records.pages import LoggedPages
from bart.types import Floats, Ints

CAP = 5.0  # of omega: chosen on simulated logs (docs/page_study.md)
ROUNDS = 8
REFIT_ROUNDS = 30
REACH_ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """logged_level, target_level: shifts of the prediction's logit, by the log and by the target's share of it. cap: of
    omega. slope: [features] changes of the prediction's slopes, None for none."""

    browsing: Browsing
    logged_level: float
    target_level: float
    cap: float = np.inf
    slope: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Terms of the estimate at given parameters.

    weight: [m] ratio of exposures, capped. plain: [m] without a cap. trust: [m] of the slot. logged, target: exposures.
    residual: [m] reward minus what was predicted at the target's level.
    """

    weight: Floats
    plain: Floats
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
    reward: Floats  # [b] reward of the drawn cards of each page
    appeal: Appeal
    predictor: str

    @property
    def value(self) -> float:
        """The doubly robust estimate, expected reward of a page."""
        return self.scale * float(page_terms(self.summary, self.terms).mean())

    @property
    def scale(self) -> float:
        """Observed over modelled reward of the log; 1 where pages and browsing are as modelled."""
        return calibration(float(self.reward.mean()), float(self.terms.logged.reward.mean()))


def fit_exposure(data: LoggedPages, predictor: str = "stacked", cap: float = CAP) -> ExposureFit:
    """Everything that exposure_dr needs of a log. predictor: "stacked", "target" or "logged" (see `appeal`).

    Made once a record, predictor and cap, and kept with it. Raises ValueError where no card was seen.
    """
    if not cap > 0:
        raise ValueError(f"cap is {cap}; expected a number > 0, inf for none")
    key = f"{predictor}/{cap}"
    if key not in data.fits:
        data.fits[key] = _fit(data, predictor, cap)
    found: ExposureFit = data.fits[key]
    return found


def _fit(data: LoggedPages, predictor: str, cap: float) -> ExposureFit:
    seen = seen_cards(data)
    if not len(seen.card):
        raise ValueError("no card was seen on any page; exposure needs seen flags")
    for span in (CLOSE, NARROW, WIDE):
        appeal, summary = _prepared(data, seen, predictor, span)
        browsing = _browsing(
            summary.went.sum(axis=0), summary.possible.sum(axis=0), appeal.row_trust, appeal.column_trust
        )
        trust = browsing.row_trust[seen.row] * browsing.column_trust[seen.column]
        level = solve_level(summary.logit, trust, seen.reward, np.ones(len(trust)))  # 0 but for rounding
        start = Parameters(browsing, level, level, cap)
        # The logging policy itself is at the log's own level, to the last bit.
        parameters = start if data.is_logging else _target_level(summary, start, np.ones(len(summary)), span[0])
        if max(abs(level), abs(parameters.target_level)) < span[0]:
            break
    return ExposureFit(
        summary=summary,
        parameters=parameters,
        terms=terms(summary, parameters),
        direct=exposure(summary, browsing, level, 1).reward,
        reward=data.drawn_reward,
        appeal=appeal,
        predictor=predictor,
    )


def _prepared(data: LoggedPages, seen: SeenCards, predictor: str, span: tuple[float, int]) -> tuple[Appeal, Summary]:
    """Prediction and summary, which do not depend on the cap."""
    if predictor not in data.fits:
        data.fits[predictor] = fit_appeal(data, seen, predictor)
    appeal: Appeal = data.fits[predictor]
    key = f"{predictor}, {span[1]} levels"
    if key not in data.fits:
        data.fits[key] = summarise(data, appeal.score, span, appeal.feature)
    summary: Summary = data.fits[key]
    return appeal, summary


def terms(summary: Summary, at: Parameters) -> Terms:
    seen = summary.seen
    logged = exposure(summary, at.browsing, at.logged_level, 0, at.slope)
    target = exposure(summary, at.browsing, at.target_level, 1, at.slope)
    trust = at.browsing.row_trust[seen.row] * at.browsing.column_trust[seen.column]
    residual = seen.reward - trust * sigmoid(seen_logit(summary, at) + at.target_level)
    plain = summary.weight(target.card, logged.card)
    return Terms(np.minimum(plain, at.cap), plain, trust, logged, target, residual)


def seen_logit(summary: Summary, at: Parameters) -> Floats:
    """[m] logit of the prediction of the seen cards, level apart."""
    return summary.logit if at.slope is None else summary.logit + summary.feature @ at.slope


def left_by_cap(fit: ExposureFit) -> Floats:
    """[b]: what the correction would add beyond the cap; its mean is 0 where the prediction is right there."""
    now = fit.terms
    beyond = (now.plain - now.weight) * now.residual
    out: Floats = fit.scale * np.bincount(fit.summary.seen.page, beyond, len(fit.summary)).astype(np.float64)
    return out


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
    logged = exposure(summary, at.browsing, at.logged_level, 0, at.slope).card
    trust = at.browsing.row_trust[seen.row] * at.browsing.column_trust[seen.column]
    logit, level = seen_logit(summary, at), at.target_level
    for _ in range(ROUNDS):
        weight = summary.weight(exposure(summary, at.browsing, level, 1, at.slope).card, logged)
        each = np.minimum(weight, at.cap) * multiplicity[seen.page]
        new = float(np.clip(solve_level(logit, trust, seen.reward, each, level), -bound, bound))
        done = abs(new - level) < 1e-8
        level = new
        if done:
            break
    return replace(at, target_level=level)


def with_reach(fit: ExposureFit, reach: Callable[[float, str], Exposure]) -> ExposureFit:
    """The fit with another reach: weights and the target's level anew, browsing and prediction as they were.

    reach: exposures at a level of the prediction, under "logged" or "target".
    """
    summary, at, seen = fit.summary, fit.parameters, fit.summary.seen
    trust = fit.terms.trust
    logged = reach(at.logged_level, "logged")
    level, bound = at.target_level, float(np.abs(summary.level).max())
    for _ in range(REACH_ROUNDS):
        target = reach(level, "target")
        plain = summary.weight(target.card, logged.card)
        weight = np.minimum(plain, at.cap)
        new = float(np.clip(solve_level(summary.logit, trust, seen.reward, weight, level), -bound, bound))
        if abs(new - level) < 1e-4:
            break
        level = new
    residual = seen.reward - trust * sigmoid(summary.logit + level)
    return replace(
        fit,
        parameters=replace(at, target_level=level),
        terms=Terms(weight, plain, trust, logged, target, residual),
    )


def refit(data: LoggedPages, fit: ExposureFit, multiplicity: Floats) -> float:
    """The estimate when page i counts multiplicity[i] times: hazards, trusts, levels and slopes anew.

    Slopes enter the mean appeal of a column to first order, so multiplicities should not be far from 1 on the whole.
    """
    summary, at = with_slopes(data, fit, None), fit.parameters
    seen = summary.seen
    each = multiplicity[seen.page]
    row, column = at.browsing.row_trust, at.browsing.column_trust
    x = np.concatenate([np.ones((len(each), 1)), summary.feature], axis=1)
    pull = np.concatenate([[0.0], fit.appeal.pull])
    prior = np.diag(np.where(np.arange(len(pull)) > 0, RIDGE, 1e-9))
    change = np.concatenate([[at.logged_level], np.zeros(len(pull) - 1)])  # of level and slopes
    for _ in range(REFIT_ROUNDS):
        q = sigmoid(summary.logit + x @ change)
        trust = row[seen.row] * column[seen.column]
        gradient = x.T @ (each * (seen.reward - trust * q)) - pull - prior @ change
        step = np.linalg.solve((x * (each * trust * q * (1 - q))[:, None]).T @ x + prior, gradient)
        change = change + damped(x, step)
        q = sigmoid(summary.logit + x @ change)
        row, column = position_trust(seen.row, seen.column, each * seen.reward, each * q, len(row), len(column))
        if np.abs(step).max() < 1e-7:
            break
    browsing = _browsing(multiplicity @ summary.went, multiplicity @ summary.possible, row, column)
    bound = float(np.abs(summary.level).max())
    start = Parameters(browsing, float(change[0]), at.target_level, at.cap, change[1:])
    now = terms(summary, _target_level(summary, start, multiplicity, bound))
    value, modelled, reward = (
        float(multiplicity @ each) for each in (page_terms(summary, now), now.logged.reward, fit.reward)
    )
    return value / float(multiplicity.sum()) * calibration(reward, modelled)


def with_slopes(data: LoggedPages, fit: ExposureFit, pages: Ints | None) -> Summary:
    """The summary with derivatives by the fitted slopes, of some pages (ascending) or of all, which is kept."""
    if not fit.summary.feature.shape[1]:
        return fit.summary if pages is None else fit.summary.take(pages)
    key = f"{fit.predictor}/{fit.parameters.cap}, slopes"
    if pages is None and key in data.fits:
        found: Summary = data.fits[key]
        return found
    every = np.arange(len(data)) if pages is None else pages
    levels = fit.parameters.logged_level, fit.parameters.target_level
    slopes = by_slope(
        data, fit.appeal.score, lambda cards: list(features(data, fit.predictor, cards).values()), levels, every
    )
    summary = replace(fit.summary if pages is None else fit.summary.take(pages), by_slope=slopes)
    if pages is None:
        data.fits[key] = summary
    return summary


def calibration(earned: float, modelled: float) -> float:
    """earned / modelled; 1 where neither is anything."""
    return earned / modelled if modelled > 0 else 1.0
