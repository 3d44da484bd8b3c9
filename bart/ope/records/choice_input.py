"""A log of single choices or slates with the policies to evaluate on it: what every reader of such files returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.types import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceInput:
    """A log of single choices or slates with the policies to evaluate on it.

    policies: the record of each, by name; all of the same rows. user: [n] code of each row's user, where known.
    left_out: rows of the file that are in no record, by reason. warnings: what holds for the whole log, to be said
    first. model_only: there are no propensities, so only the direct method means anything. parameters: arrays that some
    estimators need beside the record (`context`, `embedding`, `cluster`, `logging_pmf`, `behaviour`, ...); full: the
    records with every action, by name, where a policy's record is a reduced one and they were kept. notes: what is to
    be known of the log besides. models: rows by the id of the model that served them, "" where a row names none.
    """

    policies: Mapping[str, LoggedChoices | LoggedSlates]
    user: Ints | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    model_only: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, LoggedChoices] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    models: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "choices" or "slates"."""
        return "slates" if isinstance(next(iter(self.policies.values())), LoggedSlates) else "choices"

    @property
    def reward(self) -> Floats:
        """Of each row: [n], or [n, positions]."""
        return np.asarray(next(iter(self.policies.values())).reward)

    @property
    def mean_reward(self) -> float:
        """Of the log, rows that stand for several counted so."""
        first = next(iter(self.policies.values()))
        row = first.row_weight() if isinstance(first, LoggedChoices) else None
        return float(self.reward.mean() if row is None else (self.reward * row).mean())
