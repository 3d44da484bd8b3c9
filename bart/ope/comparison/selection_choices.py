"""Many policies on one log of single choices: paired differences by empirical likelihood, P(best), false discoveries.

The weights of two policies both average 1, so their difference averages 0; with the contribution (w1 - w2) (r - q_hat)
plus the difference of the models' values, the likelihood interval of a single policy (see `bart.ope.
empirical_likelihood`) becomes one for the difference of two, with the same small-sample behaviour: where few rows tell
two policies apart, it is wide instead of wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.comparison.selection import Selection, select
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.estimators.conclude import run, with_range
from bart.ope.intervals.empirical_likelihood import empirical_likelihood, likelihood_ratio
from bart.ope.intervals.quantiles import chi_square_tail
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.terms import Terms, reward_limits
from bart.ope.verdict.choices import diagnose, worse
from bart.types import Floats


def select_choices(
    policies: Mapping[str, LoggedChoices],
    rng: np.random.Generator,
    *,
    estimator: str = "snips",
    parameters: Mapping[str, Any] | None = None,
    user: NDArray[Any] | None = None,
    level: float = 0.95,
    reward_range: tuple[float, float] | None = None,
    **options: Any,
) -> Selection:
    """Policies by name, each a record of the same log with its own target_pmf (and the same q_hat).

    estimator, parameters: of `ESTIMATORS`. user: [n], where rows of one user hang together; differences then use
    Student's quantile by user, otherwise empirical likelihood. reward_range: least and largest reward; [0, 1] where
    None and rewards lie in it, else what was seen. options: of `select` (baseline, adjustment, false_discovery, prior).
    Raises ValueError where the records are not of one log.
    """
    if not policies:
        raise ValueError("policies is empty; expected at least one record")
    names, records = tuple(policies), list(policies.values())
    first = records[0]
    for name, record in policies.items():
        for part in ("reward", "action", "propensity"):
            if not np.array_equal(getattr(record, part), getattr(first, part)):
                raise ValueError(f"policies[{name!r}].{part} is not that of {names[0]!r}; expected records of one log")
    user = first.user if user is None else user
    terms = [run(estimator, ESTIMATORS, record, dict(parameters or {})) for record in records]
    verdicts: list[Verdict] = [diagnose(record).verdict for record in records]
    notes = list(first.warnings)
    if notes:
        verdicts = [worse(verdict, "weak") for verdict in verdicts]
    if terms[0].control is None:
        verdicts = [worse(verdict, "weak") for verdict in verdicts]
        notes.append("the direct method has no weights: its intervals cannot show the model's bias")
    value = np.array([t.value() for t in terms])
    influence = np.stack([t.influence() for t in terms], axis=1)
    seen = float(first.reward.min()), float(first.reward.max())
    if reward_range is None:
        low, high = reward_limits(*seen)
    else:
        low, high = reward_range
        terms = [with_range(t, seen, reward_range)[0] for t in terms]
    control = [t.control for t in terms if t.control is not None]
    by_likelihood = user is None and len(control) == len(terms) and high > low and terms[0].row is None
    return select(
        names,
        value,
        influence - influence.mean(axis=0),
        rng,
        user=user,
        level=level,
        verdicts=verdicts,
        pair_interval=partial(_pair, terms, control, value, level, high - low) if by_likelihood else None,
        warnings=notes,
        **options,
    )


def _pair(
    terms: list[Terms], control: list[Floats], value: Floats, level: float, reach: float, i: int, j: int
) -> tuple[float, float, float]:
    """Interval of the difference by empirical likelihood, and the p-value of no difference."""
    one, other = terms[i], terms[j]
    gap = control[i] - control[j]
    # Weights that both average 1 let the zero of rewards stand at the least that is possible.
    plain = one.base_limits == other.base_limits == (0.0, 0.0)
    zero = one.residual_limits[0] if plain else 0.0
    contribution = (one.base - other.base) + gap * (one.residual - zero)
    return pair_interval(one, other, gap, contribution, None, float(value[i] - value[j]), level, reach, zero)


def pair_interval(
    one: Terms,
    other: Terms,
    gap: Floats,
    contribution: Floats,
    count: Floats | None,
    difference: float,
    level: float,
    reach: float,
    zero: float,
) -> tuple[float, float, float]:
    """The same from the differences [n] of weights and of contributions, of rows or of cells of `count` rows. zero: of
    the rewards in contributions."""
    if not gap.any() and not contribution.any():
        return 0.0, 0.0, 1.0
    corners = _corners(one, other, zero)
    lower, upper = empirical_likelihood(1 + gap, contribution, corners, level, (-reach, reach), count)
    statistic = likelihood_ratio(1 + gap, contribution, corners, 0.0, count)
    # A self-normalised or capped difference need not lie where the likelihood is largest.
    return min(lower, difference), max(upper, difference), chi_square_tail(statistic, 1)


def _corners(one: Terms, other: Terms, zero: float) -> list[tuple[float, float]]:
    """(1 + difference of weights, contribution) at the edge of what could have been logged."""
    edges = one.weight_limits[0] - other.weight_limits[1], one.weight_limits[1] - other.weight_limits[0]
    base = one.base_limits[0] - other.base_limits[1], one.base_limits[1] - other.base_limits[0]
    residual = min(one.residual_limits[0] - zero, 0.0), max(one.residual_limits[1] - zero, 0.0)
    out = []
    for edge in (*edges, 0.0):  # where both weigh alike nothing of the reward is left
        ends = sorted(edge * r for r in residual)
        out += [(1 + edge, base[0] + ends[0]), (1 + edge, base[1] + ends[1])]
    return out
