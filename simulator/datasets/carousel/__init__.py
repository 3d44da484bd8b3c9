"""The carousel benchmark of Deezer: its environment, its policies, and what they learn round by round."""

from __future__ import annotations

from simulator.datasets.carousel.environment import (
    CarouselEnvironment,
    load_carousel,
    synthesise,
    synthetic_carousel,
)
from simulator.datasets.carousel.policies import POLICIES
from simulator.datasets.carousel.rounds import CarouselResult, Defects, one_round, run_carousel, seen_cards, shuffled

__all__ = [
    "POLICIES",
    "CarouselEnvironment",
    "CarouselResult",
    "Defects",
    "load_carousel",
    "one_round",
    "run_carousel",
    "seen_cards",
    "shuffled",
    "synthesise",
    "synthetic_carousel",
]
