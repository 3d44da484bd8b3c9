"""Logs that did not record propensities: fitted ones, or a model's predictions alone.

Fitted propensities are a classifier's guess at how the logging policy chose, from what was recorded of the context;
each row's by a model that has not seen it. They are right only if the record holds all that moved both the choice and
the reward: what was not recorded biases every estimate, no diagnostic can see it, and no amount of data helps. Hence
every estimate from such a record starts with a warning and is never called conclusive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.models.linear import Logistic
from bart.ope.models.reward_regression import checked_context, fold_of
from bart.ope.records.choices import LoggedChoices
from bart.types import Floats, Ints

LEAST_SHARE = 0.1  # of even chances: no fitted propensity is below this / number of actions


@dataclass(frozen=True, slots=True, eq=False)
class FittedPropensities:
    """propensity: [n] of the logged action; pmf: [n, k] of every action, out of fold, clipped below and summing to 1.

    least: where they were clipped; clipped: rows whose logged action was fitted below it. log_loss: mean of -log of the
    unclipped probability of the logged action; even_log_loss: of the actions' overall shares, what knows no context.
    """

    propensity: Floats
    pmf: Floats
    least: float
    clipped: int
    log_loss: float
    even_log_loss: float

    @property
    def warning(self) -> str:
        """What every estimate from these propensities must say first."""
        return (
            "propensities were estimated, not logged: whatever moved both choice and reward and is not in the context"
            f" biases the value unseen ({self.clipped:,} of {len(self.propensity):,} were below {self.least:.2g} and"
            " clipped)"
        )

    def record(
        self, reward: Floats, action: Ints, target_pmf: Any, q_hat: Any = None, position: Ints | None = None
    ) -> LoggedChoices:
        """A `LoggedChoices` with these propensities, of which every estimate carries the warning."""
        return LoggedChoices(reward, action, self.propensity, target_pmf, q_hat, position, (self.warning,))


def fit_propensities(
    context: Floats,
    action: Ints,
    n_actions: int,
    rng: np.random.Generator,
    *,
    folds: int = 5,
    user: NDArray[Any] | None = None,
    classifier: Callable[[], Any] | None = None,
    least: float | None = None,
) -> FittedPropensities:
    """The logging policy's pmf in each context, each row's by a model fitted on other rows (other users' rows).

    context: [n, d]. action: [n] int. user: [n]. classifier: makes a scikit-learn style classifier (fit, predict_proba,
    classes_); a multinomial logistic regression on standardised context where None. least: no probability is below it;
    a tenth of 1 / n_actions where None. Raises ValueError for another shape, and for numbers that are not finite.
    """
    action = np.asarray(action)
    n = len(action)
    if n == 0:
        raise ValueError(f"context has shape {np.shape(context)}; expected ({n}, d) with at least one row")
    context = checked_context(context, n)
    if action.dtype.kind not in "iu" or action.min() < 0 or action.max() >= n_actions:
        raise ValueError(f"action has type {action.dtype}; expected integers in [0, {n_actions})")
    floor = LEAST_SHARE / n_actions if least is None else float(least)
    if not 0 < floor <= 1 / n_actions:
        raise ValueError(f"least is {floor}; expected a number in (0, {1 / n_actions:.4g}], even chances at most")
    make = classifier or partial(Logistic, standardise=True)
    fold = fold_of(n, folds, rng, user)
    pmf = np.zeros((n, n_actions))
    for number in range(folds):
        held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        taken = np.unique(action[kept])
        if len(taken) == 1:  # a classifier refuses one class
            pmf[held, taken[0]] = 1.0
            continue
        model = make()
        model.fit(context[kept], action[kept])
        pmf[np.ix_(held, np.asarray(model.classes_, dtype=np.int64))] = model.predict_proba(context[held])
    row = np.arange(n)
    raw = pmf[row, action]
    pmf = np.maximum(pmf, floor)
    pmf /= pmf.sum(axis=1, keepdims=True)
    share = np.bincount(action, minlength=n_actions) / n
    return FittedPropensities(
        propensity=pmf[row, action],
        pmf=pmf,
        least=floor,
        clipped=int((raw < floor).sum()),
        log_loss=float(-np.log(np.maximum(raw, 1e-12)).mean()),
        even_log_loss=float(-np.log(share[action]).mean()),
    )


def with_fitted_propensities(
    data: LoggedChoices, context: Floats, rng: np.random.Generator, **options: Any
) -> LoggedChoices:
    """The record with fitted propensities in place of its own; options: of `fit_propensities`."""
    fitted = fit_propensities(context, data.action, data.n_actions, rng, **options)
    return replace(data, propensity=fitted.propensity, warnings=(fitted.warning, *data.warnings))
