"""What the pages held out say a newly trained model would earn: the expected stream rate, by NCIS with an interval.

The evaluation policy is the logging policy's own exploration over the new model's scores; the logged rate on the same
pages stands beside it. Source: Gilotte et al., "Offline A/B Testing for Recommender Systems" (WSDM 2018).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.types import Floats, Ints, PageBatch

if TYPE_CHECKING:
    from bart.ope.records.pages import LoggedPages

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
        self._parts: list[LoggedPages] = []
        self._user: dict[str, int] = {}
        self.without = "" if n_pages else "no page was held out"  # why there is no estimate

    def choose(self, batch: PageBatch, held_out: Ints) -> PageBatch | None:
        """Those of the next held-out pages (numbers in the batch) that are to be scored; None where there are none."""
        first = -self._met % self._every
        self._met += len(held_out)
        chosen = held_out[first :: self._every]
        return batch.take(chosen) if len(chosen) else None

    def add(self, batch: PageBatch, score: Floats) -> None:
        """Pages that `choose` gave and the new model's scores of their candidates, [N]."""
        from bart.ope.records.from_batch import logged_pages

        if (batch.row_shelf < 0).all():
            return
        for user in batch.user_id.tolist():
            self._user.setdefault(user, len(self._user))
        try:
            self._parts.append(logged_pages(batch, score, batch.shelf_epsilon, batch.card_epsilon, users=self._user))
        except ValueError as error:  # such as shelves that share items, of which there are no marginals
            self.without = str(error)

    def estimate(self, level: float = 0.95) -> StreamRate | None:
        """The rate; None where it cannot be estimated, and `without` says why."""
        from bart.ope import estimate
        from bart.ope.records.pages import concatenate

        if self.without or not self._parts:
            self.without = self.without or "no page held out can be evaluated"
            return None
        data = concatenate(self._parts)
        found = estimate("page_ncis", data, level=level)
        return StreamRate(
            estimator="page_ncis",
            value=found.value,
            lower=found.lower,
            upper=found.upper,
            level=level,
            verdict=found.verdict,
            effective_sample_size=found.effective_sample_size,
            logged=float(data.page_reward.mean()),
            n_pages=len(data),
        )
