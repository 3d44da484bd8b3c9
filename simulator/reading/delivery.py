"""How the outcome of a page reaches the service: reports by card, some late, repeated or lost."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from simulator.reading.browsing import Feedback

Event: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True, slots=True)
class DeliveryParams:
    """Shares of what goes wrong between client and service.

    lost: pages of which nothing arrives. late: pages of which everything arrives late, after `late_s` seconds on
    average (exponential) beyond the usual delay. repeated: pages that are reported twice. usual_s: delay of the others.
    """

    lost: float = 0.0
    late: float = 0.0
    late_s: float = 6 * 3_600.0
    repeated: float = 0.0
    usual_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("lost", "late", "repeated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in [0, 1]")
        if self.late_s < 0 or self.usual_s < 0:
            raise ValueError("late_s and usual_s must be at least 0 seconds")


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """Events that arrive together."""

    received_at: dt.datetime
    events: list[Event]


def feedback_events(feedback: Feedback, page: int, at_s: int) -> list[Event]:
    """What the client reports of one page: that it was displayed, and each card that was seen.

    at_s: when the page was decided, UTC seconds. Event ids are unique within the page. Nothing of a page that was never
    displayed.
    """
    if not feedback.displayed[page]:
        return []
    moment = dt.datetime.fromtimestamp(int(at_s), tz=dt.timezone.utc) + dt.timedelta(seconds=1)
    events: list[Event] = [_event("page", moment, None, None)]
    for row, column in np.argwhere(feedback.seen[page]).tolist():
        listened = float(feedback.listened_s[page, row, column])
        moment += dt.timedelta(seconds=1 + listened)
        streamed = bool(feedback.streamed[page, row, column])
        events.append(
            _event(f"{row}:{column}", moment, row, column)
            | {
                "seen": True,
                "listened_s": listened,
                "skipped": (not streamed) if listened > 0 else None,
                "saved": bool(feedback.saved[page, row, column]),
            }
        )
    return events


def deliver(
    feedback: Feedback, page: int, at_s: int, params: DeliveryParams, rng: np.random.Generator
) -> list[Delivery]:
    """When the events of one page arrive, in the order of arrival; empty where they are lost or there are none."""
    u = rng.random(3)
    wait = rng.exponential(max(params.late_s, 1e-9), size=2)
    events = feedback_events(feedback, page, at_s)
    if not events or u[0] < params.lost:
        return []
    delay = params.usual_s + (wait[0] if u[1] < params.late else 0.0)
    done = events[-1]["occurred_at"]
    out = [Delivery(done + dt.timedelta(seconds=delay), events)]
    if u[2] < params.repeated:
        out.append(Delivery(done + dt.timedelta(seconds=delay + wait[1]), events))
    return out


def _event(event_id: str, occurred_at: dt.datetime, row: int | None, column: int | None) -> Event:
    return {
        "event_id": event_id,
        "occurred_at": occurred_at,
        "row": row,
        "column": column,
        "displayed": True,
        "seen": None,
        "listened_s": None,
        "skipped": None,
        "saved": None,
    }
