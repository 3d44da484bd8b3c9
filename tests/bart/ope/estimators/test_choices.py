"""What estimators of single choices equal in known cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bart.ope import ESTIMATORS, LoggedChoices, estimate
from bart.ope.estimators.choices import RECOMMENDED
from bart.types import Floats

K = 4
PARAMETERS: dict[str, dict[str, Any]] = {
    "clipped_ips": {"cap": 3.0},
    "ncis": {"cap": 3.0},
    "switch_dr": {"tau": 3.0},
    "dros": {"lam": 5.0},
    "sg_ips": {"lam": 0.1},
    "sg_dr": {"lam": 0.1},
    "mips": {"embedding": np.array([0, 0, 1, 2])},
    "offcem": {"cluster": np.array([0, 0, 1, 2])},
}


def pmfs(rng: np.random.Generator, n: int) -> Floats:
    return rng.dirichlet(np.full(K, 2.0), n)


def log(n: int = 400, seed: int = 0) -> tuple[LoggedChoices, Floats]:
    """A seeded log and the logging pmf [n, K]."""
    rng = np.random.default_rng(seed)
    logging, target = 0.9 * pmfs(rng, n) + 0.1 / K, pmfs(rng, n)
    action = np.array([rng.choice(K, p=p) for p in logging])
    reward = (rng.random(n) < 0.2 + 0.15 * action).astype(float)
    q_hat = np.clip(0.2 + 0.15 * np.arange(K) + 0.1 * rng.normal(size=(n, K)), 0, 1)
    return LoggedChoices(reward, action, logging[np.arange(n), action], target, q_hat), logging


def run(name: str, data: LoggedChoices, logging: Floats, **changes: Any) -> float:
    parameters = {**PARAMETERS.get(name, {}), **changes}
    if name in ("mips", "offcem"):
        parameters["logging_pmf"] = logging
    if name == "mrdr":
        rng = np.random.default_rng(3)
        parameters |= {"context": np.ones((len(data), 1)), "rng": rng}
    return ESTIMATORS[name](data, **parameters).value()


def test_every_estimator_of_the_table_has_an_interval_around_finite_numbers() -> None:
    data, logging = log()
    for name in ESTIMATORS:
        parameters = dict(PARAMETERS.get(name, {}))
        if name in ("mips", "offcem"):
            parameters["logging_pmf"] = logging
        if name == "mrdr":
            parameters["context"] = np.ones((len(data), 1))
        found = estimate(name, data, rng=np.random.default_rng(0), **parameters)
        assert 0 <= found.lower < found.upper <= 1
        assert (found.n, found.name, found.level) == (400, name, 0.95)
        assert 0 < found.effective_sample_size <= 400 + 1e-9
        assert type(found.lower) is float
    assert set(RECOMMENDED) < set(ESTIMATORS)


@pytest.mark.parametrize("name", ["ips", "snips", "clipped_ips", "ncis", "sg_ips", "mips"])
def test_equal_policies_give_the_mean_reward(name: str) -> None:
    data, logging = log()
    same = replace(data, target_pmf=logging)
    assert run(name, same, logging) == pytest.approx(data.reward.mean(), abs=1e-12)


def test_a_constant_reward_is_what_self_normalised_estimators_return() -> None:
    data, logging = log()
    constant = replace(data, reward=np.full(len(data), 0.37))
    assert run("snips", constant, logging) == pytest.approx(0.37, abs=1e-12)
    assert run("ncis", constant, logging) == pytest.approx(0.37, abs=1e-12)


@pytest.mark.parametrize(
    ("shrunk", "changes", "plain"),
    [
        ("clipped_ips", {"cap": np.inf}, "ips"),
        ("ncis", {"cap": np.inf}, "snips"),
        ("switch_dr", {"tau": np.inf}, "dr"),
        ("switch_dr", {"tau": 0.0}, "dm"),
        ("dros", {"lam": np.inf}, "dr"),
        ("dros", {"lam": 0.0}, "dm"),
        ("sg_ips", {"lam": 0.0}, "ips"),
        ("sg_dr", {"lam": 0.0}, "dr"),
        ("mips", {"embedding": np.arange(K)}, "ips"),
        ("offcem", {"cluster": np.arange(K)}, "dr"),
        ("offcem", {"cluster": np.zeros(K, dtype=int)}, None),
    ],
)
def test_the_ends_of_a_parameter_are_known_estimators(shrunk: str, changes: dict[str, Any], plain: str | None) -> None:
    data, logging = log()
    found = run(shrunk, data, logging, **changes)
    if plain is not None:
        assert found == pytest.approx(run(plain, data, logging), abs=1e-12)
    else:  # one cluster for all: the correction is the model's mean error on the log
        q = data.q_hat
        assert q is not None
        error = (data.reward - q[np.arange(len(data)), data.action]).mean()
        assert found == pytest.approx(run("dm", data, logging) + error, abs=1e-12)


def test_a_model_of_zero_leaves_doubly_robust_estimators_importance_sampling() -> None:
    data, logging = log()
    blank = replace(data, q_hat=np.zeros((len(data), K)))
    assert run("dr", blank, logging) == pytest.approx(run("ips", blank, logging), abs=1e-12)
    assert run("sndr", blank, logging) == pytest.approx(run("snips", blank, logging), abs=1e-12)


def test_a_perfect_model_leaves_doubly_robust_the_variance_of_the_value() -> None:
    data, _ = log()
    rng = np.random.default_rng(5)
    truth = rng.random((len(data), K))
    noiseless = replace(data, reward=truth[np.arange(len(data)), data.action], q_hat=truth)
    rows = ESTIMATORS["dr"](noiseless).influence()
    np.testing.assert_allclose(rows, (noiseless.pmf() * truth).sum(axis=1), atol=1e-12)


def test_reordering_the_actions_changes_nothing() -> None:
    data, logging = log()
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    assert data.q_hat is not None
    moved = LoggedChoices(
        data.reward, place[data.action], data.propensity, data.target_pmf[:, order], data.q_hat[:, order]
    )
    for name in ("dm", "ips", "snips", "dr", "sndr", "switch_dr", "dros", "sg_dr"):
        assert run(name, moved, logging[:, order]) == pytest.approx(run(name, data, logging), abs=1e-12)


@pytest.mark.parametrize("name", ["ips", "dr", "mips", "offcem"])
def test_the_enumerated_expectation_is_the_truth(name: str) -> None:
    """Two contexts, three actions, two rewards: every log of one row, weighed by its probability."""
    logging = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    target = np.array([[0.1, 0.2, 0.7], [0.4, 0.5, 0.1]])
    effect = np.array([[0.2, 0.2, 0.8], [0.6, 0.6, 0.1]])  # actions 0 and 1 are one category: mips holds
    # offcem needs the differences inside a cluster right: the model is off by a constant a cluster.
    q_hat = effect + np.array([[0.3, 0.3, -0.2], [-0.1, -0.1, 0.4]])
    category = np.array([0, 0, 1])
    expected = 0.0
    for context in range(2):
        for action in range(3):
            for reward in (0.0, 1.0):
                chance = effect[context, action] if reward else 1 - effect[context, action]
                row = LoggedChoices(
                    np.array([reward]),
                    np.array([action]),
                    logging[[context], [action]],
                    target[[context]],
                    q_hat[[context]],
                )
                extra: dict[str, Any] = {}
                if name in ("mips", "offcem"):
                    extra = {"logging_pmf": logging[[context]], "embedding" if name == "mips" else "cluster": category}
                expected += 0.5 * logging[context, action] * chance * ESTIMATORS[name](row, **extra).value()
    assert expected == pytest.approx((target * effect).sum(axis=1).mean(), abs=1e-12)


def test_positions_choose_their_own_pmf() -> None:
    data, _ = log(n=50)
    position = np.arange(50) % 2
    by_position = np.stack([data.target_pmf, data.target_pmf[:, ::-1]], axis=2)
    both = replace(data, target_pmf=by_position, position=position)
    picked = np.where((position == 0)[:, None], data.target_pmf, data.target_pmf[:, ::-1])
    for name in ("ips", "dm", "dr"):
        assert ESTIMATORS[name](both).value() == ESTIMATORS[name](replace(data, target_pmf=picked)).value()


def test_weights_of_categories_need_the_whole_logging_pmf() -> None:
    data, logging = log(n=20)
    with pytest.raises(ValueError, match="mips needs logging_pmf"):
        estimate("mips", data, embedding=np.arange(K))
    with pytest.raises(ValueError, match="expected the logged propensity"):
        estimate("offcem", data, cluster=np.arange(K), logging_pmf=np.full_like(logging, 0.25))
    with pytest.raises(ValueError, match="embedding has shape"):
        estimate("mips", data, embedding=np.arange(3), logging_pmf=logging)


def test_a_log_that_never_acts_like_the_target_has_no_self_normalised_value() -> None:
    data = LoggedChoices(np.ones(3), np.zeros(3, int), np.full(3, 0.5), np.tile([0.0, 1.0], (3, 1)))
    with pytest.raises(ValueError, match="weights sum to 0"):
        estimate("snips", data)
    assert estimate("ips", data).verdict == "unusable"


def test_what_an_embedding_or_a_cluster_leaves_out_is_said_and_not_conclusive() -> None:
    data, logging = log(n=3_000)
    coarse, own = np.arange(K) // 2, np.arange(K)
    for name, key, said in (("mips", "embedding", "whole effect"), ("offcem", "cluster", "within a cluster")):
        found = estimate(name, data, **{key: coarse, "logging_pmf": logging})
        assert found.verdict != "conclusive"
        assert any(said in w for w in found.warnings)
        each = estimate(name, data, **{key: own, "logging_pmf": logging})
        assert each.verdict == estimate("ips" if name == "mips" else "dr", data).verdict
        assert not any(said in w for w in each.warnings)


def test_one_row_cannot_be_predicted_from_others() -> None:
    one = LoggedChoices([1.0], [0], [0.5], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="the log has 1 row; expected at least 2"):
        estimate("mrdr", one, context=np.ones((1, 1)), rng=np.random.default_rng(0))
