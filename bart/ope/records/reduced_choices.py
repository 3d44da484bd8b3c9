"""A log of single choices without its tables of actions: what estimators read of a row, in five numbers.

No estimator of single choices but three (`mrdr`, `mips`, `offcem`) looks at more of a row than its reward, both
probabilities of the logged action, the model's prediction for that action and the model's value of the evaluation
policy. A log of any number of actions thus takes 24 bytes a row, 40 with a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.records.balance_sums import BalanceSums
from bart.ope.records.choices import LoggedChoices
from bart.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class ReducedChoices(LoggedChoices):
    """Made by `reduced`; the estimators of `LoggedChoices` take it, but those that need the whole pmf.

    action is 0 throughout; q_hat [n, 2] holds the prediction for the logged action and the value of the evaluation
    policy. target_pmf [1, 2] holds the least and the largest probability that the evaluation policy gives any action.
    balance: what was summed up of actions and pmfs; None where they were not known.
    """

    def __post_init__(self) -> None:
        return None  # checked by `reduced`

    target: Any = None
    balance: BalanceSums | None = None

    @property
    def n_actions(self) -> int:
        raise ValueError("the pmf of this log was not kept; expected another estimator, or a record with every action")

    def pmf(self) -> Any:
        """[n, 2] that picks the value of the evaluation policy out of `q_hat`."""
        return np.broadcast_to(np.array([0.0, 1.0]), (len(self), 2))

    def target_propensity(self) -> Floats:
        """[n], the evaluation policy's probability of the logged action."""
        return np.asarray(self.target)


def reduced(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    *,
    value: Floats | None = None,
    predicted: Floats | None = None,
    limits: tuple[float, float] | None = None,
    warnings: tuple[str, ...] = (),
    sample_weight: Floats | None = None,
    balance: BalanceSums | None = None,
) -> ReducedChoices:
    """The record from arrays [n].

    target: the evaluation policy's probability of the logged action. value, predicted: the model's value of the
    evaluation policy, and its prediction for the logged action; both or none. limits: least and largest probability
    that the evaluation policy gives any action; (0, 1) where None, which holds whatever it does. warnings,
    sample_weight: as of `LoggedChoices`; balance: as of `ReducedChoices`.
    Raises ValueError (SupportError for propensities) that says what is wrong and where.
    """
    if (value is None) != (predicted is None):
        raise ValueError("value and predicted belong together; expected both or none")
    # The checks are those of the full record, on a pmf of two: the logged action, and all others.
    checked = LoggedChoices(
        reward, np.zeros(len(reward), dtype=np.int64), propensity, _pair(target), sample_weight=sample_weight
    )
    least, most = limits if limits is not None else (0.0, 1.0)
    model = None
    if value is not None and predicted is not None:
        model = np.stack([predicted, value], axis=1)
        if model.shape != (len(reward), 2) or not np.isfinite(model).all():
            raise ValueError(f"value and predicted make {model.shape}; expected ({len(reward)}, 2), all finite")
    return ReducedChoices(
        checked.reward,
        np.broadcast_to(np.int64(0), len(reward)),
        checked.propensity,
        np.array([[least, most]]),
        q_hat=model,
        warnings=warnings,
        sample_weight=checked.sample_weight,
        target=np.asarray(target, dtype=np.float64),
        balance=balance,
    )


def _pair(target: Floats) -> Any:
    first = np.asarray(target, dtype=np.float64)
    return np.stack([first, 1.0 - first], axis=1)
