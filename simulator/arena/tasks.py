"""What is asked in the arena: ways of reading, logging policies, targets. Frozen: any change is another VERSION.

Logs have pages of 5 x 5 out of 8 shelves of 16 cards. The listeners of all logs are drawn from one population, and a
target's truth is its value over that whole population, so that it is the same number for every log of a world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.reading.browsing import BrowsingParams, world_params
from simulator.study.scene import Rates, SceneConfig
from simulator.study.selection import SCORERS, Scorer

VERSION = "1"
SEED = 20_261_201  # of the catalogue and its listeners
LISTENERS = 20_000
VISITS = 2_000  # of a log, of which about 3 % are never displayed
# Cosines are rounded: the bytes of a log must not depend on how many threads multiply matrices.
SCENE = SceneConfig(shelves=8, cards=16, rows=5, columns=5, digits=4)

# The last two were written for the arena, before anything was measured in them. Nothing here was or is tuned on them.
UNSEEN = ("A1", "A2")
WORLDS: dict[str, BrowsingParams] = {
    **{name: world_params(name) for name in ("W1", "W2", "W3", "W5", "W6", "KUAIRAND")},
    "A1": BrowsingParams("A1", hc0=0.88, hc1=0.60, hr0=0.70, hr1=0.82, column_trust=0.90, row_trust=0.95, patience=0.5),
    "A2": BrowsingParams(
        "A2", hc0=0.90, hc1=0.93, hr0=0.80, hr1=0.85, column_trust=0.97, edge=0.85, content=0.3, returns=0.1
    ),
}


@dataclass(frozen=True, slots=True)
class Logging:
    """An epsilon-greedy logging policy. shelf, card: exploration by row and by column, one number for all or one each.
    batches: how often it learns from its own log; 1 is never."""

    name: str
    shelf: tuple[float, ...]
    card: tuple[float, ...]
    batches: int = 1

    @property
    def rates(self) -> Rates:
        return Rates(*(np.array(np.broadcast_to(r, n)) for r, n in zip((self.shelf, self.card), (5, 5), strict=True)))


LOGGING = {
    policy.name: policy
    for policy in (
        Logging("even", (0.2,), (0.2,)),
        Logging("skewed", (0.05,), (0.05,)),
        Logging("partly", (0.0, 0.0, 0.2, 0.2, 0.2), (0.0, 0.2, 0.2, 0.2, 0.2)),  # deterministic above and in front
        Logging("adaptive", (0.2,), (0.2,), batches=8),
    )
}
TARGETS: tuple[Scorer, ...] = tuple(SCORERS[k] for k in (0, 2, 4, 6, 9, 11))  # near to far, good and less good
