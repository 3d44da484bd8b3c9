"""Which of the tracks last heard comes again: how well the vector suits it, how recent it is, how often it was played.

A vector alone ranks known tracks worse than recency does, so the serving model ranks them by a logistic regression on
both, fitted on sessions before the test set. Only past sessions enter: candidates must be `literal` ones.
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats, Floats32, Ints
from recommender.shelves.reconsumption import log_place, logistic
from recommender.study.metrics import TrackCandidates

_MOST = 10_000  # sessions to fit on
_RIDGE = 1.0


def repeat_features(cosine: Floats32, candidates: TrackCandidates) -> Floats:
    """[m, k, 5]: one, place by recency, cosine, plays, skips; the last two and the place as logarithms."""
    shape = candidates.row.shape
    place = np.broadcast_to(log_place(np.arange(shape[1])), shape)
    counts = (np.log1p(candidates.plays), np.log1p(candidates.skips))
    return np.stack([np.ones(shape), place, cosine.astype(np.float64), *counts], axis=-1)


def fit_repeats(cosine: Floats32, candidates: TrackCandidates, rng: np.random.Generator) -> Floats:
    """[5] coefficients of `repeat_features` for the log-odds that a candidate is played in the session.

    Zero but for the cosine where nothing is played again: the ranking is then the vector's.
    """
    rows: Ints = np.flatnonzero(candidates.relevant.any(axis=1))
    if not len(rows):
        return np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    rows = np.sort(rng.permutation(rows)[:_MOST])
    there = candidates.row[rows] >= 0
    x = repeat_features(cosine, candidates)[rows][there]
    return logistic(x, candidates.relevant[rows][there], _RIDGE)
