"""Rankings without replacement: enumerated worlds, and one contract for every policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from math import perm, prod

import numpy as np
import pytest
from scipy.stats import chisquare

from bart.ranking import (
    POLICIES,
    EpsilonGreedy,
    PlackettLuce,
    RankingPolicy,
    Uniform,
    choose,
    marginal_of_rank,
    marginal_table,
    marginals,
    min_rank,
)
from bart.ranking.swaps import Swaps
from bart.types import Floats

TIES = {
    "distinct": lambda n: np.array([0.3, 0.9, -0.2, 0.7, 0.1, 0.5])[:n],
    "two tied best": lambda n: np.array([0.9, 0.2, 0.9, 0.1, 0.5, 0.3])[:n],
    "pairs": lambda n: np.array([0.5, 0.5, 0.2, 0.2, 0.9, 0.9])[:n],
    "all tied": lambda n: np.zeros(n),
}
EPSILONS = [0.0, 0.1, 0.5, 1.0, (0.3, 0.0, 1.0, 0.2)]
CONTRACT: dict[str, RankingPolicy] = {
    "epsilon_greedy": EpsilonGreedy(0.3),
    "epsilon_greedy by position": EpsilonGreedy([0.1, 0.5, 0.9, 0.2, 1.0, 0.0]),
    "greedy": EpsilonGreedy(0),
    "uniform": Uniform(),
    "plackett_luce": PlackettLuce(0.4),
    "cold plackett_luce": PlackettLuce(1e-3),
    "swaps": Swaps(0.3),
    "swaps below the second place": Swaps([0.0, 0.0, 0.9, 0.4, 1.0, 0.2]),
}
every_policy = pytest.mark.parametrize("policy", CONTRACT.values(), ids=CONTRACT.keys())


def epsilon_greedy_orders(
    score: Floats, k: int, epsilon: tuple[float, ...], taken: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Every order and its conditionals, straight from the definition."""
    if len(taken) == min(k, len(score)):
        yield taken, []
        return
    left = [a for a in range(len(score)) if a not in taken]
    top = max(score[a] for a in left)
    best = [a for a in left if score[a] == top]
    rate = epsilon[len(taken)]
    for a in left:
        p = rate / len(left) + ((1 - rate) / len(best) if a in best else 0)
        for order, rest in epsilon_greedy_orders(score, k, epsilon, (*taken, a)):
            yield order, [p, *rest]


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("ties", TIES)
def test_epsilon_greedy_marginals_and_propensities_equal_full_enumeration(
    epsilon: float | tuple[float, ...], ties: str
) -> None:
    policy = EpsilonGreedy(epsilon)
    rates = epsilon if isinstance(epsilon, tuple) else (epsilon,) * 4
    for n in range(1, 7):
        score = TIES[ties](n)
        for k in range(1, 5):
            marginal = np.zeros((n, k))
            total = 0.0
            for order, conditional in epsilon_greedy_orders(score, k, rates):
                joint = prod(conditional)
                total += joint
                marginal[list(order), range(len(order))] += joint
                if k == 4 or n <= 4:
                    found = policy.propensity(score, np.array(order))
                    np.testing.assert_allclose(found, conditional, rtol=0, atol=1e-12)
            assert total == pytest.approx(1, abs=1e-12)
            np.testing.assert_allclose(policy.marginal(score, k), marginal, rtol=0, atol=1e-12)


@every_policy
@pytest.mark.parametrize("ties", TIES)
def test_the_joint_over_all_orders_is_a_distribution_with_the_stated_marginals(
    policy: RankingPolicy, ties: str
) -> None:
    for n, k in [(1, 1), (3, 5), (5, 3), (6, 4)]:
        score = TIES[ties](n)
        marginal, total = np.zeros((n, k)), 0.0
        for order in permutations(range(n), min(k, n)):
            joint = float(np.prod(policy.propensity(score, np.array(order))))
            total += joint
            marginal[list(order), range(len(order))] += joint
        assert total == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(policy.marginal(score, k), marginal, rtol=0, atol=1e-12)


@every_policy
def test_a_pmf_sums_to_one_over_what_is_available_and_follows_a_reordering(policy: RankingPolicy) -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 7):
        score = np.round(rng.normal(size=n), 1)
        available = rng.random(n) < 0.7
        pmf = policy.pmf(score, available)
        assert pmf.sum() == pytest.approx(float(available.any()), abs=1e-12)
        assert np.all(pmf[~available] == 0)
        order = rng.permutation(n)
        np.testing.assert_allclose(policy.pmf(score[order], available[order]), pmf[order], rtol=0, atol=1e-15)


@every_policy
def test_the_propensity_of_a_drawn_order_is_recomputed_to_the_last_bit(policy: RankingPolicy) -> None:
    rng = np.random.default_rng(1)
    for n in (1, 2, 5, 40):
        score = np.round(rng.normal(size=n), 1)
        for k in (1, 3, 6):
            drawn = policy.rank(score, k, rng)
            assert len(drawn.order) == min(k, n) == len(set(drawn.order.tolist()))
            assert np.all(drawn.propensity > 0)
            np.testing.assert_array_equal(policy.propensity(score, drawn.order), drawn.propensity)
            available = np.ones(n, dtype=np.bool_)
            for action, p in zip(drawn.order, drawn.propensity, strict=True):
                assert policy.pmf(score, available)[action] == p
                available[action] = False


@every_policy
def test_the_same_seed_gives_the_same_order_and_takes_k_variates(policy: RankingPolicy) -> None:
    score = np.array([0.1, 0.4, 0.2])
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    np.testing.assert_array_equal(policy.rank(score, 5, first).order, policy.rank(score, 5, second).order)
    second = np.random.default_rng(3)
    second.random(5)
    assert first.random() == second.random()


@every_policy
def test_draws_match_the_joint_of_all_orders(policy: RankingPolicy) -> None:
    rng = np.random.default_rng(4)
    score = np.array([0.2, 0.9, 0.9, 0.4])
    orders = list(permutations(range(4), 2))
    expected = np.array([np.prod(policy.propensity(score, np.array(order))) for order in orders])
    place = {order: i for i, order in enumerate(orders)}
    n_draws = 4000
    drawn = np.bincount(
        [place[tuple(policy.rank(score, 2, rng).order.tolist())] for _ in range(n_draws)], minlength=len(orders)
    )
    possible = expected > 1e-12
    assert drawn[~possible].sum() == 0
    if possible.sum() > 1:
        assert chisquare(drawn[possible], n_draws * expected[possible]).pvalue > 1e-3


@every_policy
def test_an_empty_set_of_actions_gives_an_empty_ranking(policy: RankingPolicy) -> None:
    assert len(policy.rank(np.empty(0), 3, np.random.default_rng(0)).order) == 0
    assert policy.marginal(np.empty(0), 3).shape == (0, 3)
    assert policy.propensity(np.empty(0), np.empty(0, dtype=np.int64)).shape == (0,)


@every_policy
def test_bad_input_is_refused_by_name_place_and_expectation(policy: RankingPolicy) -> None:
    rng = np.random.default_rng(0)
    score = np.array([0.1, 0.2, 0.3])
    available = np.ones(3, dtype=np.bool_)
    bad = np.array([0.1, np.nan, 0.3])
    for call in (
        lambda: policy.rank(bad, 2, rng),
        lambda: policy.pmf(bad, available),
        lambda: policy.propensity(bad, np.array([0])),
        lambda: policy.marginal(bad, 2),
    ):
        with pytest.raises(ValueError, match=r"score\[1\] is nan; expected a finite number"):
            call()
    with pytest.raises(ValueError, match=r"score\[2\] is inf"):
        policy.rank(np.array([0, 1, np.inf]), 2, rng)
    with pytest.raises(ValueError, match=r"score has shape \(1, 3\)"):
        policy.rank(score[None], 2, rng)
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k is {k}; expected an integer >= 1"):
            policy.rank(score, k, rng)
        with pytest.raises(ValueError, match=f"k is {k}; expected an integer >= 1"):
            policy.marginal(score, k)
    with pytest.raises(ValueError, match=r"order\[2\] repeats action 1 of order\[0\]"):
        policy.propensity(score, np.array([1, 0, 1]))
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"order\[1\] is {wrong}; expected an action in \[0, 3\)"):
            policy.propensity(score, np.array([0, wrong]))
    with pytest.raises(ValueError, match="order has shape"):
        policy.propensity(score, np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"available has shape \(2,\)"):
        policy.pmf(score, available[:2])
    with pytest.raises(ValueError, match="available has shape .* expected .* bool"):
        policy.pmf(score, np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="position is -1"):
        policy.pmf(score, available, -1)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan")])
def test_epsilon_outside_zero_to_one_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"epsilon is {epsilon}; expected a number in \[0, 1\]"):
        EpsilonGreedy(epsilon)
    with pytest.raises(ValueError, match=rf"epsilon\[1\] is {epsilon}; expected a number in \[0, 1\]"):
        EpsilonGreedy([0.1, epsilon])


def test_fewer_epsilons_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon has 2 entries; expected at least 3"):
        EpsilonGreedy([0.1, 0.2]).rank(np.arange(4.0), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected a number or one a position"):
        EpsilonGreedy([])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is .*; expected a finite number > 0"):
        PlackettLuce(temperature)


def test_greedy_never_chooses_what_is_not_best_and_says_so_with_zero() -> None:
    score = np.array([0.1, 0.9, 0.5])
    greedy = EpsilonGreedy(0)
    assert greedy.rank(score, 3, np.random.default_rng(0)).order.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(greedy.propensity(score, np.array([0, 1, 2])), [0, 1, 1])
    np.testing.assert_array_equal(greedy.marginal(score, 2), [[0, 0], [1, 0], [0, 1]])


def test_epsilon_one_is_uniform_to_the_last_bit() -> None:
    score = np.random.default_rng(0).random(7)
    order = np.array([3, 0, 6])
    np.testing.assert_array_equal(EpsilonGreedy(1).propensity(score, order), Uniform().propensity(score, order))
    available = np.array([True, False, True, True, False, True, True])
    np.testing.assert_array_equal(EpsilonGreedy(1).pmf(score, available), Uniform().pmf(score, available))
    np.testing.assert_allclose(EpsilonGreedy(1).marginal(score, 4), Uniform().marginal(score, 4), atol=1e-15)


@pytest.mark.parametrize("policy", [Uniform(), EpsilonGreedy(0.5), PlackettLuce(1.0)])
def test_the_mean_of_one_over_the_joint_is_the_number_of_orders(policy: RankingPolicy) -> None:
    rng = np.random.default_rng(5)
    score = np.array([0.4, 0.1, 0.8, 0.8, 0.3])
    weight = np.array([1 / np.prod(policy.rank(score, 3, rng).propensity) for _ in range(3000)])
    error = weight.std() / np.sqrt(len(weight))
    assert abs(weight.mean() - perm(5, 3)) <= 4 * error + 1e-9


def test_marginals_of_many_actions_are_a_doubly_stochastic_part() -> None:
    table = marginal_table(862, 12, 0.2)
    np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-12)
    assert np.all(table.sum(axis=1) <= 1 + 1e-12)
    assert np.all((table >= 0) & (table <= 1))
    assert np.all(np.diff(table[:, 0]) <= 0)
    whole = marginal_table(20, 20, 0.3)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-12)


def test_tables_of_marginals_are_shared_and_read_only() -> None:
    assert marginal_table(9, 3, 0.25) is marginal_table(9, 3, [0.25, 0.25, 0.25])
    with pytest.raises(ValueError, match="read-only"):
        marginal_table(9, 3, 0.25)[0, 0] = 1.0


def test_policies_compare_by_value_and_stand_in_one_table() -> None:
    assert EpsilonGreedy(np.array([0.1, 0.2])) == EpsilonGreedy((0.1, 0.2))
    assert hash(EpsilonGreedy([0.1])) == hash(EpsilonGreedy([0.1]))
    assert {type(policy) for policy in CONTRACT.values()} == set(POLICIES.values())


def test_plackett_luce_marginals_are_refused_beyond_enumeration_and_estimated_with_their_error() -> None:
    policy = PlackettLuce(0.5)
    with pytest.raises(ValueError, match="use marginal_estimate"):
        policy.marginal(np.zeros(100), 10)
    score = np.random.default_rng(6).normal(size=8)
    exact = policy.marginal(score, 4)
    estimate = policy.marginal_estimate(score, 4, np.random.default_rng(7), n_draws=4000)
    assert estimate.standard_error.shape == exact.shape
    np.testing.assert_array_less(np.abs(estimate.marginal - exact), 4.5 * estimate.standard_error + 1e-12)
    assert np.all(estimate.standard_error[:, 0] < 1e-9)  # the first position is known without drawing
    assert np.all(estimate.standard_error[:, 1:].max(axis=0) > 0)


def test_plackett_luce_holds_for_scores_far_apart() -> None:
    policy = PlackettLuce(1e-3)
    score = np.array([1e6, -1e6, 0.0])
    np.testing.assert_array_equal(policy.propensity(score, np.array([0, 2, 1])), [1, 1, 1])
    np.testing.assert_array_equal(policy.marginal(score, 3), np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]))


def test_inversion_never_chooses_what_has_no_probability() -> None:
    pmf = np.array([0.0, 0.1, 0.0, 0.2, 0.6999999, 0.0])
    assert choose(pmf, 0.0) == 1
    assert choose(pmf, 0.1) == 3
    assert choose(pmf, np.nextafter(1.0, 0.0)) == 4


S = np.array([0.1, 0.5, 0.3])
RNG = np.random.default_rng(0)
FREE = np.ones(3, dtype=np.bool_)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EpsilonGreedy(0.1).rank(S, None, RNG), "k is None; expected an integer >= 1"),  # type: ignore[arg-type]
        (lambda: EpsilonGreedy(0.1).rank(S, [1, 2], RNG), r"k is \[1, 2\]"),  # type: ignore[arg-type]
        (lambda: Uniform().rank(S, np.inf, RNG), "k is inf"),  # type: ignore[arg-type]
        (lambda: Uniform().rank(S, np.nan, RNG), "k is nan"),  # type: ignore[arg-type]
        (lambda: EpsilonGreedy(0.1).pmf(S, FREE, 1.5), "position is 1.5; expected an integer >= 0"),  # type: ignore[arg-type]
        (lambda: EpsilonGreedy(0.1).pmf(S, FREE, True), "position is True"),
        (lambda: Uniform().rank(0.5, 1, RNG), r"score has shape \(\)"),  # type: ignore[arg-type]
        (lambda: Uniform().rank(FREE, 1, RNG), "score has shape .* type bool; expected real numbers"),  # type: ignore[arg-type]
        (lambda: Uniform().rank(S + 1j, 1, RNG), "type complex128; expected real numbers"),
        (lambda: Uniform().rank(["a"], 1, RNG), "score has shape"),  # type: ignore[arg-type]
        (lambda: EpsilonGreedy(1 + 0j), r"epsilon is \(1\+0j\); expected real numbers"),  # type: ignore[arg-type]
        (lambda: PlackettLuce(None), "temperature is None; expected a finite number > 0"),  # type: ignore[arg-type]
        (lambda: PlackettLuce("x"), "temperature is 'x'"),  # type: ignore[arg-type]
        (lambda: marginal_table(2.5, 2, 0.1), "n is 2.5; expected an integer >= 0"),  # type: ignore[arg-type]
        (lambda: min_rank(S, [0, 1.7, 3]), "offset has shape .* expected integers"),  # type: ignore[arg-type]
        (lambda: marginal_of_rank(np.array([9, 1, 2]), np.ones(3, int), [0, 3], 2, 0.1), r"rank\[0\] is 9 with tie 1"),  # type: ignore[arg-type]
        (lambda: marginal_of_rank(np.array([0, 1]), np.array([1, 9]), [0, 2], 2, 0.1), r"rank\[1\] is 1 with tie 9"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_type_are_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_whole_float_counts_as_an_integer() -> None:
    drawn = EpsilonGreedy(0.1).rank(S, 3.0, np.random.default_rng(1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(drawn.order, EpsilonGreedy(0.1).rank(S, 3, np.random.default_rng(1)).order)


@pytest.mark.parametrize("temperature", [5e-324, 1.0, 1e308])
def test_extreme_scores_give_a_plackett_luce_pmf_without_a_warning(temperature: float) -> None:
    score = np.array([1.7e308, -1.7e308, 0.0])
    pmf = PlackettLuce(temperature).pmf(score, FREE)
    assert pmf.sum() == pytest.approx(1)
    assert np.all(np.diff(pmf[[1, 2, 0]]) >= 0)


def test_the_cache_of_marginal_tables_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = marginals._Tables()
    monkeypatch.setattr(marginals, "CACHE_BYTES", 20_000)
    first = tables.get(100, 5, (0.1,) * 5)
    assert tables.get(100, 5, (0.1,) * 5) is first
    for n in range(101, 130):
        tables.get(n, 5, (0.1,) * 5)
        assert 0 < tables.size <= 20_000
    again = tables.get(100, 5, (0.1,) * 5)
    assert again is not first
    np.testing.assert_array_equal(again, first)
    before = tables.size
    tables.get(5000, 5, (0.1,) * 5)  # larger than all the room there is
    assert tables.size == before
