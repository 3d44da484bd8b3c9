"""How well predicted reward rates fit held-out cards: log loss, calibration, ranking.

Rewards may be fractions in [0, 1]: a fraction r counts as r of a positive and 1 - r of a negative.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bart.types import Floats, Ints

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bin of the calibration curve: mean prediction, mean reward, cards."""

    prediction: float
    reward: float
    n: int


@dataclass(frozen=True, slots=True)
class HoldoutMetrics:
    """What was measured on the held-out cards, each at the slot where it was seen.

    log_loss in nats; base_log_loss: of predicting the mean reward of the holdout for every card. ece: expected
    calibration error over ten bins of equal size. auc: NaN when all rewards are the same. ndcg_10: over the seen cards
    of a page, ranked as if each stood at the first slot; mean over pages with a reward; NaN without one.
    """

    n_cards: int
    n_pages: int
    mean_reward: float
    mean_prediction: float
    log_loss: float
    base_log_loss: float
    ece: float
    auc: float
    ndcg_10: float
    calibration: tuple[CalibrationBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them (None for NaN)."""
        fields = asdict(self)
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in fields.items()}


def holdout_metrics(reward: Floats, prediction: Floats, rank_score: Floats, page: Ints) -> HoldoutMetrics:
    """Metrics of cards [m] on pages [m]; rank_score orders the cards of a page."""
    if not len(reward):
        raise ValueError("there are no held-out cards to measure on")
    mean = float(reward.mean())
    curve = calibration_curve(reward, prediction)
    return HoldoutMetrics(
        n_cards=len(reward),
        n_pages=len(np.unique(page)),
        mean_reward=mean,
        mean_prediction=float(prediction.mean()),
        log_loss=log_loss(reward, prediction),
        base_log_loss=log_loss(reward, np.full(len(reward), mean)),
        ece=sum(b.n * abs(b.prediction - b.reward) for b in curve) / len(reward),
        auc=auc(reward, prediction),
        ndcg_10=ndcg(reward, rank_score, page, 10),
        calibration=curve,
    )


def log_loss(reward: Floats, prediction: Floats) -> float:
    """Mean negative log likelihood, nats."""
    p = np.clip(prediction, _TINY, 1.0 - _TINY)
    return float(-np.mean(reward * np.log(p) + (1.0 - reward) * np.log1p(-p)))


def auc(reward: Floats, prediction: Floats) -> float:
    """P(a positive is predicted above a negative), ties a half; NaN without both kinds."""
    _, group = np.unique(prediction, return_inverse=True)
    positive = np.bincount(group, weights=reward)  # by ascending prediction
    negative = np.bincount(group, weights=1.0 - reward)
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / (positive.sum() * negative.sum()))


def pairs_in_order(reward: Floats, prediction: Floats, page: Ints) -> tuple[Floats, Floats]:
    """[pages], the pairs of a streamed and another card of one page that a prediction orders right (ties a half), and
    all pairs. page: [m], any numbers; the pages come in ascending order.
    """
    number = np.unique(page, return_inverse=True)[1]
    order = np.lexsort((prediction, number))
    positive, negative, number = reward[order], 1.0 - reward[order], number[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (np.diff(number) != 0) | (np.diff(prediction[order]) != 0)
    tied = np.cumsum(new) - 1  # by page and prediction
    of_tied = np.bincount(tied, weights=negative)
    before = np.cumsum(of_tied) - of_tied
    start = np.concatenate([[0.0], np.cumsum(np.bincount(number, weights=negative))[:-1]])  # of the pages before
    below = before[tied] - start[number] + 0.5 * of_tied[tied]
    won = np.bincount(number, weights=positive * below)
    every = np.bincount(number, weights=positive) * np.bincount(number, weights=negative)
    return won.astype(np.float64), every.astype(np.float64)


def calibration_curve(reward: Floats, prediction: Floats, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Mean prediction and mean reward in bins of equal size, by ascending prediction."""
    order = np.argsort(prediction, kind="stable")
    return tuple(
        CalibrationBin(float(prediction[part].mean()), float(reward[part].mean()), len(part))
        for part in np.array_split(order, bins)
        if len(part)
    )


def ndcg(reward: Floats, score: Floats, page: Ints, k: int) -> float:
    """Mean over pages of the discounted gain of the first k cards by score, relative to that of the best order.

    Cards tied in score come in the order given. Pages without a reward are left out.
    """
    got, best = _gain(reward, score, page, k), _gain(reward, reward, page, k)
    counted = best > 0
    return float((got[counted] / best[counted]).mean()) if counted.any() else float("nan")


def _gain(reward: Floats, score: Floats, page: Ints, k: int) -> Floats:
    order = np.lexsort((-score, page))
    _, start, group = np.unique(page[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - start[group]
    discounted = np.where(rank < k, reward[order] / np.log2(rank + 2.0), 0.0)
    return np.bincount(group, weights=discounted).astype(np.float64)
