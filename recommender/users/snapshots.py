"""What was known of each listener at several moments of an event table, and what was played in the days after each.

A play is known once it ended, a session once it could no longer go on, a save when it was made, picks and country from
the account's first moment: so nothing that came after a moment, or that was still on its way, moves its features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bart.types import Bools, Floats, Floats32, Ints, ItemTable, Strings
from recommender.features.history import History
from recommender.features.tables import Histories, Plays
from recommender.features.usage import Usage
from recommender.sessions.lengths import GAP_S, ends_us
from recommender.sessions.plays import is_play, only_plays, worth
from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import DAY_S, ragged_take
from recommender.users.features import Known, UserFeatures

if TYPE_CHECKING:
    import pyarrow as pa

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Accounts:
    """What a service knows of listeners from their accounts, by user id: when made (seconds UTC), country, picks
    (item ids)."""

    made_at_s: Mapping[str, int]
    country: Mapping[str, str]
    picked: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, table: pa.Table | None) -> Accounts:
        """Of user_id and, where they are there, joined_at, country and onboarding (lists of item ids)."""
        if table is None:
            return cls({}, {}, {})
        users = table["user_id"].to_pylist()

        def column(name: str) -> list[object]:
            return table[name].to_pylist() if name in table.column_names else [None] * len(users)

        made = dict(zip(users, column("joined_at"), strict=True))
        return cls(
            {user: int(at.timestamp()) for user, at in made.items() if at is not None},
            {user: str(one) for user, one in zip(users, column("country"), strict=True) if one},
            {user: list(one) for user, one in zip(users, column("onboarding"), strict=True) if one},  # type: ignore[call-overload]
        )

    @property
    def countries(self) -> tuple[str, ...]:
        """Those that occur, the most frequent first."""
        names = list(self.country.values())
        return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))

    def usage(self, user: str, items: ItemTable) -> Usage:
        """What is known of a listener before any session."""
        rows = items.rows(self.picked.get(user, ()))
        return Usage(picked=rows[rows >= 0], country=self.country.get(user, ""))


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """n snapshots, in order of time. listener [n] places in user_id; at_s [n]; value [n, width], NaN where not known.

    heard [n]: whether the listener had played anything by then.
    """

    user_id: Strings
    listener: Ints
    at_s: Ints
    value: Floats32
    heard: Bools

    def __len__(self) -> int:
        return len(self.listener)

    def take(self, rows: Ints | Bools) -> Moments:
        return Moments(self.user_id, self.listener[rows], self.at_s[rows], self.value[rows], self.heard[rows])


class Timeline:
    """The events of a table in the order in which they became known, taken in step by step.

    events: the event table. `until(at_s)` goes on to a moment; `known(user)` says what is known by then.
    """

    def __init__(self, events: pa.Table, items: ItemTable, histories: Histories, accounts: Accounts) -> None:
        import pyarrow as pa

        self.items, self.accounts, self._histories = items, accounts, histories
        self._plays = only_plays(events)
        user = self._plays["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        start_us = self._plays["started_at"].cast(pa.int64()).to_numpy()
        order = np.lexsort((start_us, user))
        self._plays = self._plays.take(pa.array(order))
        length, duration = (_floats(self._plays, name) for name in ("listened_s", "duration_s"))
        self._ended_s = -(-ends_us(user[order], start_us[order], length, duration) // 1_000_000)
        self._sessions = (
            cut_sessions(events, items.row_of, np.zeros((len(items), 1), np.float32)) if len(order) else None
        )
        self._saved = events.filter(pa.array(~is_play(events) & (worth(events) > 0)))
        self.at_s = -(1 << 62)
        self._history: dict[str, History] = {}
        self._usage: dict[str, Usage] = {}
        self._first_s: dict[str, int] = {}

    def until(self, at_s: int) -> Timeline:
        """Takes in what became known since; at_s: seconds UTC, not before the last one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if at_s < self.at_s:
            raise ValueError(f"at_s is {at_s}; expected {self.at_s} or later: what is known is not forgotten")
        new = self._plays.filter(pa.array((self._ended_s > self.at_s) & (self._ended_s <= at_s)))
        if len(new):
            plays = Plays.of(new, self.items)
            for user, place in zip(plays.user_id.tolist(), plays.by_listener(), strict=True):
                if len(place):
                    self._first_s.setdefault(user, int(plays.at_s[place].min()))
                    self._history[user] = self._histories.heard(
                        self._history.get(user), plays.item[place], plays.skipped[place], plays.at_s[place]
                    )
        if self._sessions is not None:
            self._take_sessions(at_s)
        told = self._saved["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
        saved = self._saved.filter(pa.array((told > self.at_s) & (told <= at_s)))
        for user in pc.unique(saved["user_id"]).to_pylist():
            rows = self.items.rows(saved.filter(pc.equal(saved["user_id"], user))["item_id"].to_pylist())
            self._usage[user] = self.usage(user).saving(rows[rows >= 0])
        self.at_s = at_s
        return self

    def usage(self, user: str) -> Usage:
        found = self._usage.get(user)
        return self.accounts.usage(user, self.items) if found is None else found

    def known(self, user: str) -> Known:
        """What is known of a listener by now."""
        made = self.accounts.made_at_s.get(user, self._first_s.get(user))
        return Known(self._history.get(user), self.usage(user), made)

    @property
    def users(self) -> list[str]:
        """Who has been heard by now, by id."""
        return sorted(self._history)

    def _take_sessions(self, at_s: int) -> None:
        sessions, columns = self._sessions, self._sessions.columns  # type: ignore[union-attr]
        over_s = columns.ended_s + GAP_S
        new = np.flatnonzero((over_s > self.at_s) & (over_s <= at_s))
        who = sessions.user[new]  # type: ignore[union-attr]
        minutes = ((columns.ended_s - columns.started_s) / 60).astype(np.float32)
        for rows in np.split(new, np.flatnonzero(np.diff(who)) + 1) if len(new) else ():
            user = str(sessions.user_id[sessions.user[rows[0]]])  # type: ignore[union-attr]
            self._usage[user] = self.usage(user).after(
                columns.hour[rows], columns.device[rows], columns.n_tracks[rows], minutes[rows]
            )


def moments(
    timeline: Timeline,
    features: UserFeatures,
    at_s: Sequence[int],
    users: Sequence[str],
    on_progress: Tick | None = None,
) -> Moments:
    """Snapshots of the given listeners at each of the ascending moments, of those whose account is made by then."""
    listener: list[int] = []
    when: list[int] = []
    value: list[Floats32] = []
    heard: list[bool] = []
    for step, at in enumerate(at_s):
        timeline.until(at)
        for number, user in enumerate(users):
            known = timeline.known(user)
            if known.made_at_s is None or known.made_at_s > at:
                continue
            listener.append(number)
            when.append(at)
            value.append(features.row(known, at))
            heard.append(known.history is not None)
        if on_progress is not None:
            on_progress(step + 1, len(at_s))
    return Moments(
        np.array(users, dtype=object),
        np.array(listener, dtype=np.int64),
        np.array(when, dtype=np.int64),
        np.stack(value) if value else np.empty((0, features.width), np.float32),
        np.array(heard, dtype=np.bool_),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Later:
    """What was played in the days after each of n snapshots: item `row[offset[i]:offset[i + 1]]`, distinct, with how
    often in count."""

    row: Ints
    count: Floats32
    offset: Ints

    def __len__(self) -> int:
        return len(self.offset) - 1

    def of(self, number: int) -> Ints:
        return self.row[self.offset[number] : self.offset[number + 1]]

    def take(self, numbers: Ints) -> Later:
        """Of the given snapshots, in that order."""
        place, offset = ragged_take(self.offset, numbers)
        return Later(self.row[place], self.count[place], offset)

    @property
    def owner(self) -> Ints:
        """Snapshot of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.offset))


def played_after(events: pa.Table, items: ItemTable, at: Moments, days: float = 7.0) -> Later:
    """Items that were played, not skipped, and began within the days after each snapshot."""
    import scipy.sparse as sp

    plays = Plays.of(events, items)
    kept = ~plays.skipped & ~items.is_container[plays.item]
    number = {user: place for place, user in enumerate(at.user_id.tolist())}
    who = np.array([number.get(user, -1) for user in plays.user_id.tolist()], dtype=np.int64)[plays.listener]
    parts_owner, parts_item = [], []
    for at_s in np.unique(at.at_s).tolist():
        place = np.full(len(at.user_id), -1, dtype=np.int64)
        here = np.flatnonzero(at.at_s == at_s)
        place[at.listener[here]] = here
        inside = np.flatnonzero(kept & (who >= 0) & (plays.at_s > at_s) & (plays.at_s <= at_s + days * DAY_S))
        owner = place[who[inside]]
        parts_owner.append(owner[owner >= 0])
        parts_item.append(plays.item[inside][owner >= 0])
    owner, item = (np.concatenate(p) if p else np.empty(0, np.int64) for p in (parts_owner, parts_item))
    counts = sp.csr_matrix((np.ones(len(owner), np.float32), (owner, item)), shape=(len(at), len(items)))
    counts.sum_duplicates()
    return Later(counts.indices.astype(np.int64), counts.data, counts.indptr.astype(np.int64))


def _floats(events: pa.Table, name: str) -> Floats:
    import pyarrow as pa

    if name not in events.column_names:
        return np.full(len(events), np.nan)
    return np.asarray(events[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
