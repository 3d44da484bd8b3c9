"""How often each listener streamed what was explored for them: what `bart.page.exploration` adapts its rate to."""

from __future__ import annotations

from collections.abc import Iterable

from bart.page.explored import explored
from bart.types import PageBatch

RECENT_D = 90  # days of pages that count
LEAST = 20  # explored cards seen, below which nothing is said: at a share of .2 the error is then .09


def exploration_success(batches: Iterable[PageBatch], least: int = LEAST) -> dict[str, float]:
    """Share of the explored cards seen by each listener that earned a reward, [0, 1]; of those who saw `least` of them.

    Cards count that were drawn and not the best left in their shelf, on pages displayed, closed and not forced.
    """
    seen: dict[str, int] = {}
    streamed: dict[str, int] = {}
    for batch in batches:
        usable = batch.displayed & batch.closed & ~batch.forced
        counted = batch.seen & ~batch.pinned & explored(batch) & usable[:, None, None]
        earned = (counted & (batch.reward > 0)).sum(axis=(1, 2))
        for user, n, k in zip(batch.user_id.tolist(), counted.sum(axis=(1, 2)).tolist(), earned.tolist(), strict=True):
            seen[user], streamed[user] = seen.get(user, 0) + n, streamed.get(user, 0) + k
    return {user: streamed[user] / n for user, n in seen.items() if n >= max(least, 1)}
