"""Which known item is played again, by counts that decay at several speeds.

How often and how lately an item was played says most of whether it comes again (Anderson and others, "The dynamics of
repeat consumption", WWW 2014), and how fast that fades differs: a station rotates in days, a band keeps songs for
months, and both rest what they have just played. So the listener's history keeps counts of three half-lives, and the
weights of these, of plays and time since the last one, and of what everybody plays of late are one logistic regression,
fitted on each listener's last sessions given what was before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.types import Bools, Floats, Floats32, Ints, ItemTable
from recommender.events.columns import one_chunk, rows_of
from recommender.events.table import SESSION_GAP_S
from recommender.features.history import History, faded
from recommender.sessions.codes import coded
from recommender.sessions.plays import worth
from recommender.shelves.reconsumption import logistic

WINDOWS_D = (0.25, 1.0, 7.0, 30.0)  # of what everybody plays of late
_LEAST_REPLAYS = 200
_SESSIONS, _MOST_OF_ONE, _MOST_ITEMS, _MOST_ROWS = 2_000, 60, 500, 400_000  # to learn from
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class DecayedWeights:
    """own: of `own_features`. item: [items] log-odds by everybody's plays. replays: known items that were played again,
    on which the weights were fitted.
    """

    own: Floats32
    item: Floats32
    replays: int

    def best(self, history: Mapping[str, NDArray[Any]], at_s: float, n: int, alone: Bools) -> Ints:
        """At most n rows that the listener has played, those first that are likeliest to be played again.

        alone: [items], which may be offered; a row beyond it came after the batch and is passed over.
        """
        item = history["item"]
        known = np.flatnonzero((history["plays"] > 0) & (item < min(len(alone), len(self.item))))
        known = known[alone[item[known]]]
        plays, last_s, decayed = (history[name][known] for name in ("plays", "last_s", "decayed"))
        row = item[known]
        score = own_features(plays, last_s, decayed, at_s) @ self.own + self.item[row]
        if len(score) > n:
            first = np.argpartition(-score, n)[:n]
            row, score = row[first], score[first]
        best: Ints = row[np.lexsort((row, -score))]
        return best


def own_features(plays: NDArray[np.uint16], last_s: Ints, decayed: Floats32, at_s: float) -> Floats32:
    """[k, 2 + half-lives] logarithms of plays, of hours since the last one, and of the decayed counts, now."""
    since_s = np.maximum(at_s - last_s, 0.0).astype(np.float32)
    out = np.empty((len(plays), 2 + decayed.shape[1]), dtype=np.float32)
    out[:, 0] = np.log1p(plays.astype(np.float32))
    out[:, 1] = np.log1p(since_s / np.float32(3_600.0))
    out[:, 2:] = np.log(np.float32(0.05) + decayed * faded(since_s))
    return out


def fit_decayed_weights(events: pa.Table, items: ItemTable, ridge: float = 1.0) -> DecayedWeights | None:
    """Weights fitted on the last sessions of the listeners; None where there are too few replays.

    events: the plays of an event table, sorted by listener and time.
    """
    listener, row, at_s = _played(events, items)
    if not len(row):
        return None
    everybody = _Everybody(row, at_s)
    x, y, rows = [], [], 0
    for before, session in _sessions(listener, at_s):
        own, again, known = _examples(row[before], at_s[before], row[session], float(at_s[session.start]))
        x.append(np.column_stack([np.ones(len(own)), own, everybody.lately(known, int(at_s[session.start]))]))
        y.append(again)
        rows += len(own)
        if rows >= _MOST_ROWS:
            break
    replayed = np.concatenate(y) if y else np.empty(0, dtype=np.bool_)
    if replayed.sum() < _LEAST_REPLAYS or replayed.all():
        return None
    slope = logistic(np.concatenate(x), replayed, ridge)[1:]
    item = everybody.lately(np.arange(len(items)), int(at_s.max()) + 1) @ slope[-len(WINDOWS_D) :]
    own_slope = slope[: -len(WINDOWS_D)].astype(np.float32)
    return DecayedWeights(own_slope, item.astype(np.float32), int(replayed.sum()))


class _Everybody:
    """Plays of all, to be counted by item and time."""

    def __init__(self, row: Ints, at_s: Ints) -> None:
        self._first_s, self._span = int(at_s.min()), int(at_s.max() - at_s.min()) + 2
        self._key = np.sort(row * self._span + (at_s - self._first_s))

    def lately(self, row: Ints, before_s: int) -> Floats:
        """[k, windows], the logarithms of one more than the plays of rows [k] in each span that ends then."""
        at = np.clip(before_s - self._first_s, 0, self._span - 1)
        end = np.searchsorted(self._key, row * self._span + at)
        out = np.empty((len(row), len(WINDOWS_D)))
        for k, days in enumerate(WINDOWS_D):
            start = np.searchsorted(self._key, row * self._span + max(at - int(days * _DAY_S), 0))
            out[:, k] = np.log1p(end - start)
        return out


def _played(events: pa.Table, items: ItemTable) -> tuple[Ints, Ints, Ints]:
    """Number of the listener, row and seconds UTC of each play of a known item that was not skipped."""
    row = rows_of(events["item_id"], items.item_id)
    _, user = coded(events["user_id"])
    at_s = one_chunk(events["started_at"].cast(pa.int64())).to_numpy() // 1_000_000
    keep = (row >= 0) & (worth(events) > 0)
    return user[keep], row[keep], at_s[keep]


def _sessions(listener: Ints, at_s: Ints) -> Iterator[tuple[slice, slice]]:
    """What a listener had played, and the session after it: the last ones of each, of some listeners."""
    new = np.flatnonzero((np.diff(listener) != 0) | (np.diff(at_s) > SESSION_GAP_S)) + 1
    start = np.concatenate([[0], new, [len(listener)]])  # of sessions
    own = np.concatenate([[0], np.flatnonzero(np.diff(listener[start[:-1]])) + 1, [len(start) - 1]])  # of listeners
    n = len(own) - 1
    each = int(np.clip(_SESSIONS // n, 1, _MOST_OF_ONE))
    for k in np.unique(np.linspace(0, n - 1, min(n, _SESSIONS)).astype(np.int64)).tolist():
        first, last = int(own[k]), int(own[k + 1])
        for s in range(max(first + 1, last - each), last):
            yield slice(int(start[first]), int(start[s])), slice(int(start[s]), int(start[s + 1]))


def _examples(row: Ints, at_s: Ints, later: Ints, now_s: float) -> tuple[Floats32, Bools, Ints]:
    """Features of the known items played last, which of them come in the session, and their rows."""
    history = History.empty(0, 0).counted(row, np.zeros(len(row), dtype=np.bool_), at_s)
    kept = np.sort(np.argsort(-history.last_s, kind="stable")[:_MOST_ITEMS])
    known = history.item[kept]
    own = own_features(history.plays[kept], history.last_s[kept], history.decayed[kept], now_s)
    return own, np.isin(known, later), known
