"""Impression-to-stream by shelf and by type of card: which of the cards that were seen were streamed.

What a log shows, not what a policy is worth: a shelf stands where the policy put it, and its best cards first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from bart.ope.intervals.quantiles import normal_quantile
from bart.types import ITEM_TYPES, Floats, Ints, ItemTable, PageBatch

STREAM_S = 30.0  # seconds from which listening is a stream
LEVEL = 0.95


def shelf_facts(pages: PageBatch, items: ItemTable | None = None) -> dict[str, list[dict[str, Any]]]:
    """`shelves` by the rule of the shelf and, where the items are given, `types` by the type of the card.

    Each a list, the most seen first, see `i2s_facts`. Open, forced and never displayed pages are left out.
    """
    listener = np.unique(pages.user_id.astype(str), return_inverse=True)[1].reshape(-1)
    found = {"shelves": counts_by_shelf(pages)}
    if items is not None:
        found["types"] = counts_by_type(pages, items)

    def summed(counts: Floats) -> Floats:
        return np.stack([np.bincount(listener, column) for column in counts.T], axis=1)

    return {
        key: i2s_facts((name, summed(counts)) for name, counts in by_name.items()) for key, by_name in found.items()
    }


def counts_by_shelf(pages: PageBatch) -> dict[str, Floats]:
    """By rule, [b, 3]: whether a shelf of it stood on the page, its cards that were seen, and those streamed."""
    page, cell, candidate = _shown(pages)
    named = [
        name.partition("=")[0] for name in pages.candidate_rule()[candidate].astype(str).tolist()
    ]  # of all queries
    rule, code = np.unique(np.array(named, dtype=str), return_inverse=True)
    return _counts(pages, rule.tolist(), code.reshape(-1), page, cell)


def counts_by_type(pages: PageBatch, items: ItemTable) -> dict[str, Floats]:
    """The same by the type of the card; cards that the table does not hold are left out."""
    page, cell, candidate = _shown(pages)
    item = pages.item[candidate]
    kind = np.where((item >= 0) & (item < len(items)), np.append(items.type, 0)[np.clip(item, -1, len(items))], -1)
    return _counts(pages, list(ITEM_TYPES), kind.astype(np.int64), page, cell)


def i2s_facts(counted: Iterable[tuple[str, Floats]]) -> list[dict[str, Any]]:
    """Name, pages, seen, streams and i2s with its interval, the most seen first.

    counted: names with counts [u, 3] by listener, or by groups of listeners; with less than two of those that saw any
    there is no interval.
    """
    out = []
    for name, counts in counted:
        shown, seen, streams = counts.sum(axis=0).tolist()
        value = streams / seen if seen else None
        row = {"name": name, "pages": int(shown), "seen": int(seen), "streams": int(streams), "i2s": value}
        came = counts[counts[:, 1] > 0]
        half = None
        if value is not None and len(came) > 1:  # linearised, with listeners as clusters
            rest, n = came[:, 2] - value * came[:, 1], len(came)
            half = float(normal_quantile(0.5 + LEVEL / 2) * np.sqrt(n / (n - 1) * (rest**2).sum()) / seen)
        bounds = (None, None) if value is None or half is None else (max(value - half, 0.0), min(value + half, 1.0))
        out.append({**row, "lower": bounds[0], "upper": bounds[1]})
    return sorted((row for row in out if row["pages"]), key=lambda row: (-row["seen"], row["name"]))


def _shown(pages: PageBatch) -> tuple[Ints, tuple[Ints, Ints, Ints], Ints]:
    """Page, place and candidate of every card of the pages that count."""
    usable = pages.closed & pages.displayed & ~pages.forced
    cell = np.nonzero((pages.card >= 0) & usable[:, None, None])
    return cell[0], (cell[0], cell[1], cell[2]), pages.offset[cell[0]] + pages.card[cell]


def _counts(
    pages: PageBatch, names: list[str], code: Ints, page: Ints, cell: tuple[Ints, Ints, Ints]
) -> dict[str, Floats]:
    seen = pages.seen[cell]
    streamed = seen & (np.nan_to_num(pages.listened_s[cell]) >= STREAM_S)
    out: dict[str, Floats] = {}
    for number, name in enumerate(names):
        mine = code == number
        if mine.any():
            count = [np.bincount(page[mine], some[mine], len(pages)) for some in (seen, streamed)]
            out[name] = np.stack([np.bincount(page[mine], minlength=len(pages)) > 0, *count], axis=1).astype(float)
    return out
