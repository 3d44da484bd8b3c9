"""The outcomes of many pages as columns: what `PageFeedback` says of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bart.log.record.block import spread, starts
from bart.log.record.feedback import PageFeedback
from bart.types import Bools, Floats, Ints

NEVER = -(2**63)  # the time of arrival where nothing came


@dataclass(frozen=True, eq=False)
class Outcomes:
    """b outcomes; flat arrays hold page after page, C slots in all.

    rows, columns, displayed, events, late: [b], joined_us: [b], NEVER where nothing was merged. seen, listened_s (NaN
    where not said), skipped (-1 where not said), saved: [C].
    """

    rows: Ints
    columns: Ints
    displayed: Bools
    seen: Bools
    listened_s: Floats
    skipped: NDArray[np.int8]
    saved: Bools
    events: Ints
    late: Ints
    joined_us: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def offset(self) -> Ints:
        """[b + 1], where the slots of a page begin."""
        return starts(self.rows * self.columns)

    @classmethod
    def none(cls, rows: Ints, columns: Ints) -> Outcomes:
        """Of pages on which nothing was reported."""
        b, slots = len(rows), int((rows * columns).sum())
        return cls(
            rows,
            columns,
            np.zeros(b, dtype=np.bool_),
            np.zeros(slots, dtype=np.bool_),
            np.full(slots, np.nan),
            np.full(slots, -1, dtype=np.int8),
            np.zeros(slots, dtype=np.bool_),
            np.zeros(b, dtype=np.int64),
            np.zeros(b, dtype=np.int64),
            np.full(b, NEVER),
        )

    @classmethod
    def of(cls, pages: Sequence[PageFeedback]) -> Outcomes:
        """Of pages one by one."""
        shape = np.array([page.seen.shape for page in pages], dtype=np.int64).reshape(len(pages), 2)
        out = cls.none(shape[:, 0], shape[:, 1])
        for name in ("displayed", "events", "late"):
            getattr(out, name)[:] = [getattr(page, name) for page in pages]
        out.joined_us[:] = [NEVER if page.joined_us is None else page.joined_us for page in pages]
        for name in ("seen", "listened_s", "skipped", "saved") if pages else ():
            getattr(out, name)[:] = np.concatenate([getattr(page, name).ravel() for page in pages])
        return out

    def take(self, pages: Ints) -> Outcomes:
        """Some of the pages, in that order."""
        slot = spread(self.offset, pages)[0]
        by_slot = ("seen", "listened_s", "skipped", "saved")
        arrays = {
            name: getattr(self, name)[slot if name in by_slot else pages] for name in Outcomes.__dataclass_fields__
        }
        return Outcomes(**arrays)

    def pages(self) -> list[PageFeedback]:
        """One by one."""
        shapes = list(zip(self.rows.tolist(), self.columns.tolist(), strict=True))
        ends = list(zip(self.offset[:-1].tolist(), self.offset[1:].tolist(), strict=True))
        slots = [
            [getattr(self, name)[a:b].reshape(shape) for name in ("seen", "listened_s", "skipped", "saved")]
            for (a, b), shape in zip(ends, shapes, strict=True)
        ]
        of_page = (self.displayed, self.events, self.late, self.joined_us)
        facts = zip(*(values.tolist() for values in of_page), strict=True)
        return [
            PageFeedback(displayed, seen, listened_s, skipped, saved, events, late, None if at == NEVER else at)
            for (seen, listened_s, skipped, saved), (displayed, events, late, at) in zip(slots, facts, strict=True)
        ]
