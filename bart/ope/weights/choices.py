"""Importance weights, the one place they are made: how much more often the evaluation policy would act this way."""

from __future__ import annotations

import numpy as np

from bart.errors import SupportError
from bart.ope.records.choices import LoggedChoices
from bart.types import Floats, Ints

FEW_ROWS = 1_000  # of more rows the rarest action is among them, or nearly


def importance_weight(target: Floats, propensity: Floats) -> Floats:
    """How much more often the evaluation policy would act this way.

    target, propensity: same shape, probability of what was logged.
    Returns dimensionless weights >= 0; their mean is 1 in expectation when support is full.
    Raises SupportError where a propensity lies outside (0, 1].
    Source: Horvitz and Thompson (1952).
    """
    if propensity.size and not (propensity.min() > 0 and propensity.max() <= 1):
        bad = np.argwhere(~((propensity > 0) & (propensity <= 1)))[0]
        raise SupportError(f"propensity[{', '.join(map(str, bad))}] is {propensity[tuple(bad)]}; expected (0, 1]")
    return np.asarray(target / propensity)


def choice_weight(data: LoggedChoices) -> Floats:
    """[n] importance weights of logged single choices."""
    return importance_weight(data.target_propensity(), data.propensity)


def choice_weight_limits(data: LoggedChoices) -> tuple[float, float]:
    """The least and the largest weight that this log could have had.

    The record holds the logging policy's probability of the logged action alone. Any action's weight is at most the
    evaluation policy's largest probability over the least propensity that was seen, and at least the converse: the
    exact limits for epsilon-greedy logs, safe ones for others of which the rarest action was seen. In a log of a few
    rows they may leave out 1; then what the actions not taken weigh on average widens them.
    """
    upper = float(data.target_pmf.max()) / float(data.propensity.min())
    lower = float(data.target_pmf.min()) / float(data.propensity.max())
    if len(data) > FEW_ROWS and lower < 1 < upper:
        return lower, upper
    other = other_weight_limits(data.target_propensity(), data.propensity)
    return min(lower, other[0]), max(upper, other[1])


def other_weight_limits(target: Floats, propensity: Floats) -> tuple[float, float]:
    """Limits of the mean weight of what was not logged, (1 - target) / (1 - propensity): some choice weighs that much.

    (1, 1) where the logging policy had no alternative.
    """
    free = propensity < 1
    other = (1 - np.minimum(target[free], 1.0)) / (1 - propensity[free])
    return float(other.min(initial=1.0)), float(other.max(initial=1.0))


def cluster_weight(data: LoggedChoices, cluster: Ints, n_clusters: int, logging_pmf: Floats) -> Floats:
    """[n] weights between the policies' probabilities of the logged action's cluster.

    cluster: [k], the cluster of each action. logging_pmf: [n, k].
    """
    member = np.eye(n_clusters)[cluster]  # [k, clusters]
    row = np.arange(len(data))
    logged = cluster[data.action]
    target = (data.pmf() @ member)[row, logged]
    logging = (logging_pmf @ member)[row, logged]
    return importance_weight(target, np.minimum(logging, 1.0))


def cluster_weight_limits(
    data: LoggedChoices, cluster: Ints, n_clusters: int, logging_pmf: Floats
) -> tuple[float, float]:
    """The least and the largest weight of any cluster in any of the logged contexts."""
    member = np.eye(n_clusters)[cluster]
    target, logging = data.pmf() @ member, logging_pmf @ member
    weight = (target / np.where(logging > 0, logging, np.inf))[logging > 0]
    return float(weight.min(initial=1.0)), float(weight.max(initial=1.0))


def effective_sample_size(weight: Floats) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted rows would tell as much. 0 where all weights are 0.

    Source: Kish (1965).
    """
    square = float(np.dot(weight, weight))
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0
