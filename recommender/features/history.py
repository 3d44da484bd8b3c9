"""What a listener has played and skipped, item by item, and what follows from it alone.

Kept with the listener's state and replaced as one; a session adds to it when it is reported, and to nothing that was
decided before.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.types import Floats32, Ints

HALF_LIVES_D = (2.0, 30.0, 90.0)
_HEAD = struct.Struct("<4I")  # items, interests, dimension, factors
_NEVER = -(1 << 62)
_MOST = (1 << 16) - 1


def faded(since_s: NDArray[Any]) -> NDArray[Any]:
    """[k, half-lives], what plays of so many seconds ago [k] still count; in the precision of the argument."""
    rate = -1.0 / (86_400.0 * np.array(HALF_LIVES_D))
    out: NDArray[Any] = np.exp2(
        since_s[:, None] * rate.astype(np.float32 if since_s.dtype == np.float32 else np.float64)
    )
    return out


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """item [k] rows, ascending; plays, skips [k] of each; last_s [k] seconds UTC of the last play. decayed [k, 3]:
    plays at the time of the last one, each counting half for every half-life before it.

    interest [c, d] unit vectors, weight [c] their shares of the plays; factor [f].
    """

    item: Ints
    plays: NDArray[np.uint16]
    skips: NDArray[np.uint16]
    last_s: Ints
    decayed: Floats32
    interest: Floats32
    weight: Floats32
    factor: Floats32

    @classmethod
    def empty(cls, dimension: int, factors: int) -> History:
        """Of a listener who has not been heard."""
        none, count = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint16)
        interest = np.empty((0, dimension), dtype=np.float32)
        decayed = np.empty((0, len(HALF_LIVES_D)), dtype=np.float32)
        return cls(none, count, count, none, decayed, interest, np.empty(0, np.float32), np.zeros(factors, np.float32))

    def counted(self, item: Ints, skipped: NDArray[np.bool_], at_s: Ints) -> History:
        """The history after m more plays [m] of items at the given times; interests and factor stay as they are."""
        touched, new = np.unique(item, return_inverse=True)
        at = np.searchsorted(self.item, touched)
        held = np.zeros(len(touched), dtype=np.bool_)
        inside = at < len(self.item)
        held[inside] = self.item[at[inside]] == touched[inside]
        plays, skips = (np.zeros(len(touched), dtype=np.int64) for _ in range(2))
        last: Ints = np.full(len(touched), _NEVER, dtype=np.int64)
        before = last.copy()
        decayed = np.zeros((len(touched), len(HALF_LIVES_D)))
        own = at[held]
        plays[held], skips[held], before[held] = self.plays[own], self.skips[own], self.last_s[own]
        last[held] = before[held]
        np.add.at(plays, new[~skipped], 1)
        np.add.at(skips, new[skipped], 1)
        np.maximum.at(last, new[~skipped], at_s[~skipped])
        decayed[held] = self.decayed[own]
        decayed *= faded(np.where(before == _NEVER, 0, last - before))
        np.add.at(decayed, new[~skipped], faded(last[new[~skipped]] - at_s[~skipped]))
        played, passed = (np.minimum(count, _MOST).astype(np.uint16) for count in (plays, skips))
        place = at + np.cumsum(~held) - ~held  # of what is touched, once what is new is put between
        stay = np.ones(len(self.item) + int(np.count_nonzero(~held)), dtype=np.bool_)
        stay[place[~held]] = False

        def merged(old: NDArray[Any], now: NDArray[Any]) -> NDArray[Any]:
            out = np.empty((len(stay), *old.shape[1:]), dtype=old.dtype)
            out[stay] = old
            out[place] = now
            return out

        return replace(
            self,
            item=merged(self.item, touched),
            plays=merged(self.plays, played),
            skips=merged(self.skips, passed),
            last_s=merged(self.last_s, last),
            decayed=merged(self.decayed, decayed),
        )

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """By name, as `bart.types.Listener` hands them on."""
        return {name: getattr(self, name) for name in self.__slots__}

    def to_bytes(self) -> bytes:
        """The same for equal histories."""
        head = _HEAD.pack(len(self.item), *self.interest.shape, len(self.factor))
        kinds = zip(self.arrays.values(), _KINDS, strict=True)
        return head + b"".join(np.ascontiguousarray(value, dtype=kind).tobytes() for value, kind in kinds)

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """What `to_bytes` made. Raises ValueError for other bytes."""
        if len(data) < _HEAD.size:
            raise ValueError(f"a history has {len(data)} bytes; expected at least {_HEAD.size}")
        (k, c, d, f), h = _HEAD.unpack_from(data), len(HALF_LIVES_D)
        expected = _HEAD.size + (16 + 4 * h) * k + 4 * (c * d + c + f)
        if expected != len(data):
            raise ValueError(f"a history has {len(data)} bytes; expected {expected}")
        at = _HEAD.size
        item, at = np.frombuffer(data, "<i4", k, at), at + 4 * k
        plays, at = np.frombuffer(data, "<u2", k, at), at + 2 * k
        skips, at = np.frombuffer(data, "<u2", k, at), at + 2 * k
        last_s, at = np.frombuffer(data, "<i8", k, at), at + 8 * k
        decayed, at = np.frombuffer(data, "<f4", h * k, at).reshape(k, h), at + 4 * h * k
        shared = np.frombuffer(data, "<f4", offset=at) if at < len(data) else np.empty(0, np.float32)
        interest, weight, factor = shared[: c * d].reshape(c, d), shared[c * d : c * d + c], shared[c * d + c :]
        return cls(item.astype(np.int64), plays, skips, last_s, decayed, interest, weight, factor)


_KINDS = ("<i4", "<u2", "<u2", "<i8", "<f4", "<f4", "<f4", "<f4")
