"""The parts of the report that compare policies on a log of single choices, under the names that page reports have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.comparison.exploration_cost import cost_of_exploration_choices
from bart.ope.comparison.exposure_share import exposure_share_choices
from bart.ope.comparison.selection import Selection
from bart.ope.comparison.selection_choices import select_choices
from bart.ope.comparison.several_rewards import reward_choices
from bart.ope.comparison.slices import slice_choices
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate
from bart.types import Bools, Floats, Ints

BASELINE = "logging"


def compare_choices(
    policies: Mapping[str, LoggedChoices],
    rng: np.random.Generator,
    *,
    estimator: str = "snips",
    user: NDArray[Any] | None = None,
    baseline: str = BASELINE,
    level: float = 0.95,
    reward_range: tuple[float, float] | None = None,
    masks: Mapping[str, Bools] | None = None,
    rewards: Mapping[str, Floats] | None = None,
    groups: Mapping[str, tuple[Ints, Sequence[str]]] | None = None,
    greedy_pmf: Floats | None = None,
) -> dict[str, Any]:
    """selection, slices, rewards, exposure and cost_of_exploration as plain values.

    policies: records of one log. baseline: a name, the first policy where none has it. masks: slices [n]. rewards:
    other rewards [n] by name, estimated with the same weights. groups: of the actions, (group [k], names), by name.
    greedy_pmf: [n, k] of the logging policy without its exploration. What is not given comes back empty.
    """
    if not policies:
        raise ValueError("policies is empty; expected at least one record")
    first = next(iter(policies))
    selection = select_choices(
        policies,
        rng,
        estimator=estimator,
        user=user,
        level=level,
        reward_range=reward_range,
        baseline=baseline if baseline in policies else first,
    )
    slices, several = [], []
    plain = estimator in ("ips", "snips")
    for name, record in policies.items():
        if masks:
            found = slice_choices(estimator, record, masks, level=level, rng=rng, user=user, reward_range=reward_range)
            slices += [{"dimension": "own", "slice": key, "policy": name, **_row(e)} for key, e in found.items()]
        if rewards:
            # A prediction of one reward says nothing of another, so others are weighed without one.
            by_reward = reward_choices(
                estimator if plain else "snips", record, rewards, level=level, rng=rng, user=user
            )
            several += [{"reward": key, "policy": name, **_row(e)} for key, e in by_reward.items()]
    exposure = {
        kind: [
            {
                "policy": name,
                "shares": [s.as_dict() for s in exposure_share_choices(record, group, labels, level, user)],
            }
            for name, record in policies.items()
        ]
        for kind, (group, labels) in (groups or {}).items()
    }
    cost = None
    if greedy_pmf is not None:
        cost = cost_of_exploration_choices(policies[first], greedy_pmf, rng, user=user, level=level)
    return {
        **only_selection(selection),
        "slices": slices,
        "rewards": several,
        "exposure": exposure,
        "cost_of_exploration": cost,
    }


def only_selection(selection: Selection) -> dict[str, Any]:
    """The parts of the report where only policies were asked for."""
    none: dict[str, Any] = {"slices": [], "rewards": [], "exposure": {}, "cost_of_exploration": None}
    return {"selection": selection.as_dict(), **none}


def _row(found: Estimate) -> dict[str, Any]:
    alike = ("n", "value", "lower", "upper", "effective_sample_size", "verdict")
    return {
        **{name: getattr(found, name) for name in alike},
        "warnings": list(found.warnings),
        "difference": None,
    }
