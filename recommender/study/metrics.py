"""How well vectors predict sessions: cosine, session ranking and track ranking of section 6.2 of the CoSeRNN paper, and
beside them two that cannot be gamed.

The paper ranks a session among the listener's own last ones, so a vector that points away from the past does well.
`open_mrr` ranks it among random sessions of other listeners. The paper's track candidates include the current
session's own tracks, as far as its figures tell; `literal` takes the tracks of earlier sessions only.

All functions take predictions [m, d] for the m rows asked for, and give one value a row, so that means, contexts
and tests by listener can be taken afterwards. NaN marks a row to which a metric does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.types import Bools, Floats, Floats32, Ints
from recommender.sessions.table import Sessions
from recommender.study.seeds import seeded_difference

_AT_ONCE = 4096  # rows whose candidates are gathered together


@dataclass(frozen=True, slots=True, eq=False)
class TrackCandidates:
    """row: [m, k] candidate tracks, the last heard first, -1 where fewer exist.

    relevant: [m, k], those that the session played. plays, skips: [m, k] how often each was played through and skipped
    while the k were heard.
    """

    row: Ints
    relevant: Bools
    plays: Ints
    skips: Ints


def cosine(u: Floats32, sessions: Sessions, rows: Ints) -> Floats:
    """[m] cosine to the played vector; u: [m, d] unit vectors (or zero)."""
    out: Floats = np.einsum("md,md->m", u, sessions.columns.played[rows], dtype=np.float64)
    return out


def session_rank(u: Floats32, sessions: Sessions, rows: Ints, k: int) -> Floats:
    """[m] rank of the session among the listener's last k, itself included; equal ones share the mean of their ranks.

    A session of which nothing was played through has no vector to be ranked by, so it is no candidate. NaN for a
    listener with fewer than k candidates so far, and for such a session itself.
    """
    played = np.flatnonzero(sessions.has_played)
    place = np.searchsorted(played, rows)  # of the session among those with a vector
    first = np.searchsorted(played, sessions.offset[sessions.user[rows]])
    own = sessions.has_played[rows]
    out = np.full(len(rows), np.nan)
    for some in _chunks(np.flatnonzero(own & (place - first >= k - 1))):
        window = played[place[some][:, None] - np.arange(k)]  # [m, k], the session itself first
        score = np.einsum("md,mkd->mk", u[some], sessions.columns.played[window])
        out[some] = rank_of_first(score)
    return out


def open_rank(u: Floats32, sessions: Sessions, rows: Ints, other: Ints) -> Floats:
    """[m] rank of the session among it and sessions `other` [m, k - 1] of other listeners (`open_candidates`)."""
    out = np.empty(len(rows))
    for some in _chunks(np.arange(len(rows))):
        candidates = np.concatenate([rows[some, None], other[some]], axis=1)
        out[some] = rank_of_first(np.einsum("md,mkd->mk", u[some], sessions.columns.played[candidates]))
    return out


def open_candidates(sessions: Sessions, rows: Ints, rng: np.random.Generator, k: int = 19) -> Ints:
    """[m, k] sessions out of `rows`, drawn uniformly from those of other listeners."""
    user = sessions.user[rows]  # ascending
    first, last = np.searchsorted(user, user, side="left"), np.searchsorted(user, user, side="right")
    others = len(rows) - (last - first)
    if len(rows) and others.min() < 1:
        raise ValueError("rows are of one listener; expected at least two")
    drawn = np.floor(rng.random((len(rows), k)) * others[:, None]).astype(np.int64)
    drawn += (drawn >= first[:, None]) * (last - first)[:, None]  # jump over the listener's own
    return rows[drawn]


def rank_of_first(score: Floats32) -> Floats:
    """[m] rank of column 0 within each row by descending score, ties at the mean of their ranks."""
    own = score[:, :1]
    return np.asarray(1 + (score[:, 1:] > own).sum(axis=1) + 0.5 * (score[:, 1:] == own).sum(axis=1))


def track_candidates(sessions: Sessions, rows: Ints, k: int, *, literal: bool = False) -> TrackCandidates:
    """The k distinct tracks last heard before the end of each session; before its start if `literal`.

    rows: ascending. Relevant is what was played in the session and not skipped.
    """
    n_tracks = int(sessions.track.max(initial=0)) + 1
    row, plays, skips = _recent_distinct()(
        sessions.offset, sessions.track_offset, sessions.track, sessions.track_skipped, rows, k, literal, n_tracks
    )
    relevant = np.zeros(row.shape, dtype=np.bool_)
    start, size = sessions.track_offset[rows], np.diff(sessions.track_offset)[rows]
    for j in range(int(size.max(initial=0))):
        at = np.minimum(start + j, len(sessions.track) - 1)
        counts = (j < size) & ~sessions.track_skipped[at]
        relevant |= counts[:, None] & (row == sessions.track[at][:, None])
    return TrackCandidates(row, relevant & (row >= 0), plays, skips)


def track_cosine(u: Floats32, vector: Floats32, candidates: TrackCandidates) -> Floats32:
    """[m, k] cosine of each candidate to u [m, d]. vector: [items, d] unit vectors."""
    out = np.zeros(candidates.row.shape, dtype=np.float32)
    for some in _chunks(np.arange(len(out))):
        out[some] = np.einsum("md,mkd->mk", u[some], vector[np.maximum(candidates.row[some], 0)])
    return out


def track_ranking(score: Floats32 | Floats, candidates: TrackCandidates) -> tuple[Floats, Floats]:
    """[m] average precision and [m] recall at 10 of the candidates ranked by score [m, k]; NaN where none is relevant.

    Equal scores keep the order of recency.
    """
    m, k = candidates.row.shape
    precision, recall = np.full(m, np.nan), np.full(m, np.nan)
    for some in _chunks(np.flatnonzero(candidates.relevant.any(axis=1))):
        row = candidates.row[some]
        order = np.argsort(-np.where(row >= 0, score[some], -np.inf), axis=1, kind="stable")
        relevant = np.take_along_axis(candidates.relevant[some], order, axis=1)
        total = relevant.sum(axis=1)
        precision[some] = (relevant * np.cumsum(relevant, axis=1) / np.arange(1, k + 1)).sum(axis=1) / total
        recall[some] = relevant[:, :10].sum(axis=1) / total
    return precision, recall


def clustered_p_value(difference: Floats, user: Ints) -> float:
    """P-value of a two-sided paired t-test on listeners' mean differences [m]; NaN rows are left out.

    Sessions of one listener resemble each other, so the listener is the unit, not the session. 1.0 where the
    difference is zero throughout, NaN for fewer than two listeners. Of one training: `seeded_difference` knows several.
    """
    p = seeded_difference(difference[None], user).p_value
    return float("nan") if p is None else p


def _chunks(rows: Ints) -> list[Ints]:
    return [rows[i : i + _AT_ONCE] for i in range(0, len(rows), _AT_ONCE)]


def _recent_distinct() -> Any:
    """The compiled walk over histories; compiled at first use, because numba takes a second to import."""
    global _compiled
    if _compiled is None:
        from numba import njit

        _compiled = njit(cache=True)(_walk)
    return _compiled


_compiled: Any = None


def _walk(
    offset: Ints, track_offset: Ints, track: Ints, skipped: Bools, rows: Ints, k: int, literal: bool, n_tracks: int
) -> tuple[Ints, Ints, Ints]:  # pragma: no cover (compiled)
    """[m, k] distinct tracks before (or up to) each session, newest first, -1 where there are fewer; how often each was
    played and skipped on the way.
    """
    out = np.full((len(rows), k), -1, dtype=np.int64)
    plays, skips = np.zeros((len(rows), k), dtype=np.int64), np.zeros((len(rows), k), dtype=np.int64)
    seen = np.full(n_tracks, -1, dtype=np.int64)  # the last row for which a track was noted
    place = np.zeros(n_tracks, dtype=np.int64)  # and where in that row
    for i in range(len(rows)):
        row = rows[i]
        user = np.searchsorted(offset, row, side="right") - 1
        at = track_offset[row if literal else row + 1] - 1
        stop = track_offset[offset[user]]
        n = 0
        while at >= stop and n < k:
            if seen[track[at]] != i:
                seen[track[at]] = i
                place[track[at]] = n
                out[i, n] = track[at]
                n += 1
            if skipped[at]:
                skips[i, place[track[at]]] += 1
            else:
                plays[i, place[track[at]]] += 1
            at -= 1
    return out, plays, skips
