"""Which known item is played next: weights of its places in the lists of recent and of favourite items.

No vector ranks known items as well as when and how often they were played (Anderson and others, "The dynamics of repeat
consumption", WWW 2014: recency dominates). The model is one logistic regression on two numbers, the logarithm of each
place, fitted on each listener's last session given the lists before it. It is stored as two tables of log-odds by
place, so that a request adds two lookups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints, ItemTable
from recommender.events.columns import one_chunk
from recommender.events.table import SESSION_GAP_S
from recommender.shelves.profile import Profiles, build_profiles

PLACES = 50
_LEAST_REPLAYS = 200  # fewer replays than this do not fit two slopes: the power law stays


@dataclass(frozen=True, slots=True, eq=False)
class ReplayWeights:
    """Log-odds by place in the list of recent [PLACES] and of favourite items [PLACES]; absent adds 0.

    replays: known items that were played again, on which the weights were fitted; 0 for the power law.
    """

    recent: Floats
    favourite: Floats
    replays: int

    def score(self, recent: Ints, favourite: Ints) -> tuple[Ints, Floats]:
        """The distinct rows of both lists, ascending, and the log-odds of each."""
        recent, favourite = recent[: len(self.recent)], favourite[: len(self.favourite)]
        row, where = np.unique(np.concatenate([recent, favourite]), return_inverse=True)
        weight = np.concatenate([self.recent[: len(recent)], self.favourite[: len(favourite)]])
        return row, np.bincount(where, weights=weight, minlength=len(row)).astype(np.float64)


def power_law() -> ReplayWeights:
    """Weights for too little data: falling with the place, recency before frequency."""
    falling: Floats = (1.0 + np.arange(PLACES, dtype=np.float64)) ** -0.7
    return ReplayWeights(falling, 0.7 * falling, 0)


def fit_replay_weights(events: pa.Table, items: ItemTable, *, ridge: float = 1.0) -> ReplayWeights:
    """Weights fitted on the last session of each listener; the power law where there are too few replays.

    events: the event table. ridge: penalty on the slopes.
    """
    before, last = split_last_sessions(events)
    if not len(before):
        return power_law()
    feature, replayed, _ = _examples(build_profiles(before, items, limit=PLACES), last, items)
    if replayed.sum() < _LEAST_REPLAYS or replayed.all():
        return power_law()
    slope = logistic(feature, replayed, ridge)
    place = log_place(np.arange(PLACES))
    # the coefficient of presence is part of each table, so that an absent item adds exactly nothing
    return ReplayWeights(slope[1] + slope[2] * place, slope[3] + slope[4] * place, int(replayed.sum()))


def split_last_sessions(events: pa.Table, gap_s: int = SESSION_GAP_S) -> tuple[pa.Table, pa.Table]:
    """The events before each listener's last session, and those of it. `events` sorted by listener and time."""
    if not len(events):
        return events, events
    user = one_chunk(events["user_id"]).dictionary_encode().indices.to_numpy()
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    new = np.concatenate([[True], (np.diff(user) != 0) | (np.diff(at_us) > gap_s * 1_000_000)])
    session = np.cumsum(new) - 1
    end_of_user = np.concatenate([np.flatnonzero(np.diff(user) != 0), [len(user) - 1]])
    last = np.isin(session, session[end_of_user])
    return events.filter(pa.array(~last)), events.filter(pa.array(last))


def _examples(profiles: Profiles, last: pa.Table, items: ItemTable) -> tuple[Floats, Bools, Ints]:
    """Features [m, 5], whether it was played in the last session [m], and the listener [m], of each known item."""
    n_users, n_items = len(profiles), len(items)
    lists = (profiles.recent_rows, profiles.favourite_rows)
    keys, places = [], []
    for ragged in lists:
        size = np.diff(ragged.offset)
        keys.append(np.repeat(np.arange(n_users), size) * n_items + ragged.value)
        places.append(np.arange(len(ragged.value)) - np.repeat(ragged.offset[:-1], size))
    key = np.unique(np.concatenate(keys))
    feature = np.zeros((len(key), 5))
    feature[:, 0] = 1
    for column, (own, place) in zip((1, 3), zip(keys, places, strict=True), strict=True):
        at = np.searchsorted(key, own)
        feature[at, column] = 1
        feature[at, column + 1] = log_place(place)
    names, row_of = profiles.index, items.row_of
    skipped = one_chunk(pc.fill_null(last["skipped"], False)).to_pylist()
    pairs = zip(last["user_id"].to_pylist(), last["item_id"].to_pylist(), skipped, strict=True)
    played = [names[u] * n_items + row_of[i] for u, i, s in pairs if not s and u in names and i in row_of]
    return feature, np.isin(key, np.array(played, dtype=np.int64)), key // n_items


def log_place(place: Ints) -> Floats:
    return -np.log1p(place.astype(np.float64))


def logistic(x: Floats, y: Bools, ridge: float, steps: int = 30) -> Floats:
    """Coefficients [features] by Newton's method; the first column, the intercept, is not penalised."""
    w = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-9
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ w)))
        gradient = x.T @ (p - y) + penalty * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        w = w - step
        if np.abs(step).max() < 1e-8:
            break
    return w
