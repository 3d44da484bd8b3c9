"""What a client reports about a page: events, what became of each, and the outcome that they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bart.errors import FeedbackError
from bart.log.record.record import from_us, to_us
from bart.types import Bools, Floats

DEFAULT_WINDOW = timedelta(hours=24)  # how long a page stays open for reports
MAX_LISTENED_S = 86_400.0  # a day: no single play is longer, a larger number is a broken clock
_MOST_PLACES = 2**16  # rows or columns that a page can have as it is stored

# occurred_us, row, column, displayed, seen, listened_s, skipped, saved: an event's content as stored
Content: TypeAlias = tuple[
    int, "int | None", "int | None", "int | None", "int | None", "float | None", "int | None", "int | None"
]


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One report about one card, or (row and column None) about the page, which can say only `displayed`.

    event_id: unique within the page; a repeated one counts once. occurred_at: aware, the client's clock. None means
    "not said". listened_s: seconds listened to this card so far. A card that was listened to or saved was seen, also
    where `seen` is None. Raises FeedbackError where the event contradicts itself.
    """

    event_id: str
    occurred_at: datetime
    row: int | None = None
    column: int | None = None
    displayed: bool | None = None
    seen: bool | None = None
    listened_s: float | None = None
    skipped: bool | None = None
    saved: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.event_id, str) or not self.event_id or len(self.event_id) > 256:
            raise FeedbackError(f"event_id is {self.event_id!r:.40}; expected a string of 1 to 256 characters")
        if not encodable(self.event_id):
            raise FeedbackError(f"event_id is {self.event_id!r:.40}; expected valid Unicode")
        if not isinstance(self.occurred_at, datetime) or self.occurred_at.utcoffset() is None:
            raise self._wrong("occurred_at is not an aware datetime")
        try:
            self.occurred_at.astimezone(timezone.utc)
        except OverflowError:
            at = self.occurred_at.isoformat()
            raise self._wrong(f"occurred_at is {at}; expected a time with a year of 1 to 9999 in UTC") from None
        self._check_listened()
        for name in ("displayed", "seen", "skipped", "saved"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (bool, np.bool_)):
                raise self._wrong(f"{name} is {value!r:.40}; expected true, false or null")
        self._check_place()
        if self.seen is not None and not self.seen:
            if self.listened_s is not None and self.listened_s > 0:
                raise self._wrong(f"seen is false, but listened_s is {self.listened_s}")
            if self.saved:
                raise self._wrong("seen is false, but saved is true")

    def _check_listened(self) -> None:
        listened_s = self.listened_s
        if listened_s is None:
            return
        if isinstance(listened_s, bool) or not isinstance(listened_s, (int, float, np.floating, np.integer)):
            raise self._wrong(f"listened_s is {listened_s!r:.40}; expected seconds")
        if not 0 <= listened_s <= MAX_LISTENED_S:  # in this order, because an int may be too large for a float
            raise self._wrong(f"listened_s is {_short(listened_s)}; expected 0 to {MAX_LISTENED_S:.0f} seconds")
        object.__setattr__(self, "listened_s", float(listened_s))

    def _check_place(self) -> None:
        if (self.row is None) != (self.column is None):
            raise self._wrong("row and column must both be given, or neither")
        if self.row is None:
            for name in ("seen", "listened_s", "skipped", "saved"):
                if getattr(self, name) is not None:
                    raise self._wrong(
                        f"{name} is given without row and column; an event about the page can say only displayed"
                    )
            return
        for name in ("row", "column"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
                raise self._wrong(f"{name} is {_short(value)}; expected a number >= 0")
            if value >= _MOST_PLACES:
                raise self._wrong(f"{name} is {_short(value)}; expected less than {_MOST_PLACES}")

    def _wrong(self, text: str) -> FeedbackError:
        return FeedbackError(f"event {self.event_id!r}: {text}")

    @classmethod
    def of(cls, fields_given: Mapping[str, Any]) -> FeedbackEvent:
        """The event in a mapping, as a client sends it (occurred_at a datetime or ISO 8601 text)."""
        if not isinstance(fields_given, Mapping):
            raise FeedbackError(f"event is {fields_given!r:.40}; expected a mapping with event_id and occurred_at")
        given = dict(fields_given)
        unknown = sorted(set(given) - _FIELDS, key=str)
        if unknown:
            raise FeedbackError(
                f"event has the unknown field {unknown[0]!r:.40}; expected {', '.join(sorted(_FIELDS))}"
            )
        missing = sorted({"event_id", "occurred_at"} - set(given))
        if missing:
            raise FeedbackError(f"event lacks {missing[0]}")
        if isinstance(given["occurred_at"], str):
            try:  # Python 3.10 does not read the Z
                given["occurred_at"] = datetime.fromisoformat(given["occurred_at"].replace("Z", "+00:00"))
            except ValueError:
                raise FeedbackError(f"occurred_at is {given['occurred_at']!r:.40}; expected ISO 8601") from None
        return cls(**given)

    @property
    def content(self) -> Content:
        """What is stored beside the event's id."""
        return (
            to_us(self.occurred_at),
            None if self.row is None else int(self.row),
            None if self.column is None else int(self.column),
            _BIT[self.displayed],
            _BIT[self.seen],
            self.listened_s,
            _BIT[self.skipped],
            _BIT[self.saved],
        )

    @classmethod
    def of_content(cls, event_id: str, content: Content) -> FeedbackEvent:
        """The event that was stored."""
        occurred_us, row, column, displayed, seen, listened_s, skipped, saved = content
        return cls(
            event_id,
            from_us(occurred_us),
            row,
            column,
            None if displayed is None else bool(displayed),
            None if seen is None else bool(seen),
            listened_s,
            None if skipped is None else bool(skipped),
            None if saved is None else bool(saved),
        )


_BIT: dict[bool | None, int | None] = {None: None, False: 0, True: 1}  # also finds those of numpy
_FIELDS = {f.name for f in fields(FeedbackEvent)}


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that was not taken: its place in the batch, its id where it has one, and why."""

    index: int
    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """What became of a batch of events.

    accepted: new and in time. repeated: already known. conflicting: known with another content (the two are joined,
    whatever their order). late: kept and counted, but never merged. quarantined: the request id is not known yet.
    """

    accepted: int = 0
    repeated: int = 0
    conflicting: int = 0
    late: int = 0
    quarantined: int = 0
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PageFeedback:
    """The merged outcome of one page. All arrays [rows, columns] of the page as drawn.

    displayed: the page was on a screen. listened_s: NaN where not said. skipped: -1 where not said, else 0 or 1.
    events: merged; late: not merged. joined_us: when the last merged event arrived, None without one.
    """

    displayed: bool
    seen: Bools
    listened_s: Floats
    skipped: NDArray[np.int8]
    saved: Bools
    events: int = 0
    late: int = 0
    joined_us: int | None = None


def encodable(text: str) -> bool:
    """Whether a text can be stored: JSON can name half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    """A number in a message: digits of a very long one are left out (and Python refuses to write them)."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.40}" if not isinstance(value, (np.floating, np.integer)) else str(value)
