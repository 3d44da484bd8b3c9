"""Predicted rewards of every action, each row by a model that has not seen it: the q_hat of doubly robust estimators.

`cross_fit` takes any scikit-learn style regressor and single choices, `cross_fit_pages` the project's reward model and
logged pages.

A model that was fitted on the row it corrects takes the row's own noise for signal, and the interval comes out too
short; fitting out of fold (Chernozhukov et al., 2018) prevents it. Rows of one user stay in one fold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bart.types import Floats, Ints, ItemTable, PageBatch

if TYPE_CHECKING:
    from bart.learning.training import TrainingConfig
    from bart.reward.model import RewardModel


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
    context = np.asarray(context, dtype=np.float64)
    n = len(reward)
    if context.ndim != 2 or len(context) != n:
        raise ValueError(f"context has shape {context.shape}; expected ({n}, d)")
    if not np.isfinite(context).all():
        row, column = np.argwhere(~np.isfinite(context))[0]
        raise ValueError(f"context[{row}, {column}] is {context[row, column]}; expected a finite number")
    about = np.eye(n_actions) if action_context is None else np.asarray(action_context, dtype=np.float64)
    if about.ndim != 2 or len(about) != n_actions:
        raise ValueError(f"action_context has shape {about.shape}; expected ({n_actions}, a)")
    if position is not None:
        context = np.concatenate([context, np.eye(int(position.max()) + 1)[position]], axis=1)
    binary = bool(np.isin(reward, (0.0, 1.0)).all())
    make = regressor or (lambda: _default(binary))
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


def _default(binary: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=1_000) if binary else Ridge()


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


def cross_fit_pages(
    batch: PageBatch,
    items: ItemTable,
    rng: np.random.Generator,
    *,
    folds: int = 3,
    config: TrainingConfig | None = None,
    base: RewardModel | None = None,
) -> Floats:
    """[N] reward predicted for every candidate in the first slot by the project's own reward model, out of fold.

    Each page's candidates are scored by a model trained on the pages of other listeners: the q_logged or q_target of
    `logged_pages` for policies that predict no rewards. config: how it is trained (its holdout is not used: all pages
    of the other folds are learnt from). base: a model to go on from, which must not have seen these pages; the prior
    where None. A candidate that is not in the item table has the mean reward of a seen card. Raises ValueError for
    fewer listeners than folds.
    """
    from dataclasses import replace

    from bart.learning.training import TrainingConfig, seen_cards, train
    from bart.reward.features import FeatureSchema
    from bart.reward.model import RewardConfig, RewardModel
    from bart.reward.scorer import Scorer

    if config is None:
        own = base.config if base is not None else RewardConfig(FeatureSchema(dimension=items.dimension))
        config = TrainingConfig(own)
    asked = replace(config, holdout=0.0)
    base = base or RewardModel.prior(asked.reward)
    fold = fold_of(len(batch), folds, rng, batch.user_id.astype(str))
    cards = seen_cards(batch)
    mean = float(batch.reward[cards.page, cards.row, cards.column].mean()) if len(cards) else 0.0
    out = np.full(len(batch.item), mean)
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    known = batch.item >= 0
    safe = replace(batch, item=np.maximum(batch.item, 0))
    for number in range(folds):
        held, others = np.flatnonzero(fold == number), [batch.take(np.flatnonzero(fold != number))]
        model = train(partial(list, others), items, asked, base=base).model
        score = Scorer.compile(model, items).score_batch(safe.take(held))
        rows = fold[page] == number
        out[rows] = np.where(known[rows], score, out[rows])
    return out
