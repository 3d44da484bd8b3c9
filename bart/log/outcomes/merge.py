"""How the reports on a page become one outcome per card.

Reports arrive late, out of order and more than once. So the merge is a join of a lattice: displayed, seen and saved by
OR, listened_s by maximum (a player repeats a growing counter; summing would count twice), skipped by OR with null kept.
A repeated event id that says something else is joined in the same way. Nothing depends on the order or the number of
deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.errors import FeedbackError
from bart.log.record.block import pages_with
from bart.log.record.feedback import Content, FeedbackEvent, PageFeedback
from bart.log.record.outcomes import NEVER, Outcomes
from bart.types import Bools, Floats, Ints


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
    rows, columns = (np.array([size], dtype=np.int64) for size in shape)
    none = np.full(1, NEVER), np.zeros(1, dtype=np.int64)
    said = Reported.of(np.zeros(len(kept), dtype=np.int64), list(zip(*kept.values(), strict=True))[1:])
    return merge_columns((rows, columns), said, *none).pages()[0]


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """m reports as columns. page: number of the page; row, column, displayed, seen, listened_s, skipped, saved: NaN
    where not said."""

    page: Ints
    row: Floats
    column: Floats
    displayed: Floats
    seen: Floats
    listened_s: Floats
    skipped: Floats
    saved: Floats

    @classmethod
    def of(cls, page: Ints, said: Iterable[Sequence[Any]]) -> Reported:
        """From the values of each field but the first. Raises ValueError where one is no number."""
        columns = list(said) or [()] * 7
        if not all(set(map(type, column)) <= _NUMBERS for column in columns):
            raise ValueError("a report holds a value that is no number")
        none = [column.count(None) == len(column) for column in columns]
        return cls(
            page,
            *(
                np.full(len(page), np.nan) if unsaid else np.array(column, dtype=np.float64)
                for unsaid, column in zip(none, columns, strict=True)
            ),
        )

    def keep(self, mask: Bools) -> Reported:
        """Those where mask [m] is true."""
        return self if mask.all() else Reported(*(getattr(self, name)[mask] for name in Reported.__slots__))


_NUMBERS = {int, float, bool, type(None)}
_MOST_SKIPPED = 127  # as an int8


def merge_columns(shape: tuple[Ints, Ints], reports: Reported, joined_us: Ints, late: Ints) -> Outcomes:
    """`merge` of the reports on many pages, one an event id, whatever their order.

    shape: rows and columns [b]; joined_us, late: [b]. Raises IndexError with the number of the first page that has a
    report on a slot which it lacks.
    """
    out = Outcomes.none(*shape)
    out.joined_us[:], out.late[:] = joined_us, late
    out.events[:] = np.bincount(reports.page, minlength=len(out))
    out.displayed[reports.page[_true(reports.displayed)]] = True
    on_slot = np.flatnonzero(~np.isnan(reports.row) & ~np.isnan(reports.column))
    page, row, column = reports.page[on_slot], reports.row[on_slot], reports.column[on_slot]
    seconds, skipped = reports.listened_s[on_slot], reports.skipped[on_slot]
    fits = (row >= 0) & (row < out.rows[page]) & (column >= 0) & (column < out.columns[page])
    fits &= (row == np.floor(row)) & (column == np.floor(column)) & ~(skipped > _MOST_SKIPPED)
    if not fits.all():
        raise IndexError(int(page[~fits].min()))
    slot = out.offset[page] + row.astype(np.int64) * out.columns[page] + column.astype(np.int64)
    saved = _true(reports.saved[on_slot])
    out.saved[slot[saved]] = True
    out.seen[slot[saved | _true(reports.seen[on_slot]) | (seconds > 0)]] = True
    np.fmax.at(out.listened_s, slot, seconds)
    told = ~np.isnan(skipped)
    np.maximum.at(out.skipped, slot[told], np.maximum(skipped[told], -1).astype(np.int8))
    out.displayed[pages_with(out.seen, out.offset)] = True  # who saw a card had the page on the screen
    return out


def _true(said: Floats) -> Bools:
    return np.asarray(~np.isnan(said) & (said != 0))


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
