"""Predicted rewards of every action, each row by a model that has not seen it: the q_hat of doubly robust estimators.

`cross_fit` takes any scikit-learn style regressor and single choices, `cross_fit_candidates` whatever learns from pages
and predicts their candidates (`bart.learning.regression`: the project's reward model).

A model that was fitted on the row it corrects takes the row's own noise for signal, and the interval comes out too
short; fitting out of fold (Chernozhukov et al., 2018) prevents it. Rows of one user stay in one fold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.models.linear import Logistic, Ridge
from bart.types import Floats, Ints, PageBatch


def cross_fit(
    context: Floats,
    action: Ints,
    reward: Floats,
    n_actions: int,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    user: NDArray[Any] | None = None,
    position: Ints | None = None,
    action_context: Floats | None = None,
    sample_weight: Floats | None = None,
    regressor: Callable[[], Any] | None = None,
    crossed: bool = True,
) -> Floats:
    """q_hat [n, n_actions] for a `LoggedChoices`: each row's prediction for every action, at the row's position.

    context: [n, d]. action: [n] int. reward: [n]. user: [n], the user of each row. position: [n] int, one-hot in the
    features. action_context: [n_actions, a], features of the actions; one-hot where None. sample_weight: [n].
    regressor: makes a scikit-learn style regressor or classifier (fit, and predict or predict_proba); where None, a
    logistic regression for rewards of 0 and 1 and a ridge otherwise. crossed: also context x action features, without
    which a linear model ranks the actions alike in every context.
    """
    n = len(reward)
    context = checked_context(context, n)
    about = np.eye(n_actions) if action_context is None else np.asarray(action_context, dtype=np.float64)
    if about.ndim != 2 or len(about) != n_actions:
        raise ValueError(f"action_context has shape {about.shape}; expected ({n_actions}, a)")
    if position is not None:
        context = np.concatenate([context, np.eye(int(position.max()) + 1)[position]], axis=1)
    binary = bool(np.isin(reward, (0.0, 1.0)).all())
    make = regressor or (Logistic if binary else Ridge)
    fold = fold_of(n, folds, rng, user)
    q_hat = np.empty((n, n_actions))
    for number in range(folds):
        held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        seen = reward[kept]
        if seen.min() == seen.max():  # a classifier refuses one class; there is nothing to learn but the constant
            q_hat[held] = seen[0]
            continue
        model = make()
        weight = None if sample_weight is None else sample_weight[kept]
        _fit(model, _design(context[kept], about[action[kept]], crossed), seen, weight)
        for a in range(n_actions):
            features = _design(context[held], np.broadcast_to(about[a], (len(held), about.shape[1])), crossed)
            q_hat[held, a] = _predict(model, features)
    return q_hat


def cross_fit_candidates(
    batch: PageBatch,
    fit: Callable[[PageBatch], Callable[[PageBatch], Floats]],
    rng: np.random.Generator,
    folds: int,
) -> Floats:
    """[N] prediction for every candidate of a batch, by what `fit` made of the pages of other listeners.

    fit: learns from pages and returns what gives each candidate of other pages a number. Raises ValueError for fewer
    listeners than folds.
    """
    fold = fold_of(len(batch), folds, rng, batch.user_id.astype(str))
    of_candidate = np.repeat(fold, np.diff(batch.offset))
    out = np.empty(len(batch.item))
    for number in range(folds):
        predict = fit(batch.take(np.flatnonzero(fold != number)))
        out[of_candidate == number] = predict(batch.take(np.flatnonzero(fold == number)))
    return out


def checked_context(context: Floats, n: int) -> Floats:
    """[n, d] float64. Raises ValueError for another shape, and for numbers that are not finite."""
    context = np.asarray(context, dtype=np.float64)
    if context.ndim != 2 or len(context) != n:
        raise ValueError(f"context has shape {context.shape}; expected ({n}, d)")
    if not np.isfinite(context).all():
        row, column = np.argwhere(~np.isfinite(context))[0]
        raise ValueError(f"context[{row}, {column}] is {context[row, column]}; expected a finite number")
    return context


def fold_of(n: int, folds: int, rng: np.random.Generator, user: NDArray[Any] | None = None) -> Ints:
    """[n] fold of each row, balanced and random; all rows of one user in one fold."""
    if user is None:
        number, groups = np.arange(n), n
    else:
        distinct, number = np.unique(np.asarray(user), return_inverse=True)
        groups = len(distinct)
    if groups < 2:
        what = "row" if user is None else "user"
        raise ValueError(f"the log has {groups} {what}; expected at least 2, to predict each from others")
    if not 2 <= folds <= groups:
        raise ValueError(
            f"folds is {folds}; expected 2 to {groups}, the number of {'rows' if user is None else 'users'}"
        )
    return np.asarray((rng.permutation(groups) % folds)[number])


def _design(context: Floats, about: Floats, crossed: bool) -> Floats:
    parts = [context, about]
    if crossed:
        parts.append((context[:, :, None] * about[:, None, :]).reshape(len(context), -1))
    return np.concatenate(parts, axis=1)


def _fit(model: Any, features: Floats, reward: Floats, weight: Floats | None) -> None:
    target = reward.astype(np.int64) if hasattr(model, "predict_proba") else reward
    if weight is None:
        model.fit(features, target)
    else:
        model.fit(features, target, sample_weight=weight)


def _predict(model: Any, features: Floats) -> Floats:
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(features))[:, 1]
    return np.asarray(model.predict(features), dtype=np.float64)
