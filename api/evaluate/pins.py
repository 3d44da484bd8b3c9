"""Policies that would not keep the pins of a log: they have no support on pages that hold some, and are told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bart.ope.comparison.evaluation import LEFT_OUT

if TYPE_CHECKING:
    from bart.ope.engine.sums import Statistics
    from bart.types import PageBatch

REASON = "hold pins, of which a policy without them has no support"


def without_pins(out: Statistics, pages: PageBatch) -> PageBatch | None:
    """The pages that hold no pinned card, None where there are none; the others are counted."""
    pinned = pages.pinned.any(axis=(1, 2))
    if pinned.any():
        out.put("pages", pinned.sum())
        out.put(f"{LEFT_OUT}{REASON}", pinned.sum())
    if pinned.all():
        return None
    return pages.take(np.flatnonzero(~pinned)) if pinned.any() else pages


def of_the_others(left_out: int, pages: int, policies: list[str]) -> dict[str, str]:
    """What to say of each policy, where pages with pins were left out. pages: with them."""
    if not left_out:
        return {}
    words = f"{left_out / pages:.0%} of the pages {REASON}: the value is that of the other pages"
    return dict.fromkeys(policies, words)
