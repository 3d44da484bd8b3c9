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

from dataclasses import dataclass

import numpy as np

from bart.ope.models.browsing import SeenCards, position_trust
from bart.ope.records.pages import LoggedPages, Ranks
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


def features(data: LoggedPages, predictor: str, cards: Ints | None = None) -> dict[str, Floats]:
    """What predicts, by name, each [N], or of some cards. The first model's slope starts from 1, the others from 0."""
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor is {predictor!r}; expected one of {', '.join(PREDICTORS)}")
    models = {"target": data.q_target, "logged": data.q_logged}
    if predictor != "stacked" and models[predictor] is None:
        raise ValueError(f"predictor is {predictor!r}, but q_{predictor} was not given")
    some = slice(None) if cards is None else cards
    wanted = models if predictor == "stacked" else (predictor,)
    out = {f"logit q_{name}": logit(q[some]) for name in wanted if (q := models[name]) is not None}
    if predictor != "stacked":
        return out
    out |= {f"square of {name}": np.minimum(np.abs(each) / SCALE, BEND) ** 2 for name, each in out.items()}
    shelf = np.repeat(np.arange(len(data.shelf_rank_logged)), np.diff(data.shelf_start()))[some]
    for who in ("logged", "target"):
        rank = out[f"log rank_{who}"] = _log_rank(getattr(data, f"rank_{who}")[some])
        out[f"square of log rank_{who}"] = rank**2
        out[f"log shelf_rank_{who}"] = _log_rank(getattr(data, f"shelf_rank_{who}"))[shelf]
    return out


def _log_rank(rank: Ranks) -> Floats:
    """log(1 + rank), from a table: there are few ranks and many cards."""
    out: Floats = np.log1p(np.arange(int(rank.max(initial=0)) + 1))[rank]
    return out


def fit_appeal(data: LoggedPages, seen: SeenCards, predictor: str = "stacked") -> Appeal:
    """Prediction and trust together, by turns: Newton steps of the regression given trust, then trust given prediction.

    Solves sum over seen cards of x (reward - trust q) = 0 for every feature x, row and column.
    """
    by_name = features(data, predictor)
    columns = np.stack([f[seen.card] for f in by_name.values()], axis=1)
    x = np.concatenate([np.ones((len(seen.card), 1)), columns], axis=1)
    start = np.zeros(x.shape[1])
    start[1:] = [1.0 if name.startswith("logit") and i == 0 else 0.0 for i, name in enumerate(by_name)]
    # A single model keeps its slope: only its level is fitted.
    free = np.ones(len(start), dtype=bool) if predictor == "stacked" else np.arange(len(start)) == 0
    beta = start.copy()
    row, column = np.ones(data.rows), np.ones(data.columns)
    predicted = x @ beta
    for _ in range(ROUNDS):
        before = np.concatenate([beta, row, column])
        trust = row[seen.row] * column[seen.column]
        beta = _newton(x, sigmoid(predicted), seen.reward, trust, beta, start, free)
        predicted = x @ beta
        row, column = position_trust(seen.row, seen.column, seen.reward, sigmoid(predicted), data.rows, data.columns)
        if np.abs(np.concatenate([beta, row, column]) - before).max() < 1e-7:
            break
    score = np.full(len(data.shelf), beta[0])
    for b, feature in zip(beta[1:], by_name.values(), strict=True):
        score += b * feature
    names = ("intercept", *by_name)
    fitted = len(by_name) if predictor == "stacked" else 0
    return Appeal(
        score,
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
