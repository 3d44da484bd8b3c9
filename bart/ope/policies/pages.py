"""Several evaluation policies on one log of pages: every estimator for each, as rows that a report can show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.estimate import estimate
from bart.ope.records.estimate import Estimate
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import weight_histogram
from bart.ope.weights.pages import marginal_weight
from bart.types import Floats, PageBatch

# name in reports: estimator
PAGE_REPORT: Mapping[str, str] = {
    "ips": "independent_ips",
    "snips": "sn_independent_ips",
    "ncis": "page_ncis",
    "dm": "dm",
    "dr": "exposure_dr",
}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A policy with its estimates by report name, and the shares of slot weights by size (see `weight_histogram`)."""

    policy: EvaluationPolicy
    estimates: Mapping[str, Estimate]
    weights: Mapping[str, list[float]]

    def as_row(self) -> dict[str, Any]:
        """Plain values for a report; its truth is to be filled in where it is known."""
        return {
            "name": self.policy.name,
            "truth": None,
            "truth_error": None,
            "estimates": as_row(self.estimates),
            "weights": dict(self.weights),
        }


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPolicy:
    """A page policy to evaluate on logged candidates.

    score: [N] for all candidates of the log's pages. epsilon: of shelves and cards. reward: [N], the probability of a
    reward by the policy's own model at the first slot, where `score` is not that; `dm` and `dr` predict from it.
    unpredicted: neither is a probability of a reward; they predict from ranks and the logging policy's model alone.
    """

    name: str
    score: Floats
    shelf_epsilon: float | Floats
    card_epsilon: float | Floats
    reward: Floats | None = None
    unpredicted: bool = False

    def logged(
        self, batch: PageBatch, q_logged: Floats | None = None, users: Mapping[str, int] | None = None
    ) -> LoggedPages:
        """The record of a batch for this policy. q_logged, users: as of `logged_pages`."""
        predicted = None if self.unpredicted else self.score if self.reward is None else self.reward
        return logged_pages(
            batch,
            self.score,
            self.shelf_epsilon,
            self.card_epsilon,
            q_logged=q_logged,
            q_target=predicted,
            users=users,
        )


def evaluate_policies(
    batch: PageBatch,
    policies: Sequence[EvaluationPolicy],
    *,
    level: float = 0.95,
    rng: np.random.Generator,
    q_logged: Floats | None = None,
    estimators: Mapping[str, str] = PAGE_REPORT,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    interval: str | None = None,
    inspect: Callable[[EvaluationPolicy, LoggedPages, Mapping[str, Estimate]], None] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Evaluated]:
    """Each policy with its estimates.

    q_logged: [N] predicted rewards of the logging policy's model, if it predicts rewards. estimators: names of
    `PAGE_ESTIMATORS` by the names they have in the report; parameters: theirs, by the latter. interval: of
    `PAGE_INTERVALS`. inspect: called with each policy, its record and its estimates. Every policy gets a random stream
    of its own, so that adding one changes no other.
    """
    given = parameters or {}
    out = []
    for number, (policy, stream) in enumerate(zip(policies, rng.spawn(len(policies)), strict=True)):
        if on_progress is not None:
            on_progress(number, len(policies), policy.name)
        data = policy.logged(batch, q_logged)
        found = {
            name: estimate(kind, data, interval, level, stream, **given.get(name, {}))
            for name, kind in estimators.items()
        }
        if inspect is not None:
            inspect(policy, data, found)
        slot = marginal_weight(data)[data.order >= 0]
        out.append(Evaluated(policy, found, weight_histogram(slot)))
    return out


def as_row(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates as plain values for JSON."""
    return {
        name: {
            "value": e.value,
            "lower": e.lower,
            "upper": e.upper,
            "verdict": e.verdict,
            "interval": e.interval,
            "n": e.n,
            "effective_sample_size": e.effective_sample_size,
            "max_weight": e.max_weight,
            "mean_weight": e.mean_weight,
            "warnings": list(e.warnings),
        }
        for name, e in estimates.items()
    }
