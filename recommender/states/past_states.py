"""Listener vectors as they would have been at past visits: what a new batch would have known of whom, and when.

A session counts once it could no longer go on, 20 minutes after its end: so nothing that came after a visit moves its
vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from bart.types import DEVICES, Context, Floats32, Ints, Strings
from recommender.listener.model import ListenerModel
from recommender.sessions.plays import is_play, worth
from recommender.sessions.sessions import GAP_S
from recommender.sessions.table import DAY_S, Sessions
from recommender.states.favourites import most_liked, vector_of_liked

if TYPE_CHECKING:
    import pyarrow as pa

_TOGETHER = 128  # listeners advanced together


def vectors_at(
    model: ListenerModel,
    sessions: Sessions,
    user_id: Strings,
    at_s: Ints,
    hour: Ints,
    weekday: Ints,
    device: Ints,
    cold: Floats32,
) -> Floats32:
    """[n, d], the listener's vector at each of n visits.

    user_id, at_s (seconds UTC), hour and weekday (the listener's local ones), device (codes): [n]. cold: [d] or [n, d],
    for listeners without a session by then. Ends are cut to whole seconds: one more keeps the rule on the safe side.
    """
    sessions = sessions.with_sources(model.sources)
    out = np.broadcast_to(np.asarray(cold, np.float32), (len(at_s), sessions.columns.all.shape[1])).copy()
    number = {user: i for i, user in enumerate(sessions.user_id.tolist())}
    user = np.array([number.get(name, -1) for name in user_id.tolist()], dtype=np.int64)
    visits = [np.empty(0, dtype=np.int64)] * sessions.n_users
    order = np.argsort(user, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(user[order])) + 1) if len(order) else ():
        if user[rows[0]] >= 0:
            visits[user[rows[0]]] = rows
    visiting = np.array([u for u, rows in enumerate(visits) if len(rows)], dtype=np.int64)
    for start in range(0, len(visiting), _TOGETHER):
        some = visiting[start : start + _TOGETHER]
        finished: dict[int, list[tuple[int, int]]] = {}  # after how many sessions which visits of which listener come
        for place, u in enumerate(some.tolist()):
            ended_s = np.maximum.accumulate(sessions.columns.ended_s[sessions.offset[u] : sessions.offset[u + 1]])
            for row, count in zip(
                visits[u].tolist(), np.searchsorted(ended_s, at_s[visits[u]] - GAP_S - 1, "right").tolist(), strict=True
            ):
                if count:
                    finished.setdefault(count, []).append((place, row))
        state = model.initial(sessions.account_age_d[some])
        for t in range(max(finished, default=0)):
            active = np.flatnonzero(sessions.size[some] > t)
            state[active] = model.advance_many(
                state[active], sessions.columns.take(sessions.offset[:-1][some[active]] + t)
            )
            for place, row in finished.get(t + 1, ()):
                out[row] = model.predict(state[place], _context(at_s[row], hour[row], weekday[row], device[row]))
    return out


def liked_at(
    events: pa.Table, row_of: Mapping[str, int], vector: Floats32, user_id: Strings, at_s: Ints, cold: Floats32
) -> Floats32:
    """[n, d], at each of n visits the vector of a listener who has played nothing: of what was liked by then.

    events: the event table. row_of, vector ([items, d]): of the items. user_id, at_s (seconds UTC): [n].
    cold: [d], where nothing was.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    out = np.tile(np.asarray(cold, np.float32), (len(at_s), 1))
    signals = events.filter(pa.array(~is_play(events)))
    visitors = pa.array(sorted(set(user_id.tolist())), pa.string())
    signals = signals.filter(pc.is_in(signals["user_id"], visitors)).sort_by("started_at")
    if not len(signals):
        return out
    told_s = signals["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    row = np.array([row_of.get(item, -1) for item in signals["item_id"].to_pylist()], dtype=np.int64)
    count, of = worth(signals), signals["user_id"].to_numpy()
    for user in np.unique(of):
        own = np.flatnonzero((of == user) & (row >= 0))
        for visit in np.flatnonzero(user_id == user).tolist():
            known = own[: int(np.searchsorted(told_s[own], at_s[visit]))]
            out[visit] = vector_of_liked(vector[most_liked(row[known], count[known])], cold)
    return out


def _context(at_s: int, hour: int, weekday: int, device: int) -> Context:
    """A context with this local hour and weekday; the minutes of the offset make no difference to a model."""
    away_h = (int(weekday) * 24 + int(hour)) - ((at_s // DAY_S + 3) % 7 * 24 + at_s // 3600 % 24)
    away_h = (int(away_h) + 84) % 168 - 84
    name = DEVICES[device] if device < len(DEVICES) else "other"
    return Context(datetime.fromtimestamp(int(at_s), tz=timezone.utc), 60 * away_h, name)
