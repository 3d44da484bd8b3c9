"""The layers after the recurrent step, for one visit, in machine code: numpy's calls would cost more than the sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, int64

from bart.compiled import compiled, read

_ROW, _MATRIX = read(float32), read(float32, 2)


@compiled()
def add_positive(inputs: Any, weight: Any, out: Any) -> None:
    """Adds ReLU(inputs) [n] x weight [n, m] to out [m]."""
    for i in range(inputs.shape[0]):
        if not inputs[i] <= 0:  # half of the rows need not be read; NaN goes on
            for k in range(out.shape[0]):
                out[k] += inputs[i] * weight[i, k]


@compiled()
def square(value: Any) -> Any:
    """The sum of squares of value [d]."""
    total = np.float32(0)
    for k in range(value.shape[0]):
        total += value[k] * value[k]
    return total


@compiled(*[_ROW, _MATRIX, _ROW, _MATRIX, _ROW, _MATRIX, _ROW], _ROW, read(int64), int64)
def vector(
    hidden: Any,
    combine_0: Any,
    combine_0_bias: Any,
    combine_1: Any,
    combine_1_bias: Any,
    head: Any,
    head_bias: Any,
    state: Any,
    memory: Any,
    d: int,
) -> Any:
    """[d] unit vector of a visit, or zero.

    hidden: [pathways x hidden]. Matrices are [inputs, outputs]. head gives offset [d] and attention [1 + memories].
    state: [s]; memory: [memories], where in it the [d] numbers of each one stand.
    """
    first = combine_0_bias.copy()
    for i in range(hidden.shape[0]):
        for k in range(first.shape[0]):
            first[k] += hidden[i] * combine_0[i, k]
    second = combine_1_bias.copy()
    add_positive(first, combine_1, second)
    out = head_bias.copy()
    add_positive(second, head, out)
    largest = out[d:].max()
    u = np.exp(out[d] - largest) * out[:d]
    for m in range(memory.shape[0]):
        known = state[memory[m] : memory[m] + d]
        norm = square(known)
        if norm > 1e-24:
            weight = np.exp(out[d + 1 + m] - largest) / np.float32(math.sqrt(norm))
            for k in range(d):
                u[k] += weight * known[k]
    norm = square(u)
    if norm > 1e-24:
        scale = np.float32(1 / math.sqrt(norm))
        for k in range(d):
            u[k] *= scale
    return u
