"""Logs with a known truth for the coverage study: each cell draws one log from a generator, and says what is true.

Where a cell is faulty on purpose (propensities, support, drift), `sound` is False: what counts is how rarely its
verdict is "conclusive".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bart.ope import LoggedChoices

ACTIONS, CONTEXTS = 50, 1_000
LOG_EPSILON, TARGET_EPSILON = 0.1, 0.05
Floats = NDArray[np.float64]
Drawn = tuple[LoggedChoices, float, dict[str, Any]]  # the log, the truth, options of the estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """draw: one log from a generator and the seed of its world. estimator: evaluated with its default interval."""

    draw: Callable[[np.random.Generator, int], Drawn]
    estimator: str = "snips"
    sound: bool = True


def pmf(greedy: NDArray[np.int64], epsilon: float, actions: int = ACTIONS) -> Floats:
    out = np.full((len(greedy), actions), epsilon / actions)
    out[np.arange(len(greedy)), greedy] += 1 - epsilon
    return out


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """mean: [contexts, actions] click probability. logged, target: [contexts] greedy actions. truth: the value."""

    mean: Floats
    logged: NDArray[np.int64]
    target: NDArray[np.int64]
    truth: float


def make_world(difference: float, rng: np.random.Generator) -> World:
    """difference: share of contexts in which the two greedy actions differ."""
    mean = rng.uniform(0.05, 0.15, (CONTEXTS, ACTIONS))
    logged = rng.integers(0, ACTIONS, CONTEXTS)
    other = (logged + rng.integers(1, ACTIONS, CONTEXTS)) % ACTIONS
    target = np.where(np.arange(CONTEXTS) < difference * CONTEXTS, other, logged)
    mean[np.arange(CONTEXTS), target] = rng.uniform(0.1, 0.3, CONTEXTS)
    return World(mean, logged, target, float((pmf(target, TARGET_EPSILON) * mean).sum(axis=1).mean()))


@cache
def table_a_world(difference: float, seed: int) -> World:
    return make_world(difference, np.random.default_rng([seed, int(100 * difference)]))


def table_a(rng: np.random.Generator, seed: int, n: int, difference: float) -> Drawn:
    world = table_a_world(difference, seed)
    context = rng.integers(0, CONTEXTS, n)
    greedy = world.logged[context]
    action = np.where(rng.random(n) < LOG_EPSILON, rng.integers(0, ACTIONS, n), greedy)
    propensity = LOG_EPSILON / ACTIONS + (1 - LOG_EPSILON) * (action == greedy)
    reward = (rng.random(n) < world.mean[context, action]).astype(float)
    return LoggedChoices(reward, action, propensity, pmf(world.target[context], TARGET_EPSILON)), world.truth, {}


def arms(
    rng: np.random.Generator,
    seed: int,  # noqa: ARG001
    n: int,
    truth: float,
    *,
    actions: int = ACTIONS,
    epsilon: float = LOG_EPSILON,
    rate: float = 0.14,
    target: float = 1.0,
    recorded: float = 1.0,
) -> Drawn:
    """An epsilon-greedy log of fixed arms; the evaluation policy takes arm 1 with probability `target`, else any.

    recorded: recorded propensities over the true ones.
    """
    mean = np.full(actions, rate)
    mean[1] = truth
    action = np.where(rng.random(n) < epsilon, rng.integers(0, actions, n), 0)
    propensity = np.where(action == 0, 1 - epsilon + epsilon / actions, epsilon / actions)
    reward = (rng.random(n) < mean[action]).astype(float)
    wanted = np.full((1, actions), (1 - target) / actions)
    wanted[0, 1] += target
    data = LoggedChoices(reward, action, np.minimum(propensity * recorded, 1.0), np.broadcast_to(wanted, (n, actions)))
    return data, float(wanted[0] @ mean), {}


def two_weights(rng: np.random.Generator, seed: int, n: int, truth: float) -> Drawn:  # noqa: ARG001
    """Weights of 0 and 50."""
    heavy = rng.random(n) < 0.02
    reward = (rng.random(n) < truth).astype(float)
    pmf_1 = np.broadcast_to(np.array([[0.0, 1.0]]), (n, 2))
    return LoggedChoices(reward, heavy.astype(int), np.where(heavy, 0.02, 0.98), pmf_1), truth, {}


@cache
def softmax_truth(temperature: float) -> float:
    x = np.random.default_rng(1).normal(size=(400_000, 20))
    wanted = np.exp(-temperature * x)
    return float((wanted / wanted.sum(axis=1, keepdims=True) / (1 + np.exp(2 - x))).sum(axis=1).mean())


def softmax(rng: np.random.Generator, seed: int, n: int, temperature: float) -> Drawn:  # noqa: ARG001
    """Continuous weights: contexts move both policies, in opposite directions."""
    x = rng.normal(size=(n, 20))
    logged = np.exp(0.5 * x)
    logged /= logged.sum(axis=1, keepdims=True)
    wanted = np.exp(-temperature * x)
    wanted /= wanted.sum(axis=1, keepdims=True)
    action = np.minimum((logged.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), 19)
    row = np.arange(n)
    reward = (rng.random(n) < 1 / (1 + np.exp(2 - x[row, action]))).astype(float)
    return LoggedChoices(reward, action, logged[row, action], wanted), softmax_truth(temperature), {}


def heavy_tails(rng: np.random.Generator, seed: int, n: int) -> Drawn:  # noqa: ARG001
    """Lognormal rewards cut at 20 times their median, whose range is given."""
    action = rng.integers(0, 4, n)
    reward = np.minimum(np.exp(rng.normal(0, 1.5, n)), 20.0)
    wanted = np.broadcast_to(np.array([[0.1, 0.1, 0.1, 0.7]]), (n, 4))
    return LoggedChoices(reward, action, np.full(n, 0.25), wanted), _cut_lognormal(), {"reward_range": (0.0, 20.0)}


@cache
def _cut_lognormal() -> float:
    """The mean of min(exp(1.5 z), 20), z standard normal."""
    s, cut = 1.5, np.log(20.0)
    return float(np.exp(s**2 / 2) * ndtr(cut / s - s) + 20.0 * ndtr(-cut / s))


def clustered(rng: np.random.Generator, seed: int, users: int, *, named: bool, shuffled: bool = False) -> Drawn:  # noqa: ARG001
    """20 rows of each user, whose rates differ; in the order of users unless shuffled."""
    user = np.repeat(np.arange(users), 20)
    if shuffled:
        user = rng.permutation(user)
    reward = (rng.random(len(user)) < rng.beta(1, 3, users)[user]).astype(float)
    action = rng.integers(0, 2, len(user))
    wanted = np.broadcast_to(np.array([[0.3, 0.7]]), (len(user), 2))
    data = LoggedChoices(reward, action, np.full(len(user), 0.5), wanted, **({"user": user} if named else {}))
    return data, 0.25, {}


def changing_sets(rng: np.random.Generator, seed: int, n: int) -> Drawn:  # noqa: ARG001
    """Of 12 actions each context offers about half; both policies keep to what is offered."""
    offered = rng.random((n, 12)) < 0.5
    offered[np.arange(n), rng.integers(0, 12, n)] = True
    logged = offered / offered.sum(axis=1, keepdims=True)
    best = np.where(offered, np.arange(12), -1).argmax(axis=1)
    wanted = 0.2 * logged
    wanted[np.arange(n), best] += 0.8
    action = np.minimum((logged.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), 11)
    rate = 0.02 + 0.02 * np.arange(12)
    reward = (rng.random(n) < rate[action]).astype(float)
    return LoggedChoices(reward, action, logged[np.arange(n), action], wanted), _changing_truth(), {}


@cache
def _changing_truth() -> float:
    rng, n = np.random.default_rng(3), 1_000_000
    offered = rng.random((n, 12)) < 0.5
    offered[np.arange(n), rng.integers(0, 12, n)] = True
    rate = 0.02 + 0.02 * np.arange(12)
    uniform = (offered @ rate) / offered.sum(axis=1)
    best = rate[np.where(offered, np.arange(12), -1).argmax(axis=1)]
    return float((0.2 * uniform + 0.8 * best).mean())


def adaptive(rng: np.random.Generator, seed: int, n: int, *, learnt: bool) -> Drawn:  # noqa: ARG001
    """14 batches, epsilon-greedy on what was earned so far; target: a fixed arm's policy, or the last greedy arm's.

    The truth of the learnt target is that of the arm that this very log chose.
    """
    rate = np.array([0.10, 0.12, 0.14, 0.15, 0.16])
    hits, shown = np.ones(5), np.full(5, 8.0)
    actions, propensities, rewards = [], [], []
    for size in np.full(14, n // 14):
        greedy = int(np.argmax(hits / shown))
        action = np.where(rng.random(size) < 0.2, rng.integers(0, 5, size), greedy)
        reward = (rng.random(size) < rate[action]).astype(float)
        actions.append(action)
        propensities.append(np.where(action == greedy, 0.84, 0.04))
        rewards.append(reward)
        hits, shown = hits + np.bincount(action, reward, 5), shown + np.bincount(action, minlength=5)
    wanted = np.full((1, 5), 0.02)
    wanted[0, int(np.argmax(hits / shown)) if learnt else 1] = 0.92
    action = np.concatenate(actions)
    data = LoggedChoices(
        np.concatenate(rewards), action, np.concatenate(propensities), np.broadcast_to(wanted, (len(action), 5))
    )
    return data, float(wanted[0] @ rate), {}


def unsupported(rng: np.random.Generator, seed: int, n: int, *, by_context: bool) -> Drawn:  # noqa: ARG001
    """12 % of the target's mass is on an action that the log never takes: everywhere, or in some contexts."""
    actions = 10
    segment = rng.integers(0, 5, n)
    wanted = np.full((n, actions), 0.02)
    if by_context:
        best = np.where(segment == 0, 9, segment)
        wanted[np.arange(n), best] += 0.8
        closed = (segment == 0) & (rng.random(n) < 0.75)  # in three of four of these contexts action 9 is not offered
    else:
        wanted[:, 9] += 0.1
        wanted[np.arange(n), segment] += 0.7
        closed = np.ones(n, dtype=bool)
    action = rng.integers(0, actions, n)
    action = np.where(closed & (action == 9), rng.integers(0, 9, n), action)
    propensity = np.where(closed, 1 / 9, 0.1)
    rate = 0.1 + 0.02 * np.arange(actions)
    reward = (rng.random(n) < rate[action]).astype(float)
    return LoggedChoices(reward, action, propensity, wanted), float((wanted * rate).sum(axis=1).mean()), {}


def contexts(rng: np.random.Generator, seed: int, n: int, *, recorded: float = 1.0, left_out: bool = False) -> Drawn:  # noqa: ARG001
    """Both policies look at the context, and seldom agree: ten actions, .3 and .1 of the mass shared out evenly.

    recorded: what propensities are multiplied with in the log. left_out: the log lacks the rows of one action, an
    eighth of the target's mass.
    """
    actions, fresh = 10, 50_000
    x = rng.normal(size=(n + fresh, 3))
    taste = rng.normal(size=(3, actions)) / 2
    rate = 1 / (1 + np.exp(1.5 - x @ taste))
    logging, wanted = np.full((n, actions), 0.03), np.full((n + fresh, actions), 0.01)
    logging[np.arange(n), (x[:n] @ (taste + 0.6 * rng.normal(size=taste.shape))).argmax(axis=1)] += 0.7
    wanted[np.arange(n + fresh), (x @ taste).argmax(axis=1)] += 0.9
    truth = float((rate[n:] * wanted[n:]).sum(axis=1).mean())
    action = (logging.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = (rng.random(n) < rate[np.arange(n), action]).astype(float)
    propensity = np.minimum(logging[np.arange(n), action] * recorded, 1.0)
    mass = wanted[:n].mean(axis=0)
    keep = action != int(np.argmin(np.abs(mass - 0.125))) if left_out else np.ones(n, dtype=bool)
    return LoggedChoices(reward[keep], action[keep], propensity[keep], wanted[:n][keep]), truth, {}


def drifting(rng: np.random.Generator, seed: int, n: int) -> Drawn:  # noqa: ARG001
    """Rewards fall to 0 over the log; the truth is what a decision earns after it."""
    action = rng.integers(0, 5, n)
    reward = (rng.random(n) < (0.1 + 0.05 * action) * np.linspace(1, 0, n)).astype(float)
    wanted = np.broadcast_to(np.array([[0.1, 0.1, 0.1, 0.1, 0.6]]), (n, 5))
    return LoggedChoices(reward, action, np.full(n, 0.2), wanted), 0.0, {}


CELLS: Mapping[str, Cell] = {
    "A n=2,000 D=1": Cell(partial(table_a, n=2_000, difference=1.0)),
    "A n=2,000 D=.5": Cell(partial(table_a, n=2_000, difference=0.5)),
    "A n=20,000 D=1": Cell(partial(table_a, n=20_000, difference=1.0)),
    "few hits, rate .14": Cell(partial(arms, n=2_000, truth=0.14), "ips"),
    "few hits, rate .3": Cell(partial(arms, n=2_000, truth=0.3), "ips"),
    "few hits, rate .6": Cell(partial(arms, n=2_000, truth=0.6), "ips"),
    "10 hits, rate .3": Cell(partial(arms, n=5_000, truth=0.3), "ips"),
    "weights 0 and 50, rate .1": Cell(partial(two_weights, n=1_000, truth=0.1)),
    "weights 0 and 50, rate .02": Cell(partial(two_weights, n=1_000, truth=0.02)),
    "weights 0 and 50, rate .5": Cell(partial(two_weights, n=1_000, truth=0.5)),
    "continuous weights": Cell(partial(softmax, n=2_000, temperature=1.0)),
    ".1 % clicks": Cell(partial(arms, n=20_000, truth=0.001, actions=10, epsilon=0.3, rate=0.001, target=0.9)),
    "heavy tails": Cell(partial(heavy_tails, n=2_000)),
    "100 users, named": Cell(partial(clustered, users=100, named=True)),
    "changing action sets": Cell(partial(changing_sets, n=2_000)),
    "adaptive log, fixed target": Cell(partial(adaptive, n=7_000, learnt=False)),
    "adaptive log, learnt target": Cell(partial(adaptive, n=7_000, learnt=True)),
    "clean, 10 arms": Cell(partial(arms, n=4_000, truth=0.3, actions=10, epsilon=0.5, target=0.5)),
    "clean, uniform log": Cell(partial(arms, n=2_000, truth=0.3, actions=10, epsilon=1.0, target=0.5)),
    "clean, contexts differ": Cell(partial(contexts, n=5_000)),
    "100 users, not named": Cell(partial(clustered, users=100, named=False), sound=False),
    "12 % without support": Cell(partial(unsupported, n=2_000, by_context=False), sound=False),
    "12 % without support, by context": Cell(partial(unsupported, n=2_000, by_context=True), sound=False),
    "propensities 10 % too high": Cell(
        partial(arms, n=4_000, truth=0.3, actions=10, epsilon=0.5, target=0.5, recorded=1.1), sound=False
    ),
    "propensities 10 % too high, contexts differ": Cell(partial(contexts, n=5_000, recorded=1.1), sound=False),
    "an action left out, contexts differ": Cell(partial(contexts, n=5_000, left_out=True), sound=False),
    "rewards fall to 0": Cell(partial(drifting, n=2_000), sound=False),
}
