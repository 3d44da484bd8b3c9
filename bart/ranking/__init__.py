"""Rankings without replacement and their exact propensities."""

from __future__ import annotations

from bart.ranking.policies import (
    POLICIES,
    EpsilonGreedy,
    PlackettLuce,
    Ranking,
    RankingPolicy,
    Uniform,
    choose,
)

__all__ = ["POLICIES", "EpsilonGreedy", "PlackettLuce", "Ranking", "RankingPolicy", "Uniform", "choose"]
