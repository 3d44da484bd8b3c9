"""Twelve close policies for one simulated log, and how well an estimator tells them apart.

Each policy ranks by a blend of what the logging model sees, what is true, and an error of its own:

    score = (1 - insight) x logging model + insight x true log odds + noise x standard normal

so that policies of about the same value stand near the logging policy (little insight, little noise) or far from it.
Weights that are capped favour the near ones, which is what makes close policies hard to tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats
from simulator.study.scene import Scene


@dataclass(frozen=True, slots=True)
class Scorer:
    """insight: share of the truth in the score. noise: standard deviation of the model's own error, in log odds.
    epsilon: of shelves and cards."""

    name: str
    insight: float
    noise: float
    epsilon: float


def _scorers(*of: tuple[float, float, float]) -> tuple[Scorer, ...]:
    return tuple(Scorer(f"insight {i:.2f}, noise {n:.2f}, epsilon {e:.2f}", i, n, e) for i, n, e in of)


# Four kinds, from near the logging policy to far from it, each at three qualities.
SCORERS = _scorers(
    (0.15, 0.00, 0.05), (0.15, 0.25, 0.02), (0.15, 0.36, 0.05),
    (0.30, 0.30, 0.10), (0.30, 0.44, 0.02), (0.30, 0.57, 0.05),
    (0.45, 0.48, 0.05), (0.45, 0.60, 0.10), (0.45, 0.75, 0.02),
    (0.60, 0.62, 0.02), (0.60, 0.76, 0.05), (0.60, 0.86, 0.10),
)  # fmt: skip


def score_of(scorer: Scorer, scene: Scene, model: Floats, rng: np.random.Generator) -> Floats:
    """[N] log odds by which the policy ranks. model: [N] of the logging policy."""
    truth = np.log(scene.appeal) - np.log1p(-scene.appeal)
    out: Floats = (1 - scorer.insight) * model + scorer.insight * truth + scorer.noise * rng.normal(size=len(model))
    return out


def kendall_tau(truth: Floats, value: Floats) -> float:
    """Kendall's tau-b of estimates and truths; 0 where all estimates are equal, which orders nothing."""
    from scipy.stats import kendalltau

    found = float(kendalltau(truth, value).statistic)
    return found if np.isfinite(found) else 0.0


def regret(truth: Floats, value: Floats) -> float:
    """What is lost by taking the policy that looks best, as a share of the value of the best."""
    best = float(truth.max())
    return 1.0 - float(truth[int(np.argmax(value))]) / best if best > 0 else 0.0


def chance_of_best(truth: Floats, replicates: Floats) -> float:
    """Share of joint replicates [replicates, policies] in which the truly best policy comes first."""
    return float(np.mean(np.argmax(replicates, axis=1) == int(np.argmax(truth))))
