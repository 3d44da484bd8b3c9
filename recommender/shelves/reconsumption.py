"""Which known item is played next: weights of its places in the lists of recent and of favourite items.

No vector ranks known items as well as when and how often they were played (Anderson and others, "The dynamics of repeat
consumption", WWW 2014: recency dominates), and how much everybody plays them now. The model is one logistic regression
on three numbers, the logarithms of each place and of the item's plays of late, fitted on each listener's last session
given what was before it, and on the sessions before that where replays are few. It is stored as log-odds by place and
by item, so that a request adds three lookups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints, ItemTable
from recommender.events.columns import one_chunk, rows_of
from recommender.events.table import SESSION_GAP_S
from recommender.sessions.codes import coded
from recommender.sessions.plays import worth
from recommender.shelves.profile import Profiles, build_profiles

PLACES = 50
_LEAST_REPLAYS = 200  # fewer replays than this do not fit the slopes: the power law stays
_ENOUGH_REPLAYS = 500  # with as many no earlier session is needed
_MOST_SESSIONS, _MOST_EVENTS = 12, 2_000_000  # sessions of a listener to learn from, and events read for it in all
_LATELY_D = 30
_TOLD = ("user_id", "item_id", "started_at", "skipped", "weight", "type")  # of an event


@dataclass(frozen=True, slots=True, eq=False)
class ReplayWeights:
    """Log-odds by place in the list of recent [PLACES] and of favourite items [PLACES], and by item; absent adds 0.

    replays: known items that were played again, on which the weights were fitted; 0 for the power law. item: by row of
    the item table, or none.
    """

    recent: Floats
    favourite: Floats
    replays: int
    item: Floats = field(default_factory=lambda: np.empty(0))

    def score(self, recent: Ints, favourite: Ints) -> tuple[Ints, Floats]:
        """The distinct rows of both lists, ascending, and the log-odds of each."""
        from recommender.shelves.history_kernel import add_replays  # numba loads only where pages are decided

        recent, favourite = np.ascontiguousarray(recent), np.ascontiguousarray(favourite)
        row, score = np.empty(len(recent) + len(favourite), np.int64), np.empty(len(recent) + len(favourite))
        n = add_replays(recent, favourite, self.recent, self.favourite, self.item, row, score)
        return row[:n], score[:n]

    def best(self, recent: Ints, favourite: Ints) -> Ints:
        """The distinct rows of both lists, those first that are likeliest to be played again."""
        from recommender.shelves.history_kernel import sort_best

        row, score = self.score(recent, favourite)
        sort_best(row, score)
        return row


def power_law() -> ReplayWeights:
    """Weights for too little data: falling with the place, recency before frequency."""
    falling: Floats = (1.0 + np.arange(PLACES, dtype=np.float64)) ** -0.7
    return ReplayWeights(falling, 0.7 * falling, 0)


def fit_replay_weights(events: pa.Table, items: ItemTable, *, ridge: float = 1.0) -> ReplayWeights:
    """Weights fitted on the last sessions of each listener; the power law where there are too few replays.

    events: the event table. ridge: penalty on the slopes.
    """
    events = events.select([name for name in _TOLD if name in events.column_names])  # what is left out is copied
    features, outcomes, before = [np.empty((0, 6))], [np.empty(0, dtype=np.bool_)], events
    for _ in range(int(np.clip(_MOST_EVENTS // max(len(events), 1), 1, _MOST_SESSIONS))):
        before, last = split_last_sessions(before)
        if not len(before):
            break
        feature, replayed = _examples(build_profiles(before, items, limit=PLACES), last, items, _lately(before, items))
        features.append(feature)
        outcomes.append(replayed)
        if sum(int(part.sum()) for part in outcomes) >= _ENOUGH_REPLAYS:
            break
    replayed = np.concatenate(outcomes)
    if replayed.sum() < _LEAST_REPLAYS or replayed.all():
        return power_law()
    slope = logistic(np.concatenate(features), replayed, ridge)
    place = log_place(np.arange(PLACES))
    # the coefficient of presence is part of each table, so that an absent item adds exactly nothing
    by_place = slope[1] + slope[2] * place, slope[3] + slope[4] * place
    return ReplayWeights(*by_place, int(replayed.sum()), slope[5] * _lately(events, items))


def _lately(events: pa.Table, items: ItemTable) -> Floats:
    """[items], the logarithm of one more than an item's plays in the last days of the events."""
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    late = events.filter(pa.array(at_us > at_us.max() - _LATELY_D * 86_400_000_000))
    row = rows_of(late["item_id"], items.item_id)
    count: Floats = np.log1p(np.bincount(row[(row >= 0) & (worth(late) > 0)], minlength=len(items)))
    return count


def split_last_sessions(events: pa.Table, gap_s: int = SESSION_GAP_S) -> tuple[pa.Table, pa.Table]:
    """The events before each listener's last session, and those of it. `events` sorted by listener and time."""
    if not len(events):
        return events, events
    _, user = coded(events["user_id"])
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    next_user = np.append(np.flatnonzero(user[1:] != user[:-1]) + 1, len(user))
    first = np.flatnonzero((user[1:] != user[:-1]) | (np.diff(at_us) > gap_s * 1_000_000)) + 1  # of later sessions
    first = np.concatenate([[0], first])
    last = np.zeros(len(user), dtype=np.bool_)
    for since, until in zip(first[np.searchsorted(first, next_user) - 1], next_user, strict=True):
        last[since:until] = True
    return events.filter(pa.array(~last)), events.filter(pa.array(last))


def _examples(profiles: Profiles, last: pa.Table, items: ItemTable, lately: Floats) -> tuple[Floats, Bools]:
    """Features [m, 6], and whether it was played in the last session [m], of each known item. lately: [items]."""
    n_users, n_items = len(profiles), len(items)
    lists = (profiles.recent_rows, profiles.favourite_rows)
    keys, places = [], []
    for ragged in lists:
        size = np.diff(ragged.offset)
        keys.append(np.repeat(np.arange(n_users), size) * n_items + ragged.value)
        places.append(np.arange(len(ragged.value)) - np.repeat(ragged.offset[:-1], size))
    key = np.unique(np.concatenate(keys))
    feature = np.zeros((len(key), 6))
    feature[:, 0], feature[:, 5] = 1, lately[key % n_items]
    for column, (own, place) in zip((1, 3), zip(keys, places, strict=True), strict=True):
        at = np.searchsorted(key, own)
        feature[at, column] = 1
        feature[at, column + 1] = log_place(place)
    names, row_of = profiles.index, items.row_of
    skipped = one_chunk(pc.fill_null(last["skipped"], False)).to_pylist()
    pairs = zip(last["user_id"].to_pylist(), last["item_id"].to_pylist(), skipped, strict=True)
    played = [names[u] * n_items + row_of[i] for u, i, s in pairs if not s and u in names and i in row_of]
    return feature, np.isin(key, np.array(played, dtype=np.int64))


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
