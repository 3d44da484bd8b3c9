"""Simple memories of a listener's sessions: unit vectors that need no training, each one a small recurrence.

"average" is the long-term vector of equation (1) of the CoSeRNN paper; the others are exponentially decayed averages
(EMA), also by part of the day and by device, and the last session. A memory is read before a session and advanced after
it. The same functions serve baselines, training and serving, so the three cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bart.types import Floats32, Ints
from recommender.sessions.table import N_DEVICES, SessionColumns, Sessions, unit

# Section 4.1: night 1 to 6, early morning 6 to 9, morning 9 to 12, afternoon 12 to 17, evening 17 to 21, late evening.
DAY_PARTS = ("night", "early morning", "morning", "afternoon", "evening", "late evening")
DAY_PART = np.array([5] + [0] * 5 + [1] * 3 + [2] * 3 + [3] * 5 + [4] * 4 + [5] * 3, dtype=np.int64)  # of each hour


class Memory(Protocol):
    """A recurrence over sessions; `state` is [b, size], one row a listener, zero at the start."""

    def size(self, d: int) -> int: ...

    def place(self, d: int, hour: int, device: int) -> int:
        """Where in a row of `state` the [d] numbers stand that `read` gives in that context."""
        ...

    def read(self, state: Floats32, hour: Ints, device: Ints) -> Floats32:
        """[b, d] vectors before a session at that hour on that device, of any length; zero where it knows nothing."""
        ...

    def advance(self, state: Floats32, count: Ints, session: SessionColumns) -> Floats32:
        """[b, size] after one session each; count: [b], sessions before it."""
        ...


@dataclass(frozen=True)
class Average:
    """Equation (1): past sessions weighted by their number, kept as a running mean so that it stays bounded."""

    def size(self, d: int) -> int:
        return d

    def place(self, d: int, hour: int, device: int) -> int:  # noqa: ARG002
        return 0

    def read(self, state: Floats32, hour: Ints, device: Ints) -> Floats32:  # noqa: ARG002
        return state

    def advance(self, state: Floats32, count: Ints, session: SessionColumns) -> Floats32:
        weight = (2.0 / (count + 2.0)).astype(np.float32)[:, None]  # t / (1 + ... + t) for t = count + 1
        return state + weight * (session.all - state)


@dataclass(frozen=True)
class Decayed:
    """Exponentially decayed average of played vectors; decay 0 is the last session. All-skipped sessions are passed."""

    decay: float

    def size(self, d: int) -> int:
        return d

    def place(self, d: int, hour: int, device: int) -> int:  # noqa: ARG002
        return 0

    def read(self, state: Floats32, hour: Ints, device: Ints) -> Floats32:  # noqa: ARG002
        return state

    def advance(self, state: Floats32, count: Ints, session: SessionColumns) -> Floats32:  # noqa: ARG002
        return _decay(state, session.played, self.decay)


@dataclass(frozen=True)
class DecayedByContext:
    """One decayed average for each context (part of the day, device, or both)."""

    decay: float
    by: str

    def size(self, d: int) -> int:
        return d * self._n_contexts

    def place(self, d: int, hour: int, device: int) -> int:
        return d * int(self._context(np.array([hour]), np.array([device]))[0])

    @property
    def _n_contexts(self) -> int:
        return {"time": len(DAY_PARTS), "device": N_DEVICES, "both": len(DAY_PARTS) * N_DEVICES}[self.by]

    def _context(self, hour: Ints, device: Ints) -> Ints:
        part = DAY_PART[hour]
        return {"time": part, "device": device, "both": part * N_DEVICES + device}[self.by]

    def read(self, state: Floats32, hour: Ints, device: Ints) -> Floats32:
        by_context = state.reshape(len(state), self._n_contexts, -1)  # [b, contexts, d]
        return by_context[np.arange(len(state)), self._context(hour, device)]

    def advance(self, state: Floats32, count: Ints, session: SessionColumns) -> Floats32:  # noqa: ARG002
        out = state.copy().reshape(len(state), self._n_contexts, -1)
        at = (np.arange(len(state)), self._context(session.hour, session.device))
        out[at] = _decay(out[at], session.played, self.decay)
        return out.reshape(state.shape)


@dataclass(frozen=True)
class AverageByContext:
    """Equation (1) within each part of the day on each device: the paper's "same context"."""

    def size(self, d: int) -> int:
        return (d + 1) * len(DAY_PARTS) * N_DEVICES

    def place(self, d: int, hour: int, device: int) -> int:
        return (d + 1) * int(DAY_PART[hour] * N_DEVICES + device)

    def read(self, state: Floats32, hour: Ints, device: Ints) -> Floats32:
        return self._at(state, hour, device)[1][:, :-1]

    def advance(self, state: Floats32, count: Ints, session: SessionColumns) -> Floats32:  # noqa: ARG002
        out = state.copy()
        at, block = self._at(out, session.hour, session.device)
        seen = block[:, -1:] + 1
        new = np.concatenate([block[:, :-1] + 2 / (seen + 1) * (session.played - block[:, :-1]), seen], axis=1)
        out.reshape(len(state), len(DAY_PARTS) * N_DEVICES, -1)[np.arange(len(state)), at] = new
        return out

    def _at(self, state: Floats32, hour: Ints, device: Ints) -> tuple[Ints, Floats32]:
        at = DAY_PART[hour] * N_DEVICES + device
        return at, state.reshape(len(state), len(DAY_PARTS) * N_DEVICES, -1)[np.arange(len(state)), at]


def _decay(state: Floats32, played: Floats32, decay: float) -> Floats32:
    has = played.any(axis=-1, keepdims=True)
    return np.where(has, np.float32(decay) * state + np.float32(1 - decay) * played, state)


MEMORIES: Mapping[str, Memory] = {
    "average": Average(),
    "last": Decayed(0.0),
    "ema_0.5": Decayed(0.5),
    "ema_0.8": Decayed(0.8),
    "ema_0.95": Decayed(0.95),
    "ema_0.99": Decayed(0.99),
    "time": DecayedByContext(0.95, "time"),
    "device": DecayedByContext(0.95, "device"),
    "time_device": DecayedByContext(0.9, "both"),
    "last_same_context": DecayedByContext(0.0, "both"),
    "average_same_context": AverageByContext(),
}

LONG_TERM = ("average",)  # what the paper fuses with the recurrent vector
BANK = ("average", "ema_0.5", "ema_0.8", "ema_0.95", "time", "device", "time_device")  # what measured best


def memories(names: Sequence[str]) -> tuple[Memory, ...]:
    """The named memories. Raises ValueError for an unknown name."""
    for name in names:
        if name not in MEMORIES:
            raise ValueError(f"memory {name!r} is unknown; expected one of {', '.join(MEMORIES)}")
    return tuple(MEMORIES[name] for name in names)


def memory_vectors(sessions: Sessions, names: Sequence[str]) -> Floats32:
    """What each memory says before each session, [n, memories, d] float32, unit length or zero.

    One pass over session numbers, all listeners at once: cost grows with the longest history.
    """
    used = memories(names)
    d = sessions.dimension
    out = np.zeros((len(sessions), len(used), d), dtype=np.float32)
    by_size = np.argsort(-sessions.size, kind="stable")  # listeners with the longest history first
    sizes, first = sessions.size[by_size], sessions.offset[:-1][by_size]
    states = [np.zeros((len(by_size), memory.size(d)), dtype=np.float32) for memory in used]
    for t in range(int(sizes[0]) if len(sizes) else 0):
        active = int(np.searchsorted(-sizes, -t, side="left"))  # those with more than t sessions
        rows = first[:active] + t
        columns = sessions.columns.take(rows)
        count = np.full(active, t, dtype=np.int64)
        for k, memory in enumerate(used):
            states[k] = states[k][:active]
            out[rows, k] = unit(memory.read(states[k], columns.hour, columns.device))
            states[k] = memory.advance(states[k], count, columns)
    return out
