"""Which listener model ranks a listener's next session best, on the last sessions of the data themselves.

Each judged session's tracks stand among a hundred that other listeners played in the same time, so that a popular
track is no better a guess than another: what is measured is what a vector knows of its listener.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bart.types import Bools, Floats, Floats32, Ints
from recommender.sessions.table import DAY_S, Sessions, TimeSplit

FEWEST = 50  # listeners; fewer tell models apart by chance alone
_MOST = 500  # listeners that are judged
_OTHERS = 100  # tracks that others played, beside those of the session
_HELD_OUT = (0.1, 0.2, 0.3, 0.4)  # shares of the sessions, in time
_DAYS = 5.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """What one model's vectors rank: means over listeners, and how alike the vectors of two listeners are.

    ndcg: [listeners], NDCG at 10 of each. likeness: mean cosine of two listeners drawn at random.
    """

    ndcg: Floats
    mrr: float
    recall: float
    likeness: float

    @property
    def mean(self) -> float:
        return float(self.ndcg.mean())

    @property
    def error(self) -> float:
        """Half the 95 % interval of the mean, listeners the unit."""
        return float(1.96 * self.ndcg.std(ddof=1) / np.sqrt(len(self.ndcg)))


def choice_split(sessions: Sessions) -> TimeSplit:
    """The last tenth to fifth of the sessions held out, five days where these lie between, and more, up to two fifths,
    where fewer than 50 listeners could be judged; of them the earlier half (the validation set) chooses a network's
    epoch and the later one (the test set) the model.
    """
    started = np.sort(sessions.columns.started_s)
    tenth, fifth, wider, widest = (int(started[int((1 - share) * (len(started) - 1))]) for share in _HELD_OUT)
    days = int(np.clip(int(started[-1]) + 1 - _DAYS * DAY_S, fifth, tenth))
    splits = []
    for since in (days, wider, widest):
        held = started[np.searchsorted(started, since) :]
        splits.append(TimeSplit(since, int(held[len(held) // 2])))
        if len(np.unique(sessions.user[_able(sessions, splits[-1].test_s)])) >= FEWEST:
            return splits[-1]
    return splits[0]


def _able(sessions: Sessions, since_s: int) -> Bools:
    """[n], sessions since then that can be judged: something was played, and there is a history."""
    return (sessions.columns.started_s >= since_s) & sessions.has_played & (sessions.position > 0)


def judged_sessions(sessions: Sessions, since_s: int, rng: np.random.Generator) -> Ints:
    """Rows of the sessions since then of at most 500 listeners who have a history, ascending."""
    able = _able(sessions, since_s)
    users = np.unique(sessions.user[able])
    if len(users) > _MOST:
        users = rng.choice(users, _MOST, replace=False)
    return np.flatnonzero(able & np.isin(sessions.user, users))


def ranked(
    sessions: Sessions, rows: Ints, vector: Floats32, models: Mapping[str, Floats32], rng: np.random.Generator
) -> dict[str, Ranked]:
    """How each model's vectors rank the judged sessions. models: [m, d] before each of `rows` by name."""
    played = [_played(sessions, row) for row in rows.tolist()]
    pool, owner = np.concatenate(played), np.repeat(sessions.user[rows], [len(p) for p in played])
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for k, row in enumerate(rows.tolist()):
        drawn = rng.integers(len(pool), size=_OTHERS)
        others = np.setdiff1d(pool[drawn[owner[drawn] != sessions.user[row]]], played[k])
        candidates = vector[np.concatenate([played[k], others])]
        for name, u in models.items():
            found[name].append(_one(candidates @ u[k], len(played[k])))
    _, listener = np.unique(sessions.user[rows], return_inverse=True)
    return {name: _of_listeners(np.array(values), listener, models[name]) for name, values in found.items()}


def chosen(table: Mapping[str, Ranked]) -> str:
    """The model with the best NDCG; of equal ones the first."""
    return max(table, key=lambda name: table[name].mean)


def _played(sessions: Sessions, row: int) -> Ints:
    tracks = slice(sessions.track_offset[row], sessions.track_offset[row + 1])
    return np.unique(sessions.track[tracks][~sessions.track_skipped[tracks]])


def _one(score: Floats32, n_played: int) -> tuple[float, float, float]:
    """NDCG and recall at 10, and reciprocal rank of the first, of a list whose first `n_played` are right; equal scores
    count as if the wrong ones stood first, so that one vector for all earns nothing by their order.
    """
    order = np.lexsort((-np.arange(len(score)), -score))
    place = np.flatnonzero(order < n_played)
    gain = 1 / np.log2(np.arange(2, 12))
    top = place[place < 10]
    return float(gain[top].sum() / gain[:n_played].sum()), 1 / (1 + float(place[0])), len(top) / min(n_played, 10)


def _of_listeners(values: Floats, listener: Ints, u: Floats32) -> Ranked:
    count = np.bincount(listener)
    ndcg, mrr, recall = (np.bincount(listener, column) / count for column in values.T)
    last = np.zeros((len(count), u.shape[1]))
    last[listener] = u  # one vector a listener
    n = len(count)
    total = last.sum(axis=0)
    likeness = (total @ total - (last**2).sum()) / max(n * (n - 1), 1)
    return Ranked(ndcg, float(mrr.mean()), float(recall.mean()), float(likeness))
