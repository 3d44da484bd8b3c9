"""What a card would earn in the first slot, predicted from the given models and from both policies' ranks.

The logging policy chose cards by its own ranks. A prediction that leaves them out mistakes the better cards at the top
for trust in the top, and the error goes into every estimate. The evaluation policy would show the cards that its own
model likes best, and these are the ones that it flatters: without its ranks the prediction believes the flattery. So
the ranks are features beside the models' predictions, all of them known for every candidate. One logistic regression on
the seen cards, together with the trust in positions.

Each comes with its square. Given a card's rank, chance alone decides on its position; but where appeal bends in a score
or a rank and the prediction does not, the ranks that mostly stand low on a page are misjudged together, and trust takes
the blame: straight lines trust columns of equal trust up to a quarter too much (tests/bart/ope/exposure/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bart.ope.models.browsing import SeenCards, position_trust
from bart.ope.records.pages import LoggedPages, Ranks, same
from bart.types import Bools, Floats, Ints

PREDICTORS = ("stacked", "target", "logged")
LOGIT_BOUND = 12.0
RIDGE = 1.0  # prior precision of a slope around its start: matters only for logs with a handful of streams
ROUNDS = 50
SCALE, BEND = 3.0, 2.0  # squares of log odds are of log odds / 3, and grow no more beyond 6: few cards stand there


@dataclass(frozen=True, slots=True, eq=False)
class Appeal:
    """score: [N] log odds of a reward in the first slot. *_trust: 1 at the first position. coefficient: by name.
    feature: [m, features] what the fitted slopes multiply at the seen cards, no column where slopes are given. pull:
    [features] of the prior on them, in the equation of `fit_appeal`."""

    score: Floats
    row_trust: Floats
    column_trust: Floats
    coefficient: dict[str, float]
    feature: Floats
    pull: Floats


def sigmoid(x: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-x))
    return out


def logit(q: Floats) -> Floats:
    """Log odds, bounded so that a prediction of 0 or 1 can still be moved."""
    with np.errstate(divide="ignore"):
        out: Floats = np.clip(np.log(q) - np.log1p(-q), -LOGIT_BOUND, LOGIT_BOUND)
    return out


def features(data: LoggedPages, predictor: str, cards: Ints) -> dict[str, Floats]:
    """What predicts, by name, each [m], of some cards. The first model's slope starts from 1, the others from 0."""
    out = {f"logit q_{name}": each[cards] for name, each in _logits(data, predictor).items()}
    if predictor != "stacked":
        return out
    out |= {f"square of {name}": _square(each) for name, each in out.items()}
    shelf = np.searchsorted(data.shelf_start(), cards, side="right") - 1
    for who in ("logged", "target"):
        rank = out[f"log rank_{who}"] = _log_rank(getattr(data, f"rank_{who}"))[getattr(data, f"rank_{who}")[cards]]
        out[f"square of log rank_{who}"] = rank**2
        ranks = getattr(data, f"shelf_rank_{who}")
        out[f"log shelf_rank_{who}"] = _log_rank(ranks)[ranks[shelf]]
    return out


def predicted(data: LoggedPages, predictor: str, beta: Sequence[float]) -> Floats:
    """[N] log odds of all cards: an intercept, and a slope for each of `features`. Ranks are few and cards are many:
    what depends on a rank, or on the shelf, is made once."""
    logits = _logits(data, predictor)
    level, slope = beta[0], list(beta[1:])
    out = np.zeros(len(data.shelf))
    for number, each in enumerate(logits.values()):
        out += slope[number] * each
        if predictor == "stacked":
            out += slope[len(logits) + number] * _square(each)
    if predictor != "stacked":
        return out + level
    of_shelf = np.full(len(data.shelf_rank_logged), level)
    for who, (rank, square, shelf) in zip(("logged", "target"), (slope[-6:-3], slope[-3:]), strict=True):
        ranks, shelf_ranks = getattr(data, f"rank_{who}"), getattr(data, f"shelf_rank_{who}")
        table = _log_rank(ranks)
        out += (rank * table + square * table**2)[ranks]
        of_shelf += shelf * _log_rank(shelf_ranks)[shelf_ranks]
    out += np.repeat(of_shelf, np.diff(data.shelf_start()))
    return out


def _logits(data: LoggedPages, predictor: str) -> dict[str, Floats]:
    """[N] log odds of a reward by the models that are asked for, by name."""
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor is {predictor!r}; expected one of {', '.join(PREDICTORS)}")
    models = {"target": data.q_target, "logged": data.q_logged}
    if predictor != "stacked" and models[predictor] is None:
        raise ValueError(f"predictor is {predictor!r}, but q_{predictor} was not given")
    out = {}
    for name in models if predictor == "stacked" else (predictor,):
        if (q := models[name]) is not None:
            out[name] = logit(q) if q is not data.q_logged else data.kept("logit", partial(logit, q))
    return out


def _square(each: Floats) -> Floats:
    return np.minimum(np.abs(each) / SCALE, BEND) ** 2


def _log_rank(rank: Ranks) -> Floats:
    """log(1 + r) for every r up to the largest rank."""
    return np.log1p(np.arange(int(rank.max(initial=0)) + 1))


def fit_appeal(data: LoggedPages, seen: SeenCards, predictor: str = "stacked") -> Appeal:
    """Prediction and trust together, by turns: Newton steps of the regression given trust, then trust given prediction.

    Solves sum over seen cards of x (reward - trust q) = 0 for every feature x, row and column. Made once for all
    policies that rank and predict as the logging one.
    """
    if data.q_target is data.q_logged and all(
        same(getattr(data, f"{kind}rank_logged"), getattr(data, f"{kind}rank_target")) for kind in ("", "shelf_")
    ):
        return data.kept(f"appeal, {predictor}", lambda: _fitted(data, seen, predictor))
    return _fitted(data, seen, predictor)


def _fitted(data: LoggedPages, seen: SeenCards, predictor: str) -> Appeal:
    by_name = features(data, predictor, seen.card)
    columns = np.stack(list(by_name.values()), axis=1)
    x = np.concatenate([np.ones((len(seen.card), 1)), columns], axis=1)
    start = np.zeros(x.shape[1])
    start[1:] = [1.0 if name.startswith("logit") and i == 0 else 0.0 for i, name in enumerate(by_name)]
    # A single model keeps its slope: only its level is fitted.
    free = np.ones(len(start), dtype=bool) if predictor == "stacked" else np.arange(len(start)) == 0
    beta = start.copy()
    row, column = np.ones(data.rows), np.ones(data.columns)
    score = x @ beta
    for _ in range(ROUNDS):
        before = np.concatenate([beta, row, column])
        trust = row[seen.row] * column[seen.column]
        beta = _newton(x, sigmoid(score), seen.reward, trust, beta, start, free)
        score = x @ beta
        row, column = position_trust(seen.row, seen.column, seen.reward, sigmoid(score), data.rows, data.columns)
        if np.abs(np.concatenate([beta, row, column]) - before).max() < 1e-7:
            break
    names = ("intercept", *by_name)
    fitted = len(by_name) if predictor == "stacked" else 0
    return Appeal(
        predicted(data, predictor, beta.tolist()),
        row,
        column,
        {name: float(b) for name, b in zip(names, beta, strict=True)},
        columns[:, :fitted],
        RIDGE * (beta - start)[1 : 1 + fitted],
    )


def damped(x: Floats, step: Floats) -> Floats:
    """A Newton step of a logistic regression, shortened so that it never overshoots. x: [m, k]; step: [k].

    Within a move of the log odds by M curvature changes by a factor of e^M at most: log(1 + M) of the M on the way to
    the step's end is the best that this promises, and nearly all of a small step (Sun and Tran-Dinh, 2019). Bounding
    each coefficient by itself turns the step elsewhere: where features go together (few pages, scores much alike) the
    fit then leapt between two places for ever.
    """
    most = float(np.abs(x @ step).max(initial=0.0))
    return step * (np.log1p(most) / most) if most > 0 else step


def _newton(x: Floats, q: Floats, reward: Floats, trust: Floats, beta: Floats, start: Floats, free: Bools) -> Floats:
    ridge = np.full(len(beta), RIDGE)
    ridge[0] = 1e-9  # the level is free, bounded below where no card or every card was streamed
    gradient = x.T @ (reward - trust * q) - ridge * (beta - start)
    curvature = (x * (trust * q * (1 - q))[:, None]).T @ x + np.diag(ridge)
    step = np.zeros_like(beta)
    step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
    out: Floats = beta + damped(x, step)
    out[0] = np.clip(out[0], -2 * LOGIT_BOUND, 2 * LOGIT_BOUND)
    return out
