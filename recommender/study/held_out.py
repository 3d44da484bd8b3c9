"""Real listening cut at a date: what was known of each listener by then, and what they played in the days after it.

Everything that a page is made of is made anew from the earlier part alone: item vectors, popularity, tables, states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from bart.types import Context, Floats32, Ints, ItemTable, Listener
from recommender.containers.vectors import complete_vectors
from recommender.events.columns import one_chunk
from recommender.events.table import local_clock
from recommender.features.history import History
from recommender.listener.model import MemoryListener, compute_states
from recommender.sessions.plays import only_plays
from recommender.sessions.sessions import cut_sessions
from recommender.shelves.candidates import CandidateConfig, ShelfCandidates, build_candidates
from recommender.shelves.profile import build_profiles
from recommender.shelves.rules import ShelfRule
from recommender.shelves.tables import daypart_of
from recommender.vectors.sentences import Sentences, sentences_of_events
from recommender.vectors.track import train_track_vectors

DAY_S = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Plays:
    """Plays that were not skipped, by listener and time: user, row, at_s (UTC), part of the day, minutes from UTC."""

    user_id: tuple[str, ...]
    user: Ints
    row: Ints
    at_s: Ints
    part: Ints
    offset_min: Ints

    @classmethod
    def of(cls, events: pa.Table, row_of: Mapping[str, int]) -> Plays:
        """The plays of known items. Raises DataError where there are none."""
        events = only_plays(events)
        item = one_chunk(events["item_id"].cast(pa.string()).dictionary_encode())
        rows = np.array([row_of.get(name, -1) for name in item.dictionary.to_pylist()], dtype=np.int64)
        if not len(events) or not (rows >= 0).any():
            raise DataError("the run's events hold no play of a known item; nothing can be scored")
        names, user = np.unique(np.array(events["user_id"].to_pylist(), dtype=object), return_inverse=True)
        hour, weekday = local_clock(events)
        row = rows[item.indices.to_numpy()]
        kept = (row >= 0) & ~events["skipped"].fill_null(False).to_numpy().astype(bool)
        part = np.array([[daypart_of(h, w) for w in range(7)] for h in range(24)])[hour, weekday]
        at_s = one_chunk(events["started_at"].cast(pa.int64())).to_numpy() // 1_000_000
        offset_min = events["utc_offset_min"].fill_null(0).to_numpy().astype(np.int64)
        order = np.lexsort((at_s[kept], user[kept]))
        columns = (column[kept][order] for column in (user, row, at_s, part, offset_min))
        return cls(tuple(names.tolist()), *columns)


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """One listener at a cut: their plays before it (oldest first), and the distinct rows played after it, in order.

    known: rows played before, ascending.
    """

    listener: Listener
    context: Context
    row: Ints
    at_s: Ints
    part: Ints
    later: Ints
    known: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A cut date with what was known by then. count: [items], plays of everybody in the horizon before."""

    at_s: int
    items: ItemTable
    source: ShelfCandidates
    count: Ints
    visits: tuple[Visit, ...]


def cut_dates(plays: Plays, cuts: int, horizon_d: float) -> tuple[Ints, int]:
    """`cuts` + 1 dates, the first to tune on, evenly from the middle of the listening on, and the horizon in seconds:
    of a short span an eighth.
    """
    first, last = int(plays.at_s.min()), int(plays.at_s.max())
    horizon_s = int(min(horizon_d * DAY_S, (last - first) / 8))
    if horizon_s < 1:
        raise DataError("all plays have one time; expected some days of listening to score")
    return np.linspace((first + last) / 2, last - horizon_s, cuts + 1).astype(np.int64), horizon_s


def origin(
    events: pa.Table,
    plays: Plays,
    items: ItemTable,
    playlists: Sentences | None,
    rules: Mapping[str, ShelfRule],
    at_s: int,
    horizon_s: int,
    most: int,
    rng: np.random.Generator,
) -> Origin:
    """What was known at a cut, and the visits of at most so many listeners who played before and after it."""
    before = events.filter(pa.array(one_chunk(events["started_at"].cast(pa.int64())).to_numpy() < at_s * 1_000_000))
    sentences = playlists if playlists is not None else sentences_of_events(before, items.row_of)
    vector = train_track_vectors(sentences, len(items), seed=int(rng.integers(2**31 - 1)))
    total = np.bincount(plays.row[plays.at_s < at_s], minlength=len(items))
    items = replace(items, vector=vector, popularity=np.log1p(total) / max(np.log1p(total.max(initial=0)), 1e-9))
    items = replace(items, vector=complete_vectors(items))
    source = build_candidates(items, before, rng, rules=rules, config=CandidateConfig(per_shelf=50), index_kind="exact")
    lately = (plays.at_s >= at_s - horizon_s) & (plays.at_s < at_s)
    count = np.bincount(plays.row[lately], minlength=len(items))
    visits = tuple(_visits(before, plays, items, at_s, horizon_s, most, rng))
    return Origin(at_s, items, source, count, visits)


def _visits(
    before: pa.Table, plays: Plays, items: ItemTable, at_s: int, horizon_s: int, most: int, rng: np.random.Generator
) -> Iterator[Visit]:
    earlier, later = plays.at_s < at_s, (plays.at_s >= at_s) & (plays.at_s < at_s + horizon_s)
    able = np.intersect1d(plays.user[earlier], plays.user[later])
    able = np.sort(rng.permutation(able)[:most])
    if not len(able):
        return
    profiles = build_profiles(before, items)
    sessions = cut_sessions(before, items.row_of, items.vector)
    model = MemoryListener(items.dimension)
    state = dict(zip(sessions.user_id.tolist(), compute_states(model, sessions), strict=True))
    start = np.searchsorted(plays.user, np.arange(len(plays.user_id) + 1))
    for user in able.tolist():
        own = slice(start[user], start[user + 1])
        old, new = earlier[own], later[own]
        first = int(np.flatnonzero(new)[0]) + start[user]  # the visit: just before the first play after the cut
        at = datetime.fromtimestamp(int(plays.at_s[first]), tz=timezone.utc)
        context = Context(at, int(plays.offset_min[first]))
        name = plays.user_id[user]
        vector: Floats32 = model.predict(state[name], context)
        row = plays.row[own][old]
        seen, place = np.unique(plays.row[own][new], return_index=True)
        history = History.empty(0, 0).counted(row, np.zeros(len(row), dtype=np.bool_), plays.at_s[own][old]).arrays
        lists = profiles.recent(name), profiles.favourite(name)
        yield Visit(
            Listener(name, vector, recent=lists[0], favourite=lists[1], history=history),
            context, row, plays.at_s[own][old], plays.part[own][old], seen[np.argsort(place)], np.unique(row),
        )  # fmt: skip
