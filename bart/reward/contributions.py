"""A prediction taken apart: the logit that each group of features and each cross adds.

Weights are gathered by hash, feature by feature, as Vowpal Wabbit itself would. Slow and plain: it answers "why this
card?" and is the reference that the compiled tables are tested against.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from bart.reward.feature_hash import CONSTANT_INDEX, Indices, cross_index, level_index, match_index, vector_index
from bart.reward.features import GROUPS, KNOWN_VALUE, Examples
from bart.types import Floats, Floats32
from bart.types.levels import LEVELS, UNKNOWN

LARGEST_LOGIT = 50.0  # Vowpal Wabbit clips there before the sigmoid

_Features: TypeAlias = tuple[Indices, Floats]  # indices and values, both [m, features]


def group_logits(examples: Examples, weight: Floats32) -> dict[str, Floats]:
    """Logits [m] by group ("constant", "context", ..., "context x match"); their sum is the logit of the prediction.

    weight: [2^bits], all weights of the model.
    """
    group = _groups(examples)
    out = {"constant": np.full(len(examples), float(weight[CONSTANT_INDEX & (len(weight) - 1)]))}
    for letter in examples.schema.namespaces:
        out[GROUPS[letter]] = _dot(group[letter], weight)
    for cross in examples.schema.crosses:
        out[cross_name(cross)] = _dot(_crossed([group[letter] for letter in cross]), weight)
    return out


def cross_name(cross: str) -> str:
    """Words for a cross: "ce" is "context x explanation"."""
    return " x ".join(GROUPS[letter] for letter in cross)


def probability(logit: Floats) -> Floats:
    """Sigmoid of the logit, clipped as Vowpal Wabbit clips it."""
    out: Floats = np.minimum(np.maximum(logit, -LARGEST_LOGIT), LARGEST_LOGIT)  # np.clip takes three times as long
    np.negative(out, out=out)
    np.exp(out, out=out)
    out += 1.0
    return np.divide(1.0, out, out=out)


def _groups(examples: Examples) -> dict[str, _Features]:
    m, d = len(examples), examples.schema.dimension

    def dense(index: Indices, value: Floats32) -> _Features:
        return np.broadcast_to(index, value.shape), value.astype(np.float64)

    def one_hot(index: Indices) -> _Features:
        return index, np.ones(index.shape)

    fact_value = np.concatenate([np.ones((m, 3)), examples.popularity[:, None].astype(np.float64)], axis=1)
    group = {
        "c": one_hot(examples.context[examples.page]),
        "u": dense(vector_index("u", d), examples.listener[examples.page]),
        "v": dense(vector_index("v", d), examples.item_vector),
        "g": (examples.fact, fact_value),
        "e": one_hot(examples.explanation[:, None]),
        "p": one_hot(examples.position),
    }
    if "m" in examples.schema.namespaces:
        group["m"] = dense(match_index(d), examples.match)
    if examples.schema.ids:
        group["i"] = (examples.identity, np.full(examples.identity.shape, KNOWN_VALUE))
    if examples.schema.levels:
        index = level_index(examples.schema.levels, LEVELS)[np.arange(len(examples.schema.levels)), examples.level]
        group["h"] = (index, KNOWN_VALUE * (examples.level != UNKNOWN))
    return group


def _crossed(parts: list[_Features]) -> _Features:
    index, value = parts[0]
    for other_index, other_value in parts[1:]:
        m = len(index)
        index = cross_index(index[:, :, None], other_index[:, None, :]).reshape(m, -1)
        value = (value[:, :, None] * other_value[:, None, :]).reshape(m, -1)
    return index, value


def _dot(features: _Features, weight: Floats32) -> Floats:
    index, value = features
    gathered = weight[(index & np.uint64(len(weight) - 1)).astype(np.int64)]
    out: Floats = (gathered * value).sum(axis=1)
    return out
