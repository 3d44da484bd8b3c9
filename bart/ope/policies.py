"""Several evaluation policies on one log of pages: every estimator for each, as rows that a report can show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.ope.estimate import Estimate, estimate
from bart.ope.page_diagnostics import weight_histogram
from bart.ope.page_weights import marginal_weight
from bart.ope.pages import logged_pages
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
    reward by the policy's own model at the first slot, where `score` is not that; needed by `dm` and `dr`.
    """

    name: str
    score: Floats
    shelf_epsilon: float | Floats
    card_epsilon: float | Floats
    reward: Floats | None = None


def evaluate_policies(
    batch: PageBatch,
    policies: Sequence[EvaluationPolicy],
    *,
    level: float = 0.95,
    rng: np.random.Generator,
    q_logged: Floats | None = None,
    estimators: Mapping[str, str] = PAGE_REPORT,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Evaluated]:
    """Each policy with its estimates.

    q_logged: [N] predicted rewards of the logging policy's model, if it predicts rewards. Every policy gets a random
    stream of its own, so that adding one changes no other.
    """
    out = []
    for number, (policy, stream) in enumerate(zip(policies, rng.spawn(len(policies)), strict=True)):
        if on_progress is not None:
            on_progress(number, len(policies), policy.name)
        data = logged_pages(
            batch,
            policy.score,
            policy.shelf_epsilon,
            policy.card_epsilon,
            q_logged=q_logged,
            q_target=policy.score if policy.reward is None else policy.reward,
        )
        found = {name: estimate(kind, data, level=level, rng=stream) for name, kind in estimators.items()}
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
