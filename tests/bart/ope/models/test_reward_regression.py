"""Out-of-fold reward predictions."""

from __future__ import annotations

import numpy as np
import pytest

from bart.ope import LoggedChoices, estimate
from bart.ope.models.reward_regression import cross_fit, fold_of


class Memory:
    """A regressor that remembers the mean reward of its rows, and how often it was fitted on which."""

    fitted: list[np.ndarray]

    def __init__(self, fitted: list[np.ndarray]) -> None:
        self.fitted = fitted

    def fit(self, features: np.ndarray, reward: np.ndarray) -> None:
        self.fitted.append(features[:, 0].astype(int))
        self.mean = reward.mean()

    def predict(self, features: np.ndarray) -> np.ndarray:
        assert not set(features[:, 0].astype(int)) & set(self.fitted[-1])
        return np.full(len(features), self.mean)


def test_no_row_is_predicted_by_a_model_that_saw_its_user() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(20), 5)
    fitted: list[np.ndarray] = []
    q_hat = cross_fit(
        user[:, None].astype(float),  # the feature is the user, so the regressor above can check
        rng.integers(0, 3, 100),
        rng.random(100),
        3,
        rng,
        folds=4,
        user=user,
        regressor=lambda: Memory(fitted),
    )
    assert q_hat.shape == (100, 3)
    assert len(fitted) == 4


def test_folds_are_balanced_and_reproducible() -> None:
    first, second = (fold_of(101, 5, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.ptp(np.bincount(first)) <= 1
    with pytest.raises(ValueError, match="folds is 1; expected 2 to 101"):
        fold_of(101, 1, np.random.default_rng(1))


def log(rng: np.random.Generator, n: int = 3_000) -> tuple[np.ndarray, LoggedChoices, np.ndarray]:
    context = rng.normal(size=(n, 2))
    truth = 1 / (1 + np.exp(-np.stack([context[:, 0], -context[:, 0], 0 * context[:, 0]], axis=1)))
    action = rng.integers(0, 3, n)
    reward = (rng.random(n) < truth[np.arange(n), action]).astype(float)
    target = 0.9 * np.eye(3)[truth.argmax(axis=1)] + 0.1 / 3
    return context, LoggedChoices(reward, action, np.full(n, 1 / 3), target), truth


def test_the_default_model_finds_what_context_does_to_each_action() -> None:
    rng = np.random.default_rng(2)
    context, data, truth = log(rng)
    crossed = cross_fit(context, data.action, data.reward, 3, rng)
    plain = cross_fit(context, data.action, data.reward, 3, rng, crossed=False)
    assert np.abs(crossed - truth).mean() < 0.05
    assert np.abs(plain - truth).mean() > 0.1  # without crosses all actions rise and fall together


def test_a_good_model_narrows_the_interval() -> None:
    rng = np.random.default_rng(3)
    context, data, truth = log(rng)
    q_hat = cross_fit(context, data.action, data.reward, 3, rng)
    doubly = estimate("dr", LoggedChoices(data.reward, data.action, data.propensity, data.target_pmf, q_hat), "normal")
    plain = estimate("ips", data, "normal")
    value = float((data.target_pmf * truth).sum(axis=1).mean())
    assert doubly.width < 0.8 * plain.width
    assert doubly.lower < value < doubly.upper
    robust = estimate("mrdr", data, "normal", rng=rng, context=context)
    assert robust.lower < value < robust.upper


def test_rewards_without_any_click_predict_none() -> None:
    rng = np.random.default_rng(4)
    q_hat = cross_fit(np.ones((30, 1)), np.arange(30) % 2, np.zeros(30), 2, rng)
    np.testing.assert_array_equal(q_hat, np.zeros((30, 2)))


def test_bad_features_are_refused_with_the_place() -> None:
    rng = np.random.default_rng(5)
    context = np.ones((4, 2))
    context[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"context\[2, 1\] is nan"):
        cross_fit(context, np.zeros(4, int), np.ones(4), 2, rng)
    with pytest.raises(ValueError, match="action_context has shape"):
        cross_fit(np.ones((4, 2)), np.zeros(4, int), np.ones(4), 2, rng, action_context=np.ones((3, 1)))
