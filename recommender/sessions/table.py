"""Sessions as flat arrays: one record for millions of them, sorted by listener and time, with the time split of
section 5.2 of the CoSeRNN paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bart.errors import DataError
from bart.types import DEVICES, Bools, Floats, Floats32, Ints, Strings

DAY_S = 24 * 3600
N_DEVICES = len(DEVICES) + 1  # device codes, "other" included


@dataclass(frozen=True, slots=True, eq=False)
class SessionColumns:
    """What is known of each of n sessions.

    started_s, ended_s: [n] int64 seconds UTC. weekday (0 Monday), hour: [n], the listener's local ones. device: [n]
    codes of bart.types. source: [n] codes into a vocabulary of stream sources, 0 where unknown. n_tracks: [n].
    all, played, skipped: [n, d] float32, unit means of the vectors of the first ten tracks, of those played and of
    those skipped; zero where there are none.
    """

    started_s: Ints
    ended_s: Ints
    weekday: Ints
    hour: Ints
    device: Ints
    source: Ints
    n_tracks: Ints
    all: Floats32
    played: Floats32
    skipped: Floats32

    def __len__(self) -> int:
        return len(self.started_s)

    def take(self, rows: Ints) -> SessionColumns:
        """The given sessions, in that order."""
        return SessionColumns(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def concat(cls, parts: Sequence[SessionColumns]) -> SessionColumns:
        """All sessions, part after part; at least one part."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


@dataclass(frozen=True, eq=False)
class Sessions:
    """All sessions of all listeners, by listener and then by time.

    user_id: [users], ascending. offset: [users + 1]; listener u has sessions offset[u]:offset[u + 1] of `columns`.
    track_offset: [n + 1] into track (rows of the item vectors) and track_skipped: the first ten tracks of each session,
    as far as the items are known. sources: vocabulary of stream sources, sources[0] == "" for unknown.
    account_age_d: [users] days since the account was made at the listener's first session, NaN where unknown.
    """

    user_id: Strings
    offset: Ints
    columns: SessionColumns
    track_offset: Ints
    track: Ints
    track_skipped: Bools
    sources: tuple[str, ...]
    account_age_d: Floats

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.user_id) + 1 or self.offset[-1] != len(self.columns):
            raise ValueError(f"offset must be [{len(self.user_id) + 1}] and end at {len(self.columns)}")
        if len(self.track_offset) != len(self.columns) + 1 or self.track_offset[-1] != len(self.track):
            raise ValueError(f"track_offset must be [{len(self.columns) + 1}] and end at {len(self.track)}")
        if not self.sources or self.sources[0] != "":
            raise ValueError('sources must start with "", the unknown source')

    def __len__(self) -> int:
        """Number of sessions."""
        return len(self.columns)

    @property
    def n_users(self) -> int:
        return len(self.user_id)

    @property
    def dimension(self) -> int:
        return int(self.columns.all.shape[1])

    @cached_property
    def size(self) -> Ints:
        """Sessions of each listener, [users]."""
        return np.diff(self.offset)

    @cached_property
    def user(self) -> Ints:
        """Listener of each session, [n]."""
        return np.repeat(np.arange(self.n_users), self.size)

    @cached_property
    def position(self) -> Ints:
        """Number of sessions that the listener had before each session, [n]."""
        return np.arange(len(self)) - np.repeat(self.offset[:-1], self.size)

    @cached_property
    def gap_s(self) -> Floats:
        """Seconds from the end of the listener's last session to the start of this one, [n]; NaN for the first."""
        gap = np.full(len(self), np.nan)
        later = np.flatnonzero(self.position > 0)
        gap[later] = np.maximum(self.columns.started_s[later] - self.columns.ended_s[later - 1], 0)
        return gap

    @cached_property
    def has_played(self) -> Bools:
        """Where a played vector exists, which is what a prediction is compared with, [n]."""
        return np.asarray(self.columns.played.any(axis=1))

    def take_users(self, users: Ints) -> Sessions:
        """The sessions of the given listeners, in that order."""
        users = np.asarray(users, dtype=np.int64)
        rows, offset = ragged_take(self.offset, users)
        return self._keep(rows, offset, self.user_id[users], self.account_age_d[users])

    def before(self, at_s: int) -> Sessions:
        """Sessions that started before `at_s`; every listener stays, possibly without sessions."""
        rows = np.flatnonzero(self.columns.started_s < at_s)
        size = np.bincount(self.user[rows], minlength=self.n_users)
        offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        return self._keep(rows, offset, self.user_id, self.account_age_d)

    def with_sources(self, sources: tuple[str, ...]) -> Sessions:
        """The same sessions with source codes of another vocabulary; sources it lacks become unknown."""
        if sources == self.sources:
            return self
        code = {name: i for i, name in enumerate(sources)}
        table = np.array([code.get(name, 0) for name in self.sources], dtype=np.int64)
        return replace(self, columns=replace(self.columns, source=table[self.columns.source]), sources=sources)

    def _keep(self, rows: Ints, offset: Ints, user_id: Strings, account_age_d: Floats) -> Sessions:
        tracks, track_offset = ragged_take(self.track_offset, rows)
        columns = self.columns.take(rows)
        return Sessions(
            user_id, offset, columns, track_offset, self.track[tracks], self.track_skipped[tracks], self.sources,
            account_age_d,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Section 5.2: the test set starts at `test_s`, the validation set at `validation_s` (seconds UTC)."""

    validation_s: int
    test_s: int

    def part(self, started_s: Ints) -> Ints:
        """0 for training, 1 for validation, 2 for test, [n]."""
        return (started_s >= self.validation_s).astype(np.int64) + (started_s >= self.test_s)


def time_split(sessions: Sessions, test_d: float = 14, validation_d: float = 5) -> TimeSplit:
    """The last `test_d` days as test set, the `validation_d` days before it as validation set.

    Raises DataError where nothing would be left to train on.
    """
    end = int(sessions.columns.started_s.max()) + 1
    test_s = end - int(test_d * DAY_S)
    split = TimeSplit(test_s - int(validation_d * DAY_S), test_s)
    if not np.any(sessions.columns.started_s < split.validation_s):
        span = (end - int(sessions.columns.started_s.min())) / DAY_S
        raise DataError(f"the sessions span {span:.1f} days; expected more than {test_d + validation_d:g}")
    return split


def unit(vector: Floats32) -> Floats32:
    """Each row at unit length; a zero row stays zero. vector: [..., d]."""
    norm = np.sqrt(np.einsum("...d,...d->...", vector, vector))[..., None]
    out: Floats32 = np.divide(vector, norm, out=np.zeros_like(vector), where=norm > 1e-12)
    return out


def ragged_take(offset: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Flat positions of the given rows of a ragged array, and their own offsets."""
    size = np.diff(offset)[rows]
    new = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    flat = np.arange(new[-1]) - np.repeat(new[:-1], size) + np.repeat(offset[rows], size)
    return flat, new
