"""Inner loops of the carousel benchmark in machine code. Import inside functions: numba takes half a second to load.

The twelve best of 862 independent draws, for each of 20,000 listeners, need not draw all 862. A draw that cannot be
among the best is only told apart from one that can: with the probability of its upper tail, exactly, the tail itself is
drawn from; otherwise it is left out. What comes out has the distribution of drawing everything and sorting it.
Random numbers: SplitMix64 (Steele, Lea and Flood, 2014) from a seed that the caller draws.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float32, float64, int64, uint64
from numpy.typing import NDArray

from bart.compiled import compiled, read, write
from bart.types import Bools, Floats, Floats32, Ints

State = NDArray[np.uint64]

STEPS = 8  # a standard deviation of the tail table
_PLAIN = 0.25  # above this tail probability, draws are repeated until one lies in the tail


@compiled()
def uniform(state: State) -> float:
    """The next number in (0, 1); state [1] uint64 moves on."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(12)) + 0.5) * 2.0**-52


@compiled()
def normal(state: State) -> float:
    """Standard normal, by Marsaglia's polar method."""
    while True:
        x, y = 2.0 * uniform(state) - 1.0, 2.0 * uniform(state) - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            return x * math.sqrt(-2.0 * math.log(square) / square)


@compiled()
def gamma(shape: float, state: State) -> float:
    """Gamma of scale 1 and shape >= 1. Source: Marsaglia and Tsang (2000)."""
    if shape == 1.0:
        return -math.log(uniform(state))
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = normal(state)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        if math.log(uniform(state)) < 0.5 * x * x + d - d * v + d * math.log(v):
            return d * v


@compiled()
def beta(a: float, b: float, state: State) -> float:
    """Beta with a, b >= 1."""
    x = gamma(a, state)
    return x / (x + gamma(b, state))


@compiled()
def beta_above(a: float, b: float, least: float, tail: float, state: State) -> float:
    """Beta with a, b >= 1, given that it exceeds `least`, which it does with probability `tail`.

    The density is log-concave: beyond its mode it lies below its tangent in logarithms (and below its own start).
    """
    slope = (b - 1.0) / (1.0 - least) - (a - 1.0) / least
    if tail > _PLAIN or slope < 0.0:
        while True:
            x = beta(a, b, state)
            if x > least:
                return x
    flat = slope * (1.0 - least) < 1.0
    while True:
        if flat:
            beyond = (1.0 - least) * uniform(state)
            lead = 0.0
        else:
            beyond = -math.log(uniform(state)) / slope
            lead = slope * beyond
        x = least + beyond
        if x >= 1.0:
            continue
        ratio = (a - 1.0) * math.log(x / least) + (b - 1.0) * math.log((1.0 - x) / (1.0 - least)) + lead
        if math.log(uniform(state)) < ratio:
            return x


@compiled()
def normal_above(least: float, state: State) -> float:
    """Standard normal given that it exceeds `least` >= 0. Source: Robert (1995)."""
    if least < 0.5:
        while True:
            z = abs(normal(state))
            if z > least:
                return z
    rate = 0.5 * (least + math.sqrt(least * least + 4.0))
    while True:
        z = least - math.log(uniform(state)) / rate
        if math.log(uniform(state)) < -0.5 * (z - rate) * (z - rate):
            return z


@compiled()
def keep(value: Floats, item: Ints, filled: int, x: float, i: int) -> int:
    """Puts x into the descending list value [k], item [k] of which `filled` places are taken; how many are then."""
    k = len(value)
    if filled == k and x <= value[k - 1]:
        return filled
    at = min(filled, k - 1)
    while at > 0 and value[at - 1] < x:
        value[at], item[at] = value[at - 1], item[at - 1]
        at -= 1
    value[at], item[at] = x, i
    return min(filled + 1, k)


@compiled(read(float64, 2), read(float64, 2), int64, uint64, write(float64, 2))
def beta_draws(a: Floats, b: Floats, draws: int, seed: int, out: Floats) -> None:
    """Fills out [groups, k] with the largest, second largest ... of one joint draw, averaged over `draws` of them."""
    state = np.array([seed], dtype=np.uint64)
    groups, k = a.shape
    row = np.empty(k)
    for g in range(groups):
        out[g] = 0.0
        for _ in range(draws):
            for i in range(k):
                row[i] = beta(a[g, i], b[g, i], state)
            out[g] += np.sort(row)[::-1] / draws


@compiled(
    read(float64, 2), read(float64, 2), read(float64), read(float64, 2), read(int64), read(int64), uint64,
    write(int64, 2),
)  # fmt: skip
def best_of_beta(
    a: Floats, b: Floats, least: Floats, tail: Floats, member: Ints, offset: Ints, seed: int, out: Ints
) -> None:
    """Fills out [n, slots] with the items of the largest of k independent Beta(a, b), drawn anew for each listener.

    a, b, tail [groups, k]: of each group's items, and the probability of more than least [groups]. member [n]:
    listeners by group, offset [groups + 1]. Any `least` gives the same distribution; the best takes the least time.
    """
    state = np.array([seed], dtype=np.uint64)
    groups, k = a.shape
    slots = out.shape[1]
    most = 0
    for g in range(groups):
        most = max(most, offset[g + 1] - offset[g])
    value = np.empty((most, slots))
    item = np.empty((most, slots), dtype=np.int64)
    filled = np.empty(most, dtype=np.int64)
    listed = np.zeros(k, dtype=np.bool_)
    for g in range(groups):
        n = offset[g + 1] - offset[g]
        filled[:n] = 0
        for i in range(k):
            p = tail[g, i]
            if p <= 0.0:
                continue
            miss = math.log1p(-p) if p < 1.0 else -np.inf
            at = -1.0
            while True:  # from one listener whose draw is in the tail to the next
                at += 1.0 + (math.floor(math.log(uniform(state)) / miss) if p < 1.0 else 0.0)
                if at >= n:
                    break
                x = beta_above(a[g, i], b[g, i], least[g], p, state)
                j = int(at)
                filled[j] = keep(value[j], item[j], filled[j], x, i)
        for j in range(n):
            if filled[j] < slots:  # too few in the tail: all in it are listed, the others are drawn below it
                for s in range(filled[j]):
                    listed[item[j, s]] = True
                for i in range(k):
                    if not listed[i]:
                        x = beta(a[g, i], b[g, i], state)
                        while x > least[g]:
                            x = beta(a[g, i], b[g, i], state)
                        filled[j] = keep(value[j], item[j], filled[j], x, i)
                listed[:] = False
            out[member[offset[g] + j]] = item[j]


@compiled(read(float32, 2), read(float32, 2), read(float64), uint64, write(int64, 2))
def best_of_normal(mean: Floats32, deviation: Floats32, tail: Floats, seed: int, out: Ints) -> None:
    """Fills out [n, slots] with the items of the largest of k independent normals for each of n listeners.

    mean, deviation [n, k]. tail [m]: probability that a standard normal exceeds 0, 1 / STEPS, 2 / STEPS, ...
    """
    state = np.array([seed], dtype=np.uint64)
    n, k = mean.shape
    slots = out.shape[1]
    value = np.empty(slots)
    for j in range(n):
        filled = 0
        for i in range(k):
            centre, spread = mean[j, i], deviation[j, i]
            if filled < slots:
                filled = keep(value, out[j], filled, centre + spread * normal(state), i)
                continue
            needed = (value[slots - 1] - centre) / spread
            if needed <= 0.0:
                x = centre + spread * normal(state)
            else:
                step = min(int(needed * STEPS), len(tail) - 1)
                if uniform(state) >= tail[step]:
                    continue
                x = centre + spread * normal_above(step / STEPS, state)
            filled = keep(value, out[j], filled, x, i)


@compiled(read(int64, 2), read(int64, 2), read(int64), read(boolean), uint64, write(int64, 2))
def best_of_ties(order: Ints, until: Ints, group: Ints, at_random: Bools, seed: int, out: Ints) -> None:
    """Fills out [n, slots] with the first items of each listener's group, tied items in random order.

    order [groups, k]: items from the best; until [groups, k]: where the ties of that place end (exclusive). group [n].
    at_random [n]: listeners for whom all items are tied.
    """
    state = np.array([seed], dtype=np.uint64)
    k = order.shape[1]
    slots = out.shape[1]
    place = np.arange(k)
    for j in range(len(group)):
        g = group[j]
        end = k if at_random[j] else 0
        for s in range(slots):
            if s == end:
                end = until[g, s]
            other = s + int(uniform(state) * (end - s))
            place[s], place[other] = place[other], place[s]
            out[j, s] = order[g, place[s]]
            # `place` is put right again below: only what was touched.
        for s in range(slots):
            moved = place[s]
            place[s] = s
            if moved >= slots:
                place[moved] = moved


@compiled(
    read(float64, 2), read(float64, 2), read(float64), read(int64), read(int64, 2), read(float64, 2),
    write(boolean, 2), write(float64),
)  # fmt: skip
def respond(
    x: Floats, theta: Floats, bias: Floats, listener: Ints, shown: Ints, u: Floats, streamed: Bools, value: Floats
) -> None:
    """Fills streamed [m, slots], True at the first card whose u lies below its probability, and value [m], the
    probability that any card is streamed. x [n, d] of listeners, theta [k, d], bias [k] of cards.
    """
    for j in range(len(listener)):
        none = 1.0
        found = False
        for s in range(shown.shape[1]):
            i = shown[j, s]
            dot = bias[i]
            for d in range(x.shape[1]):
                dot += theta[i, d] * x[listener[j], d]
            p = 1.0 / (1.0 + math.exp(-dot))
            none *= 1.0 - p
            streamed[j, s] = (not found) and u[j, s] < p
            found = found or u[j, s] < p
        value[j] = 1.0 - none


@compiled(read(float64, 2), read(float64, 2), read(float64), write(float64, 2))
def kl_bounds(success: Floats, display: Floats, threshold: Floats, out: Floats) -> None:
    """Fills out [groups, k] with the largest q >= p for which display x kl(p, q) <= threshold [groups].

    Items that were never displayed have 1. By bisection, to 1e-6.
    """
    for g in range(success.shape[0]):
        for i in range(success.shape[1]):
            n = display[g, i]
            if n == 0.0:
                out[g, i] = 1.0
                continue
            p = success[g, i] / n
            bound = threshold[g] / n
            low, high = p, 1.0
            while high - low > 1e-6:
                q = 0.5 * (low + high)
                kl = 0.0
                if p > 0.0:
                    kl += p * math.log(p / q)
                if p < 1.0:
                    kl += (1.0 - p) * math.log((1.0 - p) / (1.0 - q))
                if kl > bound:
                    high = q
                else:
                    low = q
            out[g, i] = 0.5 * (low + high)
