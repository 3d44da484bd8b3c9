"""Rankings without replacement and their exact propensities."""

from __future__ import annotations

from bart.ranking.batch import batch_rank, conditional_propensity, min_rank, propensity_of_rank
from bart.ranking.marginals import marginal_of_rank, marginal_table
from bart.ranking.plackett_luce import MarginalEstimate
from bart.ranking.policies import POLICIES, EpsilonGreedy, PlackettLuce, Ranking, RankingPolicy, Uniform, choose

__all__ = [
    "POLICIES",
    "EpsilonGreedy",
    "MarginalEstimate",
    "PlackettLuce",
    "Ranking",
    "RankingPolicy",
    "Uniform",
    "batch_rank",
    "choose",
    "conditional_propensity",
    "marginal_of_rank",
    "marginal_table",
    "min_rank",
    "propensity_of_rank",
]
