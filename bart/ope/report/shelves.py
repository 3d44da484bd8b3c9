"""Impression-to-stream by shelf and by type of card: which of the cards that were seen were streamed.

What a log shows, not what a policy is worth: a shelf stands where the policy put it, and its best cards first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

from bart.types import ITEM_TYPES, Bools, Floats, Ints, ItemTable, PageBatch

STREAM_S = 30.0  # seconds from which listening is a stream
LEVEL = 0.95


def shelf_facts(pages: PageBatch, items: ItemTable | None = None) -> dict[str, list[dict[str, Any]]]:
    """`shelves` by the rule of the shelf and, where the items are given, `types` by the type of the card.

    Each a list, the most seen first, of name, pages on which it stood, seen cards, streams and i2s with its interval by
    listener (None with less than two listeners). Open, forced and never displayed pages are left out.
    """
    usable = pages.closed & pages.displayed & ~pages.forced
    page, row, column = np.nonzero((pages.card >= 0) & usable[:, None, None])
    if not len(page):
        return {"shelves": [], **({} if items is None else {"types": []})}
    candidate = pages.offset[page] + pages.card[page, row, column]
    named = [
        name.partition("=")[0] for name in pages.candidate_rule()[candidate].astype(str).tolist()
    ]  # of all queries
    rule, code = np.unique(np.array(named), return_inverse=True)
    listener = np.unique(pages.user_id.astype(str), return_inverse=True)[1][page]
    seen = pages.seen[page, row, column]
    streamed: Bools = seen & (np.nan_to_num(pages.listened_s[page, row, column]) >= STREAM_S)
    found = {"shelves": _by(rule.tolist(), code, page, listener, seen, streamed)}
    if items is not None:
        item = pages.item[candidate]
        kind = np.where(item >= 0, np.append(items.type, 0)[item], -1)
        found["types"] = _by(list(ITEM_TYPES), kind.astype(np.int64), page, listener, seen, streamed)
    return found


def _by(names: list[str], code: Ints, page: Ints, listener: Ints, seen: Bools, streamed: Bools) -> list[dict[str, Any]]:
    out = []
    for number, name in enumerate(names):
        mine = code == number
        if mine.any():
            value, lower, upper = share_by_listener(streamed[mine], seen[mine], listener[mine])
            out.append(
                {
                    "name": name,
                    "pages": len(np.unique(page[mine])),
                    "seen": int(seen[mine].sum()),
                    "streams": int(streamed[mine].sum()),
                    "i2s": value,
                    "lower": lower,
                    "upper": upper,
                }
            )
    return sorted(out, key=lambda one: (-one["seen"], one["name"]))


def share_by_listener(
    top: Floats | Bools, bottom: Floats | Bools, listener: Ints
) -> tuple[float | None, float | None, float | None]:
    """Sum of top [m] over the sum of bottom [m], and its interval with listeners as clusters (linearised)."""
    total = float(bottom.sum())
    if total == 0:
        return None, None, None
    value = float(top.sum()) / total
    rest = np.bincount(np.unique(listener, return_inverse=True)[1], weights=top.astype(float) - value * bottom)
    n = len(rest)
    if n < 2:
        return value, None, None
    half = float(norm.ppf(0.5 + LEVEL / 2) * np.sqrt(n / (n - 1) * (rest**2).sum()) / total)
    return value, value - half, value + half
