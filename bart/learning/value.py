"""What the pages held out say a newly trained model would earn: the expected stream rate, by NCIS with an interval.

The evaluation policy is the logging policy's own exploration over the new model's scores; the logged rate on the same
pages stands beside it. Source: Gilotte et al., "Offline A/B Testing for Recommender Systems" (WSDM 2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bart.types import Floats, Ints, PageBatch

ESTIMATOR = "page_ncis"
MOST_PAGES = 5_000  # held-out pages that are looked at, evenly spread: bounds the memory


@dataclass(frozen=True, slots=True)
class StreamRate:
    """Expected rewards a displayed page. logged: mean of the same pages as they were. n_pages: looked at.

    value, lower, upper: of the new model at the logged epsilons; level, verdict and effective_sample_size as in
    `bart.ope.Estimate`.
    """

    estimator: str
    value: float
    lower: float
    upper: float
    level: float
    verdict: str
    effective_sample_size: float
    logged: float
    n_pages: int

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them (None for what is not finite)."""
        fields = asdict(self)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in fields.items()}


class HeldOutPages:
    """Gathers held-out pages, one in `every`, and estimates from them."""

    def __init__(self, n_pages: int) -> None:
        self._every = max(1, -(-n_pages // MOST_PAGES))
        self._met = 0
        self._parts: list[PageBatch] = []
        self._score: list[Floats] = []
        self.without = "" if n_pages else "no page was held out"  # why there is no estimate

    def choose(self, batch: PageBatch, held_out: Ints) -> PageBatch | None:
        """Those of the next held-out pages (numbers in the batch) that are to be scored; None where there are none."""
        first = -self._met % self._every
        self._met += len(held_out)
        chosen = held_out[first :: self._every]
        return batch.take(chosen) if len(chosen) else None

    def add(self, batch: PageBatch, score: Floats) -> None:
        """Pages that `choose` gave and the new model's scores of their candidates, [N]."""
        if not (batch.row_shelf < 0).all():
            self._parts.append(batch)
            self._score.append(score)

    def estimate(self, level: float = 0.95) -> StreamRate | None:
        """The rate; None where it cannot be estimated, and `without` says why."""
        from bart.errors import DataError
        from bart.ope.comparison.evaluation import evaluate_policies
        from bart.ope.policies.pages import EvaluationPolicy
        from bart.ope.records.log_side import usable_pages

        if self.without or not self._parts:
            self.without = self.without or "no page held out can be evaluated"
            return None
        pages = PageBatch.concat(self._parts)
        new = EvaluationPolicy("new", np.concatenate(self._score), pages.shelf_epsilon, pages.card_epsilon)
        asked, usable = {ESTIMATOR: ESTIMATOR}, usable_pages(pages)[0]
        try:
            (one,) = evaluate_policies(pages, [new], level=level, rng=np.random.default_rng(0), estimators=asked)
        except (DataError, ValueError) as error:
            self.without = str(error)
            return None
        found = one.estimates[ESTIMATOR]
        return StreamRate(
            estimator=ESTIMATOR,
            value=found.value,
            lower=found.lower,
            upper=found.upper,
            level=level,
            verdict=found.verdict,
            effective_sample_size=found.effective_sample_size,
            logged=float(pages.reward[usable].sum()) / len(usable),
            n_pages=len(usable),
        )
