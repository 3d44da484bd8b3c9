"""A page that is asked for, and the ranker that decides it under the switches."""

from __future__ import annotations

from dataclasses import dataclass, replace

from api.service.control import Controls
from api.service.experiments import POPULARITY
from api.wire.schemas import VisitFields
from bart.home import HomeRanker
from bart.page.exploration import Exploration
from bart.reward.baselines import PopularityScorer
from bart.types import Context, Decision, Listener


@dataclass(frozen=True, slots=True)
class Visit:
    """A page that is asked for: by whom, in which circumstances, under which id, and which ranker decides it.

    unknown: ids that the caller brought and the batch does not hold.
    """

    request: VisitFields
    request_id: str
    seed: int
    context: Context
    listener: Listener
    ranker: HomeRanker
    arm: str
    rows: int
    columns: int
    unknown: list[str] | None = None

    def decide(self) -> Decision:
        """The page, drawn and not yet recorded."""
        return self.ranker.decide(
            self.request_id,
            self.listener,
            self.context,
            self.rows,
            self.columns,
            self.seed,
            arm=self.arm,
            forced=self.request.forced,
        )


def under(ranker: HomeRanker, controls: Controls) -> HomeRanker:
    """The ranker as the switches will have it."""
    if not controls.explore:
        ranker = replace(ranker, exploration=Exploration.fixed(0.0))
    if controls.fallback:
        ranker = replace(ranker, scorer=PopularityScorer(ranker.items), model_id=POPULARITY)
    if controls.taken_down:
        rules = replace(ranker.rules, blocked_items=ranker.rules.blocked_items | controls.taken_down)
        ranker = replace(ranker, rules=rules)
    return ranker
