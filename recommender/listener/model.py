"""What serving needs of a listener model: a flat float32 state for each listener, small enough to store and to send.

`predict(state, context)` gives the vector for a visit and commits nothing; `advance(state, session)` commits a finished
session. A running session is recomputed from the last committed state, `predict(advance(state, so_far), context)`.

Every state starts with the same header. The end of the last session stands there as day and second of the day, because
one float32 cannot hold a time to the second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bart.types import Bools, Context, Floats, Floats32, Ints, device_code
from recommender.listener.memories import memories
from recommender.sessions.sessions import FIRST_TRACKS
from recommender.sessions.table import DAY_S, SessionColumns, Sessions, unit

HEADER = 3  # day, second, number of sessions
_TOGETHER = 128  # listeners advanced together: few enough for their states to stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One finished (or, for a look ahead, running) session of one listener.

    context: of its start. n_tracks: all of them, beyond the tenth too. all, played, skipped: [d] as in `Sessions`.
    """

    context: Context
    ended_at: datetime
    n_tracks: int
    all: Floats32
    played: Floats32
    skipped: Floats32
    source: str = ""

    def __post_init__(self) -> None:
        if self.ended_at.tzinfo is None or self.ended_at < self.context.at:
            raise ValueError(f"ended_at is {self.ended_at}; expected an aware time not before {self.context.at}")
        if self.n_tracks < 1:
            raise ValueError(f"n_tracks is {self.n_tracks}; expected at least 1")

    @classmethod
    def of(cls, context: Context, ended_at: datetime, track: Floats32, skipped: Bools, source: str = "") -> Session:
        """A session from the vectors of its tracks [k, d] in order, and which were skipped [k]."""
        first, skip = np.asarray(track, np.float32)[:FIRST_TRACKS], np.asarray(skipped, np.bool_)[:FIRST_TRACKS]
        every, played, skips = (unit(first[rows].sum(axis=0)) for rows in (np.ones_like(skip), ~skip, skip))
        return cls(context, ended_at, len(track), every, played, skips, source)


class ListenerModel(Protocol):
    """What turns a listener's sessions into a vector. `sources`: vocabulary of its source codes."""

    name: str
    dimension: int
    state_size: int
    sources: tuple[str, ...]

    def initial(self, account_age_d: Floats) -> Floats32:
        """[b, s], states of listeners without sessions; account_age_d: [b] days, NaN where unknown."""
        ...

    def predict(self, state: Floats32, context: Context, at: datetime | None = None) -> Floats32:
        """[d] unit vector for a visit (zero where nothing is known); `at` defaults to the context's time."""
        ...

    def advance(self, state: Floats32, session: Session) -> Floats32:
        """[s], the state after one more session."""
        ...

    def advance_many(self, state: Floats32, session: SessionColumns) -> Floats32:
        """[b, s], `advance` for b listeners with one session each."""
        ...

    def save(self, directory: Path) -> None:
        """Writes config.json and what else it needs into `directory`."""
        ...


def compute_states(model: ListenerModel, sessions: Sessions) -> Floats32:
    """[users, s], the state of every listener after all sessions: `advance`, for all listeners at once."""
    sessions = sessions.with_sources(model.sources)
    by_size = np.argsort(-sessions.size, kind="stable")
    out = np.empty((sessions.n_users, model.state_size), dtype=np.float32)
    for start in range(0, len(by_size), _TOGETHER):
        users = by_size[start : start + _TOGETHER]
        sizes, first = sessions.size[users], sessions.offset[:-1][users]
        state = model.initial(sessions.account_age_d[users])
        for t in range(int(sizes[0])):
            active = int(np.searchsorted(-sizes, -t, side="left"))  # listeners with more than t sessions
            state[:active] = model.advance_many(state[:active], sessions.columns.take(first[:active] + t))
        out[users] = state
    return out


class MemoryListener:
    """A listener model without training: one memory, by default an average decayed by 0.8 a session (EMA).

    It needs no network, so it also serves where there is too little listening to train on.
    """

    name = "ema"

    def __init__(self, dimension: int, memory: str = "ema_0.8") -> None:
        self.dimension = dimension
        self.memory = memory
        self.sources: tuple[str, ...] = ("",)
        self._memory = memories((memory,))[0]
        self.state_size = HEADER + self._memory.size(dimension)

    def initial(self, account_age_d: Floats) -> Floats32:
        return np.zeros((len(account_age_d), self.state_size), dtype=np.float32)

    def predict(self, state: Floats32, context: Context, at: datetime | None = None) -> Floats32:
        _, hour, device = context_codes(context, at)
        vector: Floats32 = unit(self._memory.read(state[None, HEADER:], np.array([hour]), np.array([device])))[0]
        return vector

    def advance(self, state: Floats32, session: Session) -> Floats32:
        after: Floats32 = self.advance_many(state[None], session_columns(session, self.sources))[0]
        return after

    def advance_many(self, state: Floats32, session: SessionColumns) -> Floats32:
        out = np.empty_like(state)
        count = state[:, 2].astype(np.int64)
        out[:, HEADER:] = self._memory.advance(state[:, HEADER:], count, session)
        write_header(out, session.ended_s, count + 1)
        return out

    def save(self, directory: Path) -> None:
        save_config(directory, {"name": self.name, "dimension": self.dimension, "memory": self.memory})

    @classmethod
    def load(cls, directory: Path, config: Mapping[str, Any]) -> MemoryListener:  # noqa: ARG003
        return cls(int(config["dimension"]), str(config["memory"]))


def context_codes(context: Context, at: datetime | None) -> tuple[int, int, int]:
    """Local weekday and hour, and device, of a visit at `at` (by default the context's own time)."""
    local = context.local_time if at is None else at + timedelta(minutes=context.utc_offset_min)
    return local.weekday(), local.hour, device_code(context.device)


def session_columns(session: Session, sources: tuple[str, ...]) -> SessionColumns:
    """One session as columns of length 1."""
    context = session.context
    weekday, hour, device = context_codes(context, None)
    source = sources.index(session.source) if session.source in sources else 0
    return SessionColumns(
        started_s=np.array([int(context.at.timestamp())]),
        ended_s=np.array([int(session.ended_at.timestamp())]),
        weekday=np.array([weekday]),
        hour=np.array([hour]),
        device=np.array([device]),
        source=np.array([source]),
        n_tracks=np.array([session.n_tracks]),
        all=session.all[None],
        played=session.played[None],
        skipped=session.skipped[None],
    )


def write_header(state: Floats32, ended_s: Ints, count: Ints) -> None:
    """Writes the end of the last session and the number of sessions into states [b, s]."""
    state[:, 0] = ended_s // DAY_S
    state[:, 1] = ended_s % DAY_S
    state[:, 2] = count


def gap_since(state: Floats32, at_s: Ints) -> Floats:
    """Seconds since the last session of each state, [b]; NaN without one. state: [b, s]."""
    ended_s = state[:, 0].astype(np.float64) * DAY_S + state[:, 1]
    return np.where(state[:, 2] > 0, np.maximum(at_s - ended_s, 0), np.nan)


def last_ended_s(state: Floats32) -> int | None:
    """When the last session of one state [s] ended, seconds UTC; None without one."""
    return int(state[0]) * DAY_S + int(state[1]) if state[2] > 0 else None


def save_config(directory: Path, config: Mapping[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
