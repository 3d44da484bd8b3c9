"""Evaluation policies on logged pages, and their estimates as rows that a report can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bart.ope.records.estimate import Estimate
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.log_side import LogSide
from bart.ope.records.pages import LoggedPages
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

    def logged(self, batch: PageBatch, q_logged: Floats | None = None, side: LogSide | None = None) -> LoggedPages:
        """The record of a batch for this policy. q_logged, side: as of `logged_pages`."""
        predicted = None if self.unpredicted else self.score if self.reward is None else self.reward
        return logged_pages(
            batch,
            self.score,
            self.shelf_epsilon,
            self.card_epsilon,
            q_logged=q_logged,
            q_target=predicted,
            side=side,
        )


def as_row(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates as plain values for JSON."""
    alike = (
        "value",
        "lower",
        "upper",
        "verdict",
        "interval",
        "n",
        "effective_sample_size",
        "max_weight",
        "mean_weight",
    )
    return {
        name: {**{field: getattr(e, field) for field in alike}, "warnings": list(e.warnings)}
        for name, e in estimates.items()
    }
