"""Ridge and logistic regression agree with scikit-learn's, which the tests have and the program does without."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bart.ope.models.linear import Logistic, Ridge
from bart.types import Floats


def rows(n: int = 400, d: int = 6) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, d)) * [1, 5, 0.2, 1, 1, 1] + 2
    x[:, 5] = 1.0  # a constant column, as one-hot positions may have
    score = x @ [0.5, -0.2, 2.0, 0.0, -0.5, 0.0]
    return x, score + rng.normal(size=n), rng.uniform(0.1, 3, n)


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_the_one_of_scikit_learn(weighted: bool) -> None:
    x, y, weight = rows()
    told = weight if weighted else None
    theirs = linear_model.Ridge().fit(x, y, told)
    np.testing.assert_allclose(Ridge().fit(x, y, told).predict(x), theirs.predict(x), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_regression_is_the_one_of_scikit_learn(weighted: bool) -> None:
    x, y, weight = rows()
    label = (y > np.median(y)).astype(int)
    told = weight if weighted else None
    theirs = linear_model.LogisticRegression(max_iter=1_000).fit(x, label, told)
    np.testing.assert_allclose(Logistic().fit(x, label, told).predict_proba(x), theirs.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_standardised_features_are_those_of_the_pipeline(classes: int) -> None:
    x, y, _ = rows()
    label = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes)) + 10
    theirs = make_pipeline(StandardScaler(), linear_model.LogisticRegression(max_iter=1_000)).fit(x, label)
    ours = Logistic(standardise=True).fit(x, label)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)


def test_probabilities_sum_to_one_and_the_mean_prediction_is_the_mean_reward() -> None:
    x, y, _ = rows()
    found = Logistic().fit(x, y > 0).predict_proba(x)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found[:, 1].mean() == pytest.approx((y > 0).mean(), abs=1e-3)
