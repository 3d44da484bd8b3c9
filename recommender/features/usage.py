"""What is known of a listener beside the plays of items: when, on what and how long one listens, picks, saves, country.

Kept with the listener's state beside the `History`; a session adds to it when it is committed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

import numpy as np

from bart.types import Floats32, Ints
from recommender.sessions.table import N_DEVICES

HOURS = 24
_HEAD = struct.Struct("<2I3dB")  # picked, saved, sessions, tracks, minutes, letters of the country


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


def _counts(n: int) -> Floats32:
    return np.zeros(n, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """picked, saved [.] rows of items: picks of the onboarding, and what was saved or liked, oldest first.

    sessions, tracks, minutes: sums over all sessions. hour [24], device [6]: sessions by the listener's local hour and
    by device. country: ISO code, "" where it is not known.
    """

    picked: Ints = field(default_factory=_none)
    saved: Ints = field(default_factory=_none)
    sessions: float = 0.0
    tracks: float = 0.0
    minutes: float = 0.0
    country: str = ""
    hour: Floats32 = field(default_factory=lambda: _counts(HOURS))
    device: Floats32 = field(default_factory=lambda: _counts(N_DEVICES))

    def after(self, hour: Ints, device: Ints, tracks: Ints, minutes: Floats32) -> Usage:
        """With n more sessions [n] that began at these hours, on these devices, of so many tracks and minutes."""
        return replace(
            self,
            sessions=self.sessions + len(hour),
            tracks=self.tracks + float(tracks.sum()),
            minutes=self.minutes + float(np.asarray(minutes, np.float64).sum()),
            hour=self.hour + np.bincount(hour, minlength=HOURS).astype(np.float32),
            device=self.device + np.bincount(device, minlength=N_DEVICES).astype(np.float32),
        )

    def saving(self, item: Ints) -> Usage:
        """With more rows saved; one that was saved before becomes the newest."""
        every = np.concatenate([self.saved, item])[::-1]
        _, first = np.unique(every, return_index=True)
        return replace(self, saved=every[np.sort(first)][::-1])

    def moved(self, row_of: Ints) -> Usage:
        """The same in the rows of another item table; row_of [items]: the new row of an old one, -1 for none."""

        def known(rows: Ints) -> Ints:
            there = row_of[rows[rows < len(row_of)]]
            return there[there >= 0]

        return replace(self, picked=known(self.picked), saved=known(self.saved))

    def to_bytes(self) -> bytes:
        """The same for equal usage."""
        country = self.country.encode()[:255]
        head = _HEAD.pack(len(self.picked), len(self.saved), self.sessions, self.tracks, self.minutes, len(country))
        rows = (np.asarray(rows, "<i4").tobytes() for rows in (self.picked, self.saved))
        counts = (np.asarray(count, "<f4").tobytes() for count in (self.hour, self.device))
        return b"".join((head, country, *rows, *counts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Usage:
        """What `to_bytes` made. Raises ValueError for other bytes."""
        if len(data) < _HEAD.size:
            raise ValueError(f"usage has {len(data)} bytes; expected at least {_HEAD.size}")
        picked, saved, sessions, tracks, minutes, letters = _HEAD.unpack_from(data)
        expected = _HEAD.size + letters + 4 * (picked + saved + HOURS + N_DEVICES)
        if len(data) != expected:
            raise ValueError(f"usage has {len(data)} bytes; expected {expected}")
        at = _HEAD.size + letters
        rows = np.frombuffer(data, "<i4", picked + saved, at).astype(np.int64)
        counts = np.frombuffer(data, "<f4", HOURS + N_DEVICES, at + 4 * (picked + saved))
        country = data[_HEAD.size : at].decode()
        return cls(
            rows[:picked], rows[picked:], sessions, tracks, minutes, country, counts[:HOURS], counts[HOURS:]
        )  # fmt: skip
