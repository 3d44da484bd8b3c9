"""What every store of listener states does, whatever it keeps them in: look-ups, sessions, picks.

A store gives one listener's row and replaces it in one step (`_update`); the rules by which a row changes are here,
once. States of one batch are never read by the model of another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from bart.errors import SchemaMismatch
from bart.types import Bools, Context, Floats32, Ints, Listener, ListenerTraits, Wishes
from bart.types.wishes import NO_WISHES
from recommender.features.history import History
from recommender.features.tables import Histories
from recommender.features.usage import Usage
from recommender.listener.model import ListenerModel, Session, last_ended_s, session_columns
from recommender.sessions.table import DAY_S, SessionColumns
from recommender.states.favourites import refreshed_favourites
from recommender.states.preferences import Preferences
from recommender.states.resting import RestConfig
from recommender.users.features import Known
from recommender.users.vectors import UserSpace, UserVectors

LAST_LETTER = "\U0010ffff"  # behind every id that goes on after a prefix
NO_USAGE = Usage()
RECENT = 50  # items that stay in `recent` when a session is added


@dataclass(frozen=True, slots=True, eq=False)
class ListenerRow:
    """One listener as stored: everything that a visit needs, in rows of the batch's item table.

    state: [s] of the batch's model. made_at_s: when the account was made, seconds UTC, or None. start: [d], the
    vector to serve until the first session, or None. history: what was played and skipped, None where it is not kept.
    usage: what else is known of the listener, for the user encoder.
    The rest as in `bart.types.Listener` and `ListenerTraits`.
    """

    user_id: str
    state: Floats32
    recent: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    favourite: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rested: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    made_at_s: int | None = None
    diversity: float | None = None
    exploration_success: float | None = None
    blocked_artists: frozenset[str] = frozenset()
    start: Floats32 | None = None
    history: History | None = None
    usage: Usage = NO_USAGE

    @property
    def known(self) -> bool:
        """Whether the listener has listened to anything."""
        return self.start is None


class StoredListeners(ABC):
    """`bart.types.ListenerStore` over rows of one batch.

    preferences: what listeners ask for, None where nobody is asked; closed with the store. model: of the batch.
    cold_vector: [d] for listeners without any session or pick, zero by default; the unit mean of
    item vectors weighted by popularity is a good one. histories: of the batch, None where it keeps none. users: the
    user encoder of the batch, None where it has none.
    """

    def __init__(
        self,
        model: ListenerModel,
        batch_id: str,
        cold_vector: Floats32 | None = None,
        histories: Histories | None = None,
    ) -> None:
        self.model = model
        self.batch_id = batch_id
        self.histories = histories
        self.preferences: Preferences | None = None
        self.users: UserSpace | None = None
        cold = np.zeros(model.dimension) if cold_vector is None else np.asarray(cold_vector)
        if cold.shape != (model.dimension,):
            raise ValueError(f"cold_vector has shape {cold.shape}; expected ({model.dimension},)")
        self.cold_vector = cold.astype(np.float32)

    # -------------------------------------------------------------------------------------------- what a store provides

    def probe(self) -> None:
        """Raises StoreError, or the store's own error, where known listeners are not to be had at the moment."""
        self.get("")

    @abstractmethod
    def get(self, user_id: str) -> ListenerRow | None:
        """The stored listener of this batch, or None."""

    @abstractmethod
    def put_many(self, rows: Iterable[ListenerRow]) -> int:
        """Stores listeners, replacing those of the same id in this batch; how many."""

    @abstractmethod
    def saw(
        self, user_id: str, page: str, seen: Ints, streamed: Ints, at: datetime, config: RestConfig | None = None
    ) -> Ints:
        """Counts the cards of a page that a listener saw; the rows that rest from now on (`Listener.rested`).

        page: its request id. seen, streamed: rows. A stream that is told later may come in a call of its own. An
        unknown listener is made where a card rests.
        """

    @abstractmethod
    def user_ids(self) -> list[str]:
        """All stored listeners of this batch, by id."""

    @abstractmethod
    def ids_from(self, prefix: str = "", after: str = "", limit: int = 200) -> list[str]:
        """The first ids of this batch that begin with `prefix` and stand behind `after`, in order; found by an index,
        however many there are."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def parts_heard(self) -> dict[str, str]:
        """What was noted, by the name of a part of the events, when all that it holds was in the states."""

    @abstractmethod
    def note_parts_heard(self, parts: Mapping[str, str]) -> None:
        """Notes it in the place of what was noted before."""

    @abstractmethod
    def batches_of(self, user_id: str) -> set[str]:
        """Ids of the batches that know a listener."""

    @abstractmethod
    def forget(self, user_id: str) -> int:
        """Removes a listener from all batches; how many states there were."""

    @abstractmethod
    def drop_batch(self, batch_id: str) -> None:
        """Forgets all listeners of a batch that no longer serves."""

    def close(self) -> None:
        """Closes what is open; no thread may be using it."""
        if self.preferences is not None:
            self.preferences.close()

    @abstractmethod
    def _update(self, user_id: str, change: Callable[[ListenerRow | None], ListenerRow | None], once: str = "") -> None:
        """Replaces a row by what `change` makes of it (None: nothing is written), as one step among all writers.

        `change` may be called again where another writer came between. once: a name of this change, by which a store
        that may lose the answer to a write knows that it was carried out.
        """

    # ------------------------------------------------------------------------------------------------- the same for all

    def listener(
        self, user_id: str, context: Context, running: Session | None = None, heard: Heard | None = None
    ) -> Listener:
        """The listener for this context; `running` is the session so far, which is taken in but not committed.

        heard: its tracks, which count in the history then, but for interests and factor. Who is not profiled is a
        stranger each time, with the wishes of the one who asks.
        """
        wishes = self.wishes(user_id)
        row = self.get(user_id) if wishes.profiled else None
        if row is None:
            row = ListenerRow(user_id, self.model.initial(np.array([np.nan]))[0], start=self.cold_vector)
        if not wishes.profiled:
            running = heard = None
        age_d = None if row.made_at_s is None else max(0.0, (context.at.timestamp() - row.made_at_s) / DAY_S)
        if running is not None:
            vector = self.model.predict(self.model.advance(row.state, running), context)
        else:
            vector = self.model.predict(row.state, context) if row.start is None else row.start
        traits = ListenerTraits(age_d, row.diversity, row.exploration_success)
        history = row.history if self.histories is not None else None
        if self.histories is not None and heard is not None:
            history = self.histories.heard(history, heard.item, heard.skipped, heard.at_s)
        return Listener(
            user_id, vector, traits, row.recent, row.favourite, row.rested, row.known, row.blocked_artists,
            {} if history is None else history.arrays, wishes,
        )  # fmt: skip

    @property
    def space(self) -> UserSpace:
        """The user encoder of the batch. Raises SchemaMismatch where it has none."""
        if self.users is None:
            raise SchemaMismatch(f"batch {self.batch_id} has no user encoder; expected a build with listener.users")
        return self.users

    def user_vector(self, user_id: str, at_s: float, heard: Heard | None = None) -> UserVectors:
        """The listener's vector of the user encoder at a moment, of all that was reported by then.

        heard: tracks of a session that runs. Zero for somebody of whom nothing is known, or who is not profiled. Raises
        SchemaMismatch where the batch has no user encoder.
        """
        space = self.space
        row = self.get(user_id) if self.wishes(user_id).profiled else None
        known = Known(None, NO_USAGE, None) if row is None else Known(row.history, row.usage, row.made_at_s)
        if row is not None and heard is not None and self.histories is not None:
            known = replace(known, history=self.histories.heard(row.history, heard.item, heard.skipped, heard.at_s))
        return space.vectors([user_id], [known], at_s)

    def user_vectors(self, at_s: float, user_ids: Sequence[str] | None = None) -> UserVectors:
        """The vectors of those who are profiled of the given listeners, by default of all stored ones of the batch.

        Raises as `user_vector`.
        """
        space = self.space
        users = [user for user in (self.user_ids() if user_ids is None else user_ids) if self.wishes(user).profiled]
        rows = ((user, self.get(user)) for user in users)  # one at a time: histories are large
        known = (Known(None, NO_USAGE, None) if row is None else Known(row.history, row.usage, row.made_at_s)
                 for _, row in rows)  # fmt: skip
        return space.vectors(users, known, at_s)

    def wishes(self, user_id: str) -> Wishes:
        """What the listener asks for."""
        return NO_WISHES if self.preferences is None else self.preferences.get(user_id)

    def advance(
        self,
        user_id: str,
        session: Session,
        item: Sequence[int] | Ints = (),
        *,
        skipped: Sequence[int] | Ints = (),
        once: str = "",
    ) -> Listener:
        """Commits a finished session; `item`: rows of its tracks in order, which become the most recent ones.

        skipped: rows of those that were skipped, which count in the history alone.

        An unknown listener is made. Favourites are kept in order by use (`refreshed_favourites`), diversity stays until
        the next batch. once: an id of the session; the same id again may then be committed no second time (a store that
        always knows whether it committed needs none). Returns the listener as of the session's end, in the session's
        context.
        """
        tracks = np.asarray(item, dtype=np.int64)
        told = Heard.of(tracks, skipped, int(session.context.at.timestamp()))

        def change(row: ListenerRow | None) -> ListenerRow:
            if row is None:
                made_at_s = int(session.context.at.timestamp())
                row = ListenerRow(user_id, self.model.initial(np.array([0.0]))[0], made_at_s=made_at_s)
            row = self._after(heard(row, tracks), (told,))
            usage = used(row.usage, session_columns(session, self.model.sources))
            state = _later(row.state, self.model.advance(row.state, session))
            return replace(row, state=state, start=None, usage=usage)

        self._update(user_id, change, once)
        return self.listener(user_id, replace(session.context, at=session.ended_at))

    @abstractmethod
    def heads(self, user_ids: Sequence[str]) -> dict[str, Floats32]:
        """The headers of the states of those listeners that are stored, by id: for jobs, many at once."""

    def last_heard_s(self, user_id: str) -> int | None:
        """When the last committed session of a listener ended, seconds UTC; None without one."""
        row = self.get(user_id)
        return None if row is None else last_ended_s(row.state)

    def catch_up(
        self,
        user_id: str,
        sessions: SessionColumns,
        item: Sequence[Ints],
        skipped: Sequence[Ints] | None = None,
        within: Sequence[Ints] | None = None,
    ) -> int:
        """Commits those of n finished sessions, in order of time, that began after the last committed one; how many.

        item, skipped: for each, rows of the tracks that were played, in order, and of those that were skipped; within:
        of the containers that some were played from, which count in the history alone. Doing it again commits nothing.
        The rest as in `advance`.
        """
        committed = 0

        def change(row: ListenerRow | None) -> ListenerRow | None:
            nonlocal committed
            ended_s = None if row is None else last_ended_s(row.state)
            new = np.flatnonzero(sessions.started_s > (-1 if ended_s is None else ended_s))
            committed = len(new)
            if not len(new):
                return None
            if row is None:
                state = self.model.initial(np.array([0.0]))[0]
                row = ListenerRow(user_id, state, made_at_s=int(sessions.started_s[0]))
            state = row.state[None]
            told: list[Heard] = []
            for number in new.tolist():
                state = _later(state[0], self.model.advance_many(state, sessions.take(np.array([number])))[0])[None]
                row = heard(row, np.asarray(item[number], dtype=np.int64))
                passed = () if skipped is None else skipped[number]
                counted = item[number] if within is None else np.concatenate([item[number], within[number]])
                told.append(Heard.of(counted, passed, int(sessions.started_s[number])))
            usage = used(row.usage, sessions.take(new))
            return replace(self._after(row, told), state=state[0], start=None, usage=usage)

        self._update(user_id, change)
        return committed

    def onboard(self, user_id: str, item: Sequence[int] | Ints, vector: Floats32, context: Context) -> Listener:
        """A new listener from picked items: rows `item` [k] with vectors [k, d].

        Until the first session the listener's vector is the unit mean of the picks; the model's state takes them as a
        first session. Raises ValueError for a listener who has listened already, or without picks.
        """
        rows = np.asarray(item, dtype=np.int64)
        if len(rows) == 0 or vector.shape != (len(rows), self.model.dimension):
            raise ValueError(
                f"vector has shape {vector.shape}; expected (picks, {self.model.dimension}), 1 pick or more"
            )

        def change(known: ListenerRow | None) -> ListenerRow:
            if known is not None and known.known:
                raise ValueError(f"{user_id!r} has sessions already; expected a new listener")
            picks = Session.of(context, context.at, vector, np.zeros(len(rows), dtype=np.bool_))
            state = self.model.advance(self.model.initial(np.array([0.0]))[0], picks)
            made_at_s = int(context.at.timestamp())
            usage = replace(NO_USAGE, picked=rows, country=context.country)
            return ListenerRow(user_id, state, favourite=rows, made_at_s=made_at_s, start=picks.all, usage=usage)

        self._update(user_id, change)
        return self.listener(user_id, context)

    def _after(self, row: ListenerRow, told: Sequence[Heard]) -> ListenerRow:
        """The row with sessions counted in its history."""
        if self.histories is None or not told:
            return row
        item, skipped, at_s = (np.concatenate([getattr(one, name) for one in told]) for name in Heard.__slots__)
        return replace(row, history=self.histories.after(row.history, item, skipped, at_s))

    def explored(self, user_id: str, success: float | None) -> bool:
        """Keeps a listener's success of exploration, [0, 1] or None; whether it was another one. Nobody is made new."""
        changed = False

        def change(row: ListenerRow | None) -> ListenerRow | None:
            nonlocal changed
            changed = row is not None and row.exploration_success != success
            return replace(row, exploration_success=success) if row is not None and changed else None

        self._update(user_id, change)
        return changed

    def saved(self, user_id: str, item: Ints, weight: int = 1) -> None:
        """Makes rows that a listener saved favourites, as if each had been played `weight` more times."""

        def change(row: ListenerRow | None) -> ListenerRow:
            row = row or ListenerRow(user_id, self.model.initial(np.array([0.0]))[0], start=self.cold_vector)
            heard = np.concatenate([row.recent, item])
            favourite = refreshed_favourites(row.favourite, heard, np.repeat(item, max(weight, 1)))
            return replace(row, favourite=favourite, usage=row.usage.saving(item))

        self._update(user_id, change)

    def checked(self, row: ListenerRow) -> ListenerRow:
        """The row, if its state is of this batch's model. Raises SchemaMismatch for one of another length."""
        if row.state.shape != (self.model.state_size,):
            raise SchemaMismatch(
                f"state of {row.user_id!r} has shape {row.state.shape}; expected ({self.model.state_size},) of batch "
                f"{self.batch_id}: states and vectors of different batches cannot be compared"
            )
        return row

    def resting(self, user_id: str, row: ListenerRow | None, rested: Ints, at_s: int) -> ListenerRow | None:
        """The row with the cards that rest; None where nothing is to be written."""
        if row is None and len(rested):
            state = self.model.initial(np.array([0.0]))[0]
            row = ListenerRow(user_id, state, made_at_s=at_s, start=self.cold_vector)
        if row is None or np.array_equal(rested, row.rested):
            return None
        return replace(row, rested=rested)


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Tracks of a session as a history counts them: rows, which were skipped, when it began [m]."""

    item: Ints
    skipped: Bools
    at_s: Ints

    @classmethod
    def of(cls, played: Sequence[int] | Ints, skipped: Sequence[int] | Ints, at_s: int) -> Heard:
        """Of rows played and rows skipped in a session that began at `at_s`."""
        item = np.concatenate([np.asarray(played, dtype=np.int64), np.asarray(skipped, dtype=np.int64)])
        passed = np.arange(len(item)) >= len(played)
        return cls(item, passed, np.full(len(item), at_s, dtype=np.int64))


def heard(row: ListenerRow, item: Ints) -> ListenerRow:
    """The row after a session of the given tracks: what is recent, and the order of favourites."""
    recent = list(dict.fromkeys([*item[::-1].tolist(), *row.recent.tolist()]))[:RECENT]
    favourite = refreshed_favourites(row.favourite, row.recent, item)
    return replace(row, recent=np.array(recent, dtype=np.int64), favourite=favourite)


def used(usage: Usage, sessions: SessionColumns) -> Usage:
    """The usage with finished sessions counted."""
    minutes = ((sessions.ended_s - sessions.started_s) / 60).astype(np.float32)
    return usage.after(sessions.hour, sessions.device, sessions.n_tracks, minutes)


def _later(before: Floats32, after: Floats32) -> Floats32:
    """The state after a session, whose end never goes back: a session inside of an earlier one ends before it, and what
    is taken as known must not become unknown."""
    known_s, ended_s = last_ended_s(before), last_ended_s(after)
    if known_s is None or ended_s is None or ended_s >= known_s:
        return after
    kept = after.copy()
    kept[:2] = before[:2]
    return kept
