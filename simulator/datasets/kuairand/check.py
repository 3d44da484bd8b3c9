"""How well the fits of KuaiRand predict what they have not seen: the last rows of every user.

Each user's rows are cut by time. Log losses are means a row, in nats; beside the model stand the mean of the training
rows, the user's own rate, and the model without its vectors, so that what each part gains can be read off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit, xlogy

from bart.types import Bools, Floats, Ints
from simulator.datasets.kuairand.fit import HAZARDS, TasteConfig, fit_reading, fit_taste, going_on
from simulator.datasets.kuairand.log import KuaiRandLog

_NO_TASTE = 1e6  # a penalty under which all vectors are 0


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the fits on the earlier rows say of the n later ones.

    log_loss: of long views, by model: "base", "user", "effects" (no vectors), "model". gain: of the model over the
    base, with its standard error over users. intercept, slope: of a logistic regression on the model's logits, 0 and 1
    where it is calibrated, with standard errors over users. deciles: [10, 2] mean prediction and rate by tenths.
    reading: log loss of going on, by "base" (one rate for columns, one for rows), "hazards", "patience".
    """

    n: int
    log_loss: Mapping[str, float]
    gain: tuple[float, float]
    intercept: tuple[float, float]
    slope: tuple[float, float]
    deciles: Floats
    reading: Mapping[str, float]


def held_out(log: KuaiRandLog, config: TasteConfig | None = None, share: float = 0.2) -> HeldOut:
    """Fits on all but the last `share` of each user's rows and predicts those."""
    config = config or TasteConfig()
    later = last_share(log, share)
    taste, effects = (fit_taste(log, c, ~later) for c in (config, replace(config, rank=1, taste=_NO_TASTE)))
    y, user = log.long_view[later], log.user[later]
    where = user, log.video[later], log.row[later], log.column[later]
    base = float(log.long_view[~later].mean())
    seen = np.bincount(log.user[~later], minlength=len(log.user_id))
    long = np.bincount(log.user[~later], log.long_view[~later], len(log.user_id))
    predicted = {
        "base": np.full(len(y), base),
        "user": ((long + 2 * base) / (seen + 2))[user],
        "effects": effects.probability(*where),
        "model": taste.probability(*where),
    }
    loss = {name: _log_loss(p, y) for name, p in predicted.items()}
    order = np.argsort(predicted["model"], kind="stable")
    deciles = np.array([[predicted["model"][part].mean(), y[part].mean()] for part in np.array_split(order, 10)])
    intercept, slope = _calibration(logit(predicted["model"]), y, user)
    return HeldOut(
        n=len(y),
        log_loss={name: float(rows.mean()) for name, rows in loss.items()},
        gain=_mean_by_user(loss["base"] - loss["model"], user),
        intercept=intercept,
        slope=slope,
        deciles=deciles,
        reading=_reading(log, later),
    )


def last_share(log: KuaiRandLog, share: float) -> Bools:
    """[n] the last rows of each user, in that share of them."""
    first = np.searchsorted(log.user, log.user)
    place = (np.arange(len(log)) - first) / np.bincount(log.user)[log.user]
    return np.asarray(place >= 1 - share)


def _reading(log: KuaiRandLog, later: Bools) -> dict[str, float]:
    fit = fit_reading(log, ~later)
    known, count = going_on(log, ~later).sum(axis=0), going_on(log, later)
    both = known.reshape(2, 2, 2).sum(axis=1)  # [columns and rows, stopped and went on]
    base = np.repeat(both[:, 1] / both.sum(axis=1), 2)
    rate = known[:, 1] / known.sum(axis=1)
    at = logit(np.array([fit.value[name] for name in HAZARDS]))
    own = expit(at + fit.value["patience"] * fit.patience[:, None])
    return {
        name: float(-(xlogy(count[:, :, 1], p) + xlogy(count[:, :, 0], 1 - p)).sum() / count.sum())
        for name, p in (("base", base), ("hazards", rate), ("patience", own))
    }


def _log_loss(p: Floats, y: Bools) -> Floats:
    return np.asarray(-np.log(np.where(y, p, 1 - p)))


def _calibration(x: Floats, y: Bools, user: Ints) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intercept and slope of y on x by maximum likelihood, with sandwich errors, users independent."""
    design = np.column_stack([np.ones(len(x)), x])
    w = np.array([0.0, 1.0])
    for _ in range(25):
        p = expit(design @ w)
        inverse = np.linalg.inv((design.T * (p * (1 - p))) @ design)
        w = w + inverse @ (design.T @ (y - p))
    score = design * (y - expit(design @ w))[:, None]
    by_user = np.stack([np.bincount(user, score[:, j]) for j in range(2)], axis=1)
    error = np.sqrt(np.diag(inverse @ (by_user.T @ by_user) @ inverse))
    return (float(w[0]), float(error[0])), (float(w[1]), float(error[1]))


def _mean_by_user(value: Floats, user: Ints) -> tuple[float, float]:
    """Mean over rows, and its standard error where users are independent."""
    mean = float(value.mean())
    by_user = np.bincount(user, value - mean)
    return mean, float(np.sqrt((by_user**2).sum()) / len(value))
