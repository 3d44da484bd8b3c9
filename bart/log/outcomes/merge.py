"""How the reports on a page become one outcome per card.

Reports arrive late, out of order and more than once. So the merge is a join of a lattice: displayed, seen and saved by
OR, listened_s by maximum (a player repeats a growing counter; summing would count twice), skipped by OR with null kept.
A repeated event id that says something else is joined in the same way. Nothing depends on the order or the number of
deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bart.errors import FeedbackError
from bart.log.record.feedback import Content, FeedbackEvent, PageFeedback
from bart.types import Bools


def check_on_page(event: FeedbackEvent, shown: Bools) -> None:
    """Raises FeedbackError where the event names a slot without a card. shown: [rows, columns]."""
    if event.row is None or event.column is None:
        return
    rows, columns = shown.shape
    if event.row >= rows or event.column >= columns or not shown[event.row, event.column]:
        raise FeedbackError(
            f"event {event.event_id!r}: no card at row {event.row}, column {event.column}; the page has {rows} rows, "
            f"{columns} columns and {int(shown.sum())} cards"
        )


def merge(shape: tuple[int, int], events: Iterable[FeedbackEvent]) -> PageFeedback:
    """The outcome of a page of the given rows and columns. Does not depend on order or repetition."""
    kept: dict[str, Content] = {}
    for event in events:
        content = event.content
        known = kept.get(event.event_id)
        kept[event.event_id] = content if known is None else joined(known, content)
    return merge_contents(shape, kept.values())


def merge_contents(
    shape: tuple[int, int], contents: Iterable[Content], late: int = 0, joined_us: int | None = None
) -> PageFeedback:
    """`merge` of stored contents, one an event id."""
    displayed, events = False, 0
    seen, saved = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    listened_s = np.full(shape, np.nan)
    skipped = np.full(shape, -1, dtype=np.int8)
    for _, row, column, was_displayed, was_seen, seconds, was_skipped, was_saved in contents:
        events += 1
        if was_displayed:
            displayed = True
        if row is None or column is None:
            continue
        if was_seen or was_saved or (seconds is not None and seconds > 0):
            seen[row, column] = True
        if was_saved:
            saved[row, column] = True
        if seconds is not None and not listened_s[row, column] >= seconds:
            listened_s[row, column] = seconds
        if was_skipped is not None and was_skipped > skipped[row, column]:
            skipped[row, column] = was_skipped
    displayed = displayed or bool(seen.any())  # who saw a card had the page on the screen
    return PageFeedback(displayed, seen, listened_s, skipped, saved, events, late, joined_us)


def joined(one: Content, other: Content) -> Content:
    """The content of a repeated event id: what either of two says of the same slot, and the most of it.

    Where they name different slots, the first slot is kept, and a report on the page as a whole before any. The order
    and the number of the reports do not matter: this is the join over those that name the first slot.
    """
    slot, other_slot = _slot(one), _slot(other)
    if slot != other_slot:
        return one if slot < other_slot else other
    said = (_most(a, b) for a, b in zip(one[3:], other[3:], strict=True))
    return (min(one[0], other[0]), one[1], one[2], *said)  # type: ignore[return-value]


def _slot(content: Content) -> tuple[int, int]:
    return (-1 if content[1] is None else content[1], -1 if content[2] is None else content[2])


def _most(one: float | None, other: float | None) -> float | None:
    """Null is the least that can be said."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
