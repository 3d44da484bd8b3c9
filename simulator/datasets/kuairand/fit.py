"""Fits of KuaiRand's log: how far users go on, with a patience of their own, and what they like, of low rank.

Reading: the logits of going on are hc0, hc1 (next column, without and with a long view), hr0, hr1 (next row, without
and with a long view in this one), all moved by patience x a standard normal of the user, which is integrated out on a
grid; standard errors come from the observed information.

Taste: logit P(long view) = level + user + video + length + u . v + step . (column, row), by penalised likelihood.
Columns and rows count as differences from the user's mean, so that who stays long cannot look like what is far down.
Standard errors of the steps are robust to dependence within users, given the taste.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit, logsumexp
from scipy.stats import norm

from bart.types import Bools, Floats, Ints
from simulator.datasets.kuairand.log import KuaiRandLog

HAZARDS = ("hc0", "hc1", "hr0", "hr1")
DEEPEST = 9  # columns and rows beyond count as this one
_LENGTHS_S = np.array([1e-9, 7.0, 10.0, 15.0, 30.0, 60.0])
_NODE = np.linspace(-6.0, 6.0, 121)  # some users have hundreds of rows, and so a narrow likelihood


@dataclass(frozen=True, eq=False)
class ReadingFit:
    """Probabilities of going on at patience 0, and the standard deviation `patience` of the users' own in logits.

    value, error: by name of `HAZARDS` and "patience". patience: [users] expected normal of each. log_likelihood: total.
    """

    value: Mapping[str, float]
    error: Mapping[str, float]
    patience: Floats
    log_likelihood: float


@dataclass(frozen=True, slots=True)
class TasteConfig:
    """rank: of the taste. user, video, length, taste: penalties, as precisions of normal priors.

    Chosen on the fifth fifth of the first four fifths of each user's rows (docs/datasets.md).
    """

    rank: int = 4
    user: float = 1.0
    video: float = 2.0
    length: float = 0.1
    taste: float = 5.0


@dataclass(frozen=True, eq=False)
class TasteModel:
    """level; user [users], video [videos] (its length in it); vectors [., rank]: all of the first slot.

    step: logits a column and a row, step_error: their standard errors. usual: mean rate of the rows that were fitted.
    """

    level: float
    user: Floats
    video: Floats
    user_vector: Floats
    video_vector: Floats
    step: Floats
    step_error: Floats
    usual: float

    def appeal(self, user: Ints, video: Ints) -> Floats:
        """P(long view) in the first slot; user and video of shapes that broadcast."""
        match = (self.user_vector[user] * self.video_vector[video]).sum(axis=-1)
        return np.asarray(expit(self.level + self.user[user] + self.video[video] + match))

    def probability(self, user: Ints, video: Ints, row: Ints, column: Ints) -> Floats:
        """P(long view) in any slot."""
        depth = self.step[0] * np.minimum(column, DEEPEST) + self.step[1] * np.minimum(row, DEEPEST)
        return np.asarray(expit(logit(self.appeal(user, video)) + depth))

    @property
    def column_trust(self) -> float:
        """What a column multiplies the usual appeal by; 1 where it would add to it."""
        return float(min(np.exp(self.step[0] * (1 - self.usual)), 1.0))

    @property
    def row_trust(self) -> float:
        """What a row multiplies the usual appeal by; 1 where it would add to it."""
        return float(min(np.exp(self.step[1] * (1 - self.usual)), 1.0))


def going_on(log: KuaiRandLog, rows: Bools | None = None) -> Ints:
    """[users, 4, 2] how often each user stopped and went on, by hazard in the order of `HAZARDS`.

    rows [n]: which rows count, all by default. Of a sitting's last video the row's hazard counts as well; where the
    data end too soon to tell whether a page ended, neither does.
    """
    n_users = len(log.user_id)
    count = np.zeros((n_users, 4, 2), dtype=np.int64)
    use = log.ended | ~log.last_of_row
    if rows is not None:
        use = use & rows
    np.add.at(count, (log.user[use], log.long_view[use].astype(np.int64), (~log.last_of_row[use]).astype(np.int64)), 1)
    start = log.column == 0
    any_long = np.logical_or.reduceat(log.long_view, np.flatnonzero(start))[np.cumsum(start) - 1]
    ends = use & log.last_of_row
    went_down = (~log.last_of_page[ends]).astype(np.int64)
    np.add.at(count, (log.user[ends], 2 + any_long[ends].astype(np.int64), went_down), 1)
    return count


def fit_reading(log: KuaiRandLog, rows: Bools | None = None) -> ReadingFit:
    """Most likely hazards and patience for `going_on(log, rows)`."""
    return fit_hazards(going_on(log, rows))


def fit_hazards(count: Ints) -> ReadingFit:
    """The same from counts [users, 4, 2] of stopping and going on."""
    total = count.sum(axis=0)
    if (total == 0).any():
        raise ValueError("some hazard was never stopped at or never passed; expected both of each, to fit them")

    def per_node(theta: Floats) -> Floats:
        z = theta[:4, None] + np.exp(theta[4]) * _NODE  # [4, nodes]
        ll = count[:, :, 1] @ log_expit(z) + count[:, :, 0] @ log_expit(-z)  # [users, nodes]
        return np.asarray(ll + norm.logpdf(_NODE) + np.log(_NODE[1] - _NODE[0]))

    def loss(theta: Floats) -> float:
        return float(-logsumexp(per_node(theta), axis=1).sum())

    start = np.append(logit((total[:, 1] + 0.5) / (total.sum(axis=1) + 1)), np.log(0.5))
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-3})
    theta = found.x
    covariance = np.linalg.inv(_hessian(loss, theta))
    scale = np.append(expit(theta[:4]) * expit(-theta[:4]), np.exp(theta[4]))  # of the delta method
    error = np.sqrt(np.diag(covariance)) * scale
    names = (*HAZARDS, "patience")
    share = per_node(theta)
    share = np.exp(share - logsumexp(share, axis=1, keepdims=True))
    value = np.append(expit(theta[:4]), np.exp(theta[4]))
    return ReadingFit(
        dict(zip(names, value.tolist(), strict=True)),
        dict(zip(names, error.tolist(), strict=True)),
        share @ _NODE,
        -float(found.fun),
    )


def fit_taste(log: KuaiRandLog, config: TasteConfig, rows: Bools | None = None) -> TasteModel:
    """The taste model of the rows [n] that count, all by default; videos without any have the prior's mean."""
    keep = np.flatnonzero(np.ones(len(log), dtype=np.bool_) if rows is None else rows)
    user, video = log.user[keep], log.video[keep]
    y = log.long_view[keep].astype(np.float64)
    depth = np.stack([np.minimum(log.column, DEEPEST), np.minimum(log.row, DEEPEST)], axis=1)[keep].astype(np.float64)
    n_users, n_videos, rank = len(log.user_id), len(log.video_id), config.rank
    mean_depth = _sums(user, depth, n_users) / np.maximum(np.bincount(user, minlength=n_users), 1)[:, None]
    depth -= mean_depth[user]
    length = np.zeros(n_videos, dtype=np.int64)
    length[log.video] = np.searchsorted(_LENGTHS_S, log.duration_s)  # of the video, whoever watched it
    sizes = [1, n_users, n_videos, len(_LENGTHS_S) + 1, n_users * rank, n_videos * rank, 2]
    cut = np.cumsum(sizes)[:-1]
    penalty = np.repeat([0.0, config.user, config.video, config.length, config.taste, config.taste, 0.0], sizes)

    def logits(w: Floats) -> tuple[Floats, Floats, Floats]:
        level, b_user, b_video, b_length, p, q, step = np.split(w, cut)
        p, q = p.reshape(-1, rank), q.reshape(-1, rank)
        eta = level[0] + b_user[user] + (b_video + b_length[length])[video] + depth @ step
        return eta + np.einsum("nr,nr->n", p[user], q[video]), p, q

    def loss(w: Floats) -> tuple[float, Floats]:
        eta, p, q = logits(w)
        by_eta = expit(eta) - y
        slope = np.concatenate(
            [
                [by_eta.sum()],
                np.bincount(user, by_eta, n_users),
                np.bincount(video, by_eta, n_videos),
                np.bincount(length[video], by_eta, sizes[3]),
                _sums(user, by_eta[:, None] * q[video], n_users).ravel(),
                _sums(video, by_eta[:, None] * p[user], n_videos).ravel(),
                by_eta @ depth,
            ]
        )
        ll = np.where(y > 0, log_expit(eta), log_expit(-eta)).sum()
        return float(penalty @ w**2 / 2 - ll), penalty * w + slope

    start = np.zeros(sum(sizes))
    start[0] = logit(np.clip(y.mean(), 0.01, 0.99))
    # Zero is a saddle of the product of vectors: they start small, from a fixed stream, so that a file has one fit.
    vectors = slice(cut[3], cut[5])
    start[vectors] = 0.1 * np.random.default_rng(0).normal(size=cut[5] - cut[3])
    w = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 1_000}).x
    eta, p, q = logits(w)
    level, b_user, b_video, b_length, _, _, step = np.split(w, cut)
    return TasteModel(
        level=float(level[0]),
        user=b_user - mean_depth @ step,
        video=b_video + b_length[length],
        user_vector=p,
        video_vector=q,
        step=step,
        step_error=_step_error(expit(eta), depth, y, user, n_users),
        usual=float(y.mean()),
    )


def _step_error(p: Floats, depth: Floats, y: Floats, user: Ints, n_users: int) -> Floats:
    """[2] standard errors of the steps, given the rest: sandwich estimate, users independent."""
    inverse = np.linalg.inv((depth.T * (p * (1 - p))) @ depth)
    by_user = _sums(user, (y - p)[:, None] * depth, n_users)
    return np.asarray(np.sqrt(np.diag(inverse @ (by_user.T @ by_user) @ inverse)))


def _hessian(loss: Callable[[Floats], float], at: Floats, step: float = 1e-3) -> Floats:
    d = len(at)
    out = np.empty((d, d))
    e = step * np.eye(d)
    for i in range(d):
        for j in range(i, d):
            out[i, j] = out[j, i] = (
                loss(at + e[i] + e[j]) - loss(at + e[i] - e[j]) - loss(at - e[i] + e[j]) + loss(at - e[i] - e[j])
            ) / (4 * step**2)
    return out


def _sums(group: Ints, value: Floats, n: int) -> Floats:
    """[n, d] sums of value [m, d] by group."""
    return np.stack([np.bincount(group, value[:, j], n) for j in range(value.shape[1])], axis=1)
