"""Ridge and logistic regression: what predicts rewards and propensities where no other model is given.

Fitted to the same objectives as scikit-learn's Ridge(), LogisticRegression() and StandardScaler(): a penalty of half
the squared weights, none on the intercept; tests hold the two side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bart.types import Floats

PENALTY = 1.0
MAX_STEPS = 1_000
_GRADIENT = 1e-4  # largest part of the gradient of the mean loss at which a fit ends


class Ridge:
    """Least squares with a penalty on the weights."""

    def fit(self, features: Floats, target: Floats, sample_weight: Floats | None = None) -> Ridge:
        """features [n, d], target [n], sample_weight [n] >= 0; solved exactly."""
        weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        centre, level = np.average(features, axis=0, weights=weight), np.average(target, weights=weight)
        x = features - centre
        gram = (x * weight[:, None]).T @ x + PENALTY * np.eye(x.shape[1])
        self.coef_ = np.linalg.solve(gram, x.T @ (weight * (target - level)))
        self.intercept_ = float(level - centre @ self.coef_)
        return self

    def predict(self, features: Floats) -> Floats:
        """[n]."""
        return np.asarray(features @ self.coef_ + self.intercept_)


class Logistic:
    """Logistic regression of two classes, multinomial of more; standardise: on features of mean 0 and variance 1."""

    def __init__(self, standardise: bool = False) -> None:
        self._standardise = standardise

    def fit(self, features: Floats, target: Any, sample_weight: Floats | None = None) -> Logistic:
        """features [n, d], target [n] of two classes or more, sample_weight [n] >= 0; by L-BFGS from weights of 0."""
        from scipy.optimize import minimize

        self.classes_, label = np.unique(target, return_inverse=True)
        self._centre, self._scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if self._standardise:
            self._centre, deviation = features.mean(axis=0), features.std(axis=0)
            self._scale = np.where(deviation > 0, deviation, 1.0)
        x = (features - self._centre) / self._scale
        weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        total = weight.sum()
        # Two classes need one score, more have one each.
        scores = 1 if len(self.classes_) == 2 else len(self.classes_)
        hit = (label[:, None] == (np.arange(scores) if scores > 1 else [1])).astype(np.float64)

        def loss(flat: Floats) -> tuple[float, Floats]:
            w = flat.reshape(scores, -1)
            score = x @ w[:, :-1].T + w[:, -1]
            share = _shares(score)
            each = np.logaddexp(0.0, score[:, 0]) if scores == 1 else _log_sum(score)
            each = each - (hit * score).sum(axis=1)
            slope = (share - hit) * (weight / total)[:, None]
            gradient = np.column_stack([slope.T @ x + PENALTY / total * w[:, :-1], slope.sum(axis=0)])
            return float(each @ weight / total + PENALTY / (2 * total) * (w[:, :-1] ** 2).sum()), gradient.ravel()

        options = {"maxiter": MAX_STEPS, "maxls": 50, "gtol": _GRADIENT, "ftol": 64 * np.finfo(float).eps}
        found = minimize(loss, np.zeros(scores * (x.shape[1] + 1)), jac=True, method="L-BFGS-B", options=options)
        fitted = found.x.reshape(scores, -1)
        self.coef_, self.intercept_ = fitted[:, :-1], fitted[:, -1]
        return self

    def predict_proba(self, features: Floats) -> Floats:
        """[n, classes], in the order of `classes_`."""
        share = _shares((features - self._centre) / self._scale @ self.coef_.T + self.intercept_)
        return np.column_stack([1 - share, share]) if share.shape[1] == 1 else share


def _shares(score: Floats) -> Floats:
    from scipy.special import expit

    if score.shape[1] == 1:
        return np.asarray(expit(score))
    raised = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _log_sum(score: Floats) -> Floats:
    highest = score.max(axis=1)
    return np.asarray(highest + np.log(np.exp(score - highest[:, None]).sum(axis=1)))
