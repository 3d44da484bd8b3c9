"""Logs without propensities: fitted ones recover the truth where the record holds what moved the choice, else not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bart.ope import ESTIMATORS, LoggedChoices, estimate
from bart.ope.comparison.selection_choices import select_choices
from bart.ope.estimators.conclude import estimate_model_only
from bart.ope.models.fitted_propensities import FittedPropensities, fit_propensities, with_fitted_propensities

K = 3


def log(rng: np.random.Generator, n: int, hidden: float = 0.0) -> tuple[np.ndarray, LoggedChoices, np.ndarray, float]:
    """Context, the log with its true propensities, their pmf, and the value of always taking action 0.

    hidden: how strongly something that is not in the context moves both the choice of action 0 and the reward.
    """
    context, secret = rng.normal(size=(n, 2)), rng.normal(size=n)
    logit = np.stack([0.8 * context[:, 0] + hidden * secret, -0.5 * context[:, 1], np.zeros(n)], axis=1)
    pmf = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    action = (rng.random((n, 1)) > np.cumsum(pmf, axis=1)).sum(axis=1)
    chance = 1 / (1 + np.exp(-(-1.0 + context[:, 0] + hidden * secret + np.array([0.8, 0.0, -0.4])[action])))
    taken = 1 / (1 + np.exp(-(-1.0 + context[:, 0] + hidden * secret + 0.8)))
    reward = (rng.random(n) < chance).astype(float)
    target = np.zeros((n, K))
    target[:, 0] = 1.0
    data = LoggedChoices(reward, action, pmf[np.arange(n), action], target)
    return context, data, pmf, float(taken.mean())


def test_fitted_propensities_are_near_the_true_ones_and_out_of_fold() -> None:
    rng = np.random.default_rng(0)
    context, data, pmf, _ = log(rng, 4_000)
    fitted = fit_propensities(context, data.action, K, rng)
    np.testing.assert_allclose(fitted.pmf.sum(axis=1), 1.0)
    assert np.abs(fitted.pmf - pmf).mean() < 0.02
    assert fitted.log_loss < fitted.even_log_loss - 0.05
    assert fitted.clipped == 0


def test_the_value_is_recovered_within_the_interval_where_the_context_says_it_all() -> None:
    inside, errors = 0, []
    for seed in range(20):
        rng = np.random.default_rng([1, seed])
        context, data, _, truth = log(rng, 1_500)
        found = estimate("snips", with_fitted_propensities(data, context, rng))
        inside += found.lower <= truth <= found.upper
        errors.append(found.value - truth)
    assert inside >= 17
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(20)


def test_what_is_not_in_the_context_biases_the_value_and_nothing_shows_it() -> None:
    rng = np.random.default_rng(2)
    context, data, _, truth = log(rng, 6_000, hidden=1.0)
    true = estimate("snips", data)
    assert true.lower <= truth <= true.upper
    wrong = estimate("snips", with_fitted_propensities(data, context, rng))
    assert wrong.lower > truth  # listeners who would stream anyway were shown action 0
    assert abs(wrong.mean_weight - 1) < 0.1  # the diagnostics are content


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "dm"])
def test_every_estimate_says_first_that_propensities_were_estimated_and_none_is_conclusive(name: str) -> None:
    rng = np.random.default_rng(3)
    context, data, _, _ = log(rng, 1_000)
    data = with_fitted_propensities(replace(data, q_hat=np.full((1_000, K), 0.3)), context, rng)
    found = estimate(name, data)
    assert found.warnings[0].startswith("propensities were estimated, ")
    assert found.verdict != "conclusive"
    assert name in ESTIMATORS
    selection = select_choices({"a": data, "b": replace(data, target_pmf=np.full((1_000, K), 1 / K))}, rng)
    assert selection.warnings[0].startswith("propensities were estimated, ")


def test_clipped_propensities_are_counted() -> None:
    class Sure:
        """Certain of action 0 whatever it sees."""

        classes_ = np.array([0, 1])

        def fit(self, context: np.ndarray, action: np.ndarray) -> None:
            del context, action

        def predict_proba(self, context: np.ndarray) -> np.ndarray:
            return np.tile([1.0, 0.0], (len(context), 1))

    action = np.array([0, 1, 0, 1, 0, 0])
    fitted = fit_propensities(
        np.zeros((6, 1)), action, 2, np.random.default_rng(0), folds=2, classifier=Sure, least=0.01
    )
    assert fitted.clipped == 2
    assert fitted.propensity == pytest.approx(np.where(action == 1, 0.01, 1.0) / 1.01)
    assert "2 of 6 were below 0.01" in fitted.warning
    assert isinstance(fitted, FittedPropensities)


def test_users_stay_in_one_fold_and_a_fold_with_one_action_is_no_mistake() -> None:
    context, action = np.zeros((6, 1)), np.array([0, 0, 0, 0, 1, 1])
    user = np.array([0, 0, 0, 0, 1, 1])
    fitted = fit_propensities(context, action, 2, np.random.default_rng(0), folds=2, user=user)
    # Whoever took action 1 was fitted on the other user alone, who never did.
    assert fitted.clipped == 6


def test_a_model_alone_is_weak_and_says_so_first() -> None:
    q_hat, target = np.tile([0.2, 0.6], (50, 1)), np.tile([0.5, 0.5], (50, 1))
    found = estimate_model_only(np.zeros(50), target, q_hat)
    assert found.value == pytest.approx(0.4)
    assert found.verdict == "weak"
    assert found.warnings[0].startswith("the log has no propensities")
    with pytest.raises(ValueError, match="do not fit"):
        estimate_model_only(np.zeros(50), target, q_hat[:, :1])


def test_bad_inputs_are_named() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match=r"context\[1, 0\] is nan"):
        fit_propensities(np.array([[0.0], [np.nan]]), np.array([0, 1]), 2, rng, folds=2)
    with pytest.raises(ValueError, match=r"expected integers in \[0, 2\)"):
        fit_propensities(np.zeros((2, 1)), np.array([0, 2]), 2, rng, folds=2)
    with pytest.raises(ValueError, match="least is 0.9"):
        fit_propensities(np.zeros((2, 1)), np.array([0, 1]), 2, rng, folds=2, least=0.9)
