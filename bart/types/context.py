"""Who asks, when and on what device: context, listener and traits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.types.arrays import Floats32, Ints
from bart.types.wishes import NO_WISHES, Wishes

DEVICES = ("mobile", "desktop", "speaker", "web", "tablet")
OTHER_DEVICE = len(DEVICES)  # index of any device that is not in DEVICES


@dataclass(frozen=True, slots=True)
class Context:
    """When, where and on what device a page is asked for.

    at: aware datetime, kept in UTC. utc_offset_min: the listener's offset from UTC at that moment, minutes.
    device: free text, `DEVICES` are told apart. surface: chooses the exploration rate. country: ISO code, or "".
    zone_known: whether the offset is the listener's; where it is not, no title speaks of the time of day.
    """

    at: datetime
    utc_offset_min: int = 0
    device: str = "mobile"
    surface: str = "default"
    country: str = ""
    explicit_allowed: bool = True
    zone_known: bool = field(default=True, compare=False)  # a record does not tell

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"context.at is {self.at.isoformat()}, without a time zone; expected an aware datetime")
        if not -24 * 60 < self.utc_offset_min < 24 * 60:
            raise ValueError(f"context.utc_offset_min is {self.utc_offset_min}; expected minutes within a day")
        object.__setattr__(self, "at", self.at.astimezone(timezone.utc))

    @property
    def local_time(self) -> datetime:
        """The listener's wall clock (naive)."""
        return (self.at + timedelta(minutes=self.utc_offset_min)).replace(tzinfo=None)

    @property
    def hour(self) -> int:
        """Listener-local hour, 0 to 23."""
        return self.local_time.hour

    @property
    def weekday(self) -> int:
        """Listener-local day, 0 (Monday) to 6."""
        return self.local_time.weekday()


def device_code(device: str) -> int:
    """Index into DEVICES, OTHER_DEVICE for any other."""
    return DEVICES.index(device) if device in DEVICES else OTHER_DEVICE


@dataclass(frozen=True, slots=True)
class ListenerTraits:
    """What moves the exploration rate, as recorded with each decision.

    account_age_d: days since the account was made. diversity: spread of the listener's taste, in [0, 1].
    exploration_success: share of recently explored cards that were streamed, in [0, 1]. None where unknown.
    """

    account_age_d: float | None = None
    diversity: float | None = None
    exploration_success: float | None = None

    def __post_init__(self) -> None:
        if self.account_age_d is not None and not self.account_age_d >= 0:
            raise ValueError(f"account_age_d is {self.account_age_d}; expected days >= 0")
        for name in ("diversity", "exploration_success"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a number in [0, 1]")


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A listener as seen at one visit.

    vector: [d] float32, unit length (all zero when nothing is known). recent: rows last played, newest first,
    distinct. favourite: rows most played, best first. rested: rows that were shown often without a stream and rest.
    known is False for a cold start. wishes: what the listener asks for. blocked_artists: further blocks, that came with
    the states of the batch. history: named arrays that say what was listened to, for the `FeatureSource` of the same
    batch alone.
    """

    user_id: str
    vector: Floats32
    traits: ListenerTraits = field(default_factory=ListenerTraits)
    recent: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    favourite: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rested: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    known: bool = True
    blocked_artists: frozenset[str] = frozenset()
    history: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    wishes: Wishes = NO_WISHES

    def __post_init__(self) -> None:
        if not self.user_id:
            raise ValueError("user_id is empty; expected a non-empty string")
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise ValueError(f"vector of shape {self.vector.shape} must be [d] and finite")
