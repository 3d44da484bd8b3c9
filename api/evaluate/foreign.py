"""Listener vectors of another batch for logged pages: what that bundle's own model would have known at the time.

A vector of one batch means nothing in another, so a bundle of another batch can only be evaluated where its listener
model can be run over the listening that came before each page.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np

from bart.types import DEVICES, Context, Floats32, Ints, ItemTable, PageBatch

if TYPE_CHECKING:
    import pyarrow as pa

    from bart.bundle import Bundle
    from recommender.listener.model import ListenerModel
    from recommender.sessions.table import Sessions

DAY_S = 86_400


class EarlierListening:
    """Vectors by a bundle's listener model from the sessions that were over when a page was decided.

    A session counts once 20 minutes have passed without a play: only then can nothing that came later have become part
    of it, so that a page's vector depends on nothing after it. cold: the vector of who had no such session.
    """

    def __init__(self, model: ListenerModel, sessions: Sessions, cold: Floats32) -> None:
        self._model = model
        self._sessions = sessions.with_sources(model.sources)
        self._row = {str(user): i for i, user in enumerate(sessions.user_id)}
        self._cold = cold
        self.pages, self.cold_pages = 0, 0

    def on(self, batch: PageBatch) -> PageBatch:
        """The pages with this model's vectors. Counts them, and those of listeners without an earlier session."""
        from recommender.sessions.sessions import GAP_S

        user = np.array([self._row.get(str(u), -1) for u in batch.user_id], dtype=np.int64)
        out = np.tile(self._cold.astype(np.float32), (len(batch), 1))
        ended = self._sessions.columns.ended_s
        before = np.zeros(len(batch), dtype=np.int64)
        for i in np.flatnonzero(user >= 0):
            first, last = self._sessions.offset[user[i]], self._sessions.offset[user[i] + 1]
            # Ends are cut to whole seconds: one more keeps the rule on the safe side.
            before[i] = np.searchsorted(ended[first:last], batch.at_s[i] - GAP_S - 1, side="right")
        warm = np.flatnonzero(before > 0)
        for u in np.unique(user[warm]):
            pages = warm[user[warm] == u]
            state, done = self._model.initial(self._sessions.account_age_d[[u]]), 0
            for i in pages[np.argsort(before[pages], kind="stable")]:
                while done < before[i]:
                    at = np.array([self._sessions.offset[u] + done])
                    state = self._model.advance_many(state, self._sessions.columns.take(at))
                    done += 1
                out[i] = self._model.predict(state[0], _context(batch, int(i)))
        self.pages += len(batch)
        self.cold_pages += len(batch) - len(warm)
        return replace(batch, listener=out)


def earlier_listening(bundle: Bundle, items: ItemTable, events: pa.Table) -> EarlierListening:
    """The same from an event table; items of the events are matched by id."""
    from recommender.sessions.sessions import cut_sessions
    from recommender.states.states import load_listener_model

    folder = bundle.folder("listener")
    model = load_listener_model(folder)
    row_of = {str(item): row for row, item in enumerate(items.item_id)}
    sessions = cut_sessions(events, row_of, items.vector)
    kept = folder / "cold_vector.npy"
    cold = np.load(kept) if kept.exists() else np.zeros(model.dimension, dtype=np.float32)
    return EarlierListening(model, sessions, cold)


def _context(batch: PageBatch, page: int) -> Context:
    """Of one page: the offset is worked out from the local weekday and hour."""
    at = datetime.fromtimestamp(int(batch.at_s[page]), timezone.utc)
    days = (int(batch.weekday[page]) - at.weekday() + 3) % 7 - 3  # -1, 0 or 1
    hours = 24 * days + int(batch.hour[page]) - at.hour
    code = int(batch.device[page])
    local = at + timedelta(hours=hours)
    minutes = int((local - at).total_seconds() // 60)
    return Context(at, utc_offset_min=minutes, device=DEVICES[code] if code < len(DEVICES) else "other")


def rows_in(items: ItemTable, known: ItemTable) -> Ints:
    """[n + 1]: the row in `known` of each item of `items` by id, -1 where it is not there; the last stands for -1."""
    row = {str(item): i for i, item in enumerate(known.item_id)}
    return np.array([*(row.get(str(item), -1) for item in items.item_id), -1], dtype=np.int64)
