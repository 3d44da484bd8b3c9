"""The adaptive steps of Vowpal Wabbit in machine code, on its own weights: the same steps, without an object for each.

What `--adaptive --invariant --loss_function logistic` does to an example, in the order in which it does it: predict,
add each feature's squared gradient to its history, and move so far that the example's importance counts as if it were
many small steps (Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 2011; Karampatziakis and Langford,
"Online importance weight aware updates", UAI 2011). Vowpal Wabbit takes its roots to 12 bits, so models agree to 1e-4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bart.compiled import compiled
from bart.reward.feature_hash import CONSTANT_INDEX, FNV_PRIME, level_index, match_index, vector_index
from bart.reward.features import KNOWN_VALUE, Examples
from bart.types import Floats, Floats32
from bart.types.levels import LEVELS, UNKNOWN

_LETTERS = "cuvgmepih"
_PRIME = np.uint64(FNV_PRIME)
_LEAST = np.float32(1.0842022e-19)  # squares below the smallest are taken as it, by Vowpal Wabbit too


@compiled()
def _alike(index: Any, value: Any, at: Any, known: Any, x: Any) -> Any:
    """Puts features of one value x at place `at`; returns the next free place."""
    for k in range(len(known)):
        index[at], value[at] = known[k], x
        at += 1
    return at


@compiled()
def _dense(index: Any, value: Any, at: Any, known: Any, x: Any) -> Any:
    """Puts features of values x, but those that are 0, at place `at`; returns the next free place."""
    for k in range(len(x)):
        index[at], value[at] = known[k], x[k]
        at += 1 if x[k] != 0.0 else 0
    return at


@compiled()
def _levels(index: Any, value: Any, at: Any, known: Any, level: Any, unknown: Any, x: Any) -> Any:
    """Puts the levels that are known, with value x, at place `at`; returns the next free place."""
    for k in range(len(level)):
        index[at], value[at] = known[k, level[k]], x
        at += 1 if level[k] != unknown else 0
    return at


@compiled()
def _crossed(index: Any, value: Any, start: Any, cross: Any, at: Any) -> Any:
    """Adds the products of groups at place `at`; returns the next free place. start [groups + 1] of each group."""
    for c in range(cross.shape[0]):
        a, b, third = cross[c, 0], cross[c, 1], cross[c, 2]
        for i in range(start[a], start[a + 1]):
            half = index[i] * _PRIME
            for j in range(start[b], start[b + 1]):
                both, x = half ^ index[j], value[i] * value[j]
                if third < 0:
                    index[at], value[at] = both, x
                    at += 1
                else:
                    for k in range(start[third], start[third + 1]):
                        index[at], value[at] = (both * _PRIME) ^ index[k], x * value[k]
                        at += 1
    return at


@compiled()
def _lambert(x: Any) -> Any:
    """W(e^x) - x, by the approximation of Vowpal Wabbit."""
    w = 0.86 * x + 0.01 if x >= 1.0 else np.exp(0.8 * x - 0.65)
    r = x - np.log(w) - w if x >= 1.0 else 0.2 * x + 0.65 - w
    t = 1.0 + w
    u = 2.0 * t * (t + 2.0 * r / 3.0)
    return w * (1.0 + r / t * (u - r) / (u - 2.0 * r)) - x


@compiled()
def _step(state: Any, place: Any, value: Any, n: Any, label: Any, importance: Any, rate: Any) -> None:
    """One step of the weights `place` [n] of an example with values [n]; state [2^bits, at least 3]."""
    total = np.float32(0.0)
    for k in range(n):
        total += state[place[k], 0] * value[k]
    total = min(max(total, np.float32(-50.0)), np.float32(50.0))
    grown = np.exp(label * np.float64(total))
    squared = np.float32(importance / (1.0 + grown) ** 2)
    if squared == 0.0:
        return
    moved = np.float32(0.0)  # of the prediction, by an update of 1
    for k in range(n):
        own = state[place[k]]
        x2 = max(value[k] * value[k], _LEAST)
        own[1] += squared * x2
        own[2] = np.float32(1.0) / np.sqrt(own[1])
        moved += x2 * own[2]
    scale = rate * importance
    if scale * moved < 1e-6:
        update = label * scale / (1.0 + grown)
    else:
        update = -(label * _lambert(scale * moved + label * total + grown) + total) / moved
    far = np.float32(update)
    for k in range(n):
        state[place[k], 0] += far * value[k] * state[place[k], 2]


@compiled()
def _learn(
    state: Any,
    rate: float,
    constant: Any,
    group: Any,
    cross: Any,
    most: int,
    page: Any,
    context: Any,
    listener: Any,
    item_vector: Any,
    match: Any,
    fact: Any,
    popularity: Any,
    explanation: Any,
    position: Any,
    identity: Any,
    level: Any,
    vector_index: Any,
    match_index: Any,
    level_index: Any,
    unknown: int,
    known: Any,
    reward: Any,
    weight: Any,
) -> None:
    """The steps of `take_steps`. group: codes of the groups in use, in order, by their place in `_LETTERS`; cross
    [crosses, 3] of places in it, -1 for no third. most: features of one example at most."""
    mask = np.uint64(state.shape[0] - 1)
    index, value = np.empty(most, np.uint64), np.empty(most, np.float32)
    place = np.empty(most, np.int64)
    start = np.empty(len(group) + 1, np.int64)
    one = np.float32(1.0)
    for i in range(len(page)):
        p, at = page[i], 0
        for g in range(len(group)):
            start[g] = at
            code = group[g]
            if code == 0:
                at = _alike(index, value, at, context[p], one)
            elif code == 1:
                at = _dense(index, value, at, vector_index[0], listener[p])
            elif code == 2:
                at = _dense(index, value, at, vector_index[1], item_vector[i])
            elif code == 3:
                at = _alike(index, value, at, fact[i, :3], one)
                at = _dense(index, value, at, fact[i, 3:], popularity[i : i + 1])
            elif code == 4:
                at = _dense(index, value, at, match_index, match[i])
            elif code == 5:
                at = _alike(index, value, at, explanation[i : i + 1], one)
            elif code == 6:
                at = _alike(index, value, at, position[i], one)
            elif code == 7:
                at = _alike(index, value, at, identity[i], known)
            else:
                at = _levels(index, value, at, level_index, level[i], unknown, known)
        start[len(group)] = at
        n = _crossed(index, value, start, cross, at)
        index[n], value[n] = constant, one
        n += 1
        for k in range(n):
            place[k] = np.int64(index[k] & mask)
        first = 1.0 if i % 2 == 1 else -1.0  # else the later sign would win every fraction
        for sign in (first, -first):
            importance = weight[i] * (reward[i] if sign > 0.0 else 1.0 - reward[i])
            if importance > 0.0:
                _step(state, place, value, n, sign, importance, rate)


def take_steps(state: Floats32, rate: float, examples: Examples, reward: Floats, weight: Floats) -> None:
    """One step an example, in their order, on the state [2^bits, numbers] of a model of adaptive steps, in place.

    reward [m] in [0, 1], weight [m] >= 0: as `RewardModel.learn` has them.
    """
    schema = examples.schema
    used, d = schema.namespaces, schema.dimension
    crosses = [[used.index(letter) for letter in cross] for cross in schema.crosses]
    _learn(
        state,
        rate,
        np.uint64(CONSTANT_INDEX),
        np.array([_LETTERS.index(letter) for letter in used]),
        np.array([[*cross, -1][:3] for cross in crosses], dtype=np.int64).reshape(len(crosses), 3),
        schema.feature_count + 1,  # and a place for a feature that is 0 and not taken
        examples.page,
        examples.context,
        examples.listener,
        examples.item_vector,
        examples.match,
        examples.fact,
        examples.popularity,
        examples.explanation,
        examples.position,
        examples.identity,
        examples.level,
        np.stack([vector_index("u", d), vector_index("v", d)]),
        match_index(d),
        level_index(schema.levels, LEVELS),
        UNKNOWN,
        np.float32(KNOWN_VALUE),
        reward,
        weight,
    )
