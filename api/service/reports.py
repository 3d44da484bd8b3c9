"""What a client reports of a page, as far as it is within the limits, taken into the log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from api.service.report_limits import ReportLimits
from api.wire.schemas import FeedbackRequest
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.outcomes import times_reported
from bart.log.record.feedback import FeedbackResult, Rejection
from bart.log.record.record import from_us


def take_report(
    log: DecisionLog, limits: ReportLimits, request: FeedbackRequest, received_at: datetime
) -> tuple[FeedbackResult, int]:
    """What became of the events, and how many of them were within the limits; those beyond are in `.rejected`.

    An event without a time has that of its arrival, the first one where it comes again.
    """
    names = list(dict.fromkeys(event.event_id for event in request.events))
    with log.reading() as connection:
        times = times_reported(connection, request.request_id, names)
    over = limits.reason(request.request_id, [name for name in names if name not in times])
    places = [i for i, event in enumerate(request.events) if not over or event.event_id in times]
    events = []
    for event in (request.events[i] for i in places):
        first_at = from_us(times[event.event_id]) if event.event_id in times else received_at
        events.append({**event.logged(), "occurred_at": event.occurred_at or first_at})
    result = log.feedback(request.request_id, events, received_at) if events else FeedbackResult()
    if over:
        beyond = [Rejection(i, e.event_id, over) for i, e in enumerate(request.events) if e.event_id not in times]
        known = [replace(one, index=places[one.index]) for one in result.rejected]
        result = replace(result, rejected=tuple(sorted([*known, *beyond], key=lambda one: one.index)))
    return result, len(events)
