"""How a round's pages share the catalogue out, and what new items and the artists of the tail earn on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats, PageBatch
from simulator.loop.service import Service

TOP = 0.1  # of the artists, by the popularity of all their items, are not of the tail


@dataclass(frozen=True, slots=True)
class Exposure:
    """Of the displayed pages of a round; NaN without one.

    coverage: share of the items of the catalogue that were shown. gini: of how often each was shown, 0 where all alike,
    near 1 where a few take all. tail, unheard: streams a page from artists of the tail, and from items that nobody had
    played when the loop began.
    """

    coverage: float
    gini: float
    tail: float
    unheard: float

    @classmethod
    def of(cls, pages: PageBatch, service: Service) -> Exposure:
        n_pages, items = int(pages.displayed.sum()), service.items
        if not n_pages:
            return cls(*[float("nan")] * 4)
        page, row, column = np.nonzero((pages.card >= 0) & pages.displayed[:, None, None])
        item = pages.item[pages.offset[page] + pages.card[page, row, column]]
        streamed = (pages.reward[page, row, column] > 0) & pages.seen[page, row, column]
        shown = np.bincount(item, minlength=len(items)).astype(np.float64)
        artist = items.artists.first
        fame = np.bincount(artist[artist >= 0], items.popularity[artist >= 0], minlength=len(items.artists.vocabulary))
        top = np.argsort(-fame, kind="stable")[: int(np.ceil(TOP * len(fame)))]
        tail = (artist >= 0) & ~np.isin(artist, top)
        unheard = service.unheard if len(service.unheard) else np.zeros(len(items), dtype=np.bool_)
        streams = [float((streamed & which[item]).sum()) / n_pages for which in (tail, unheard)]
        return cls(float((shown > 0).mean()), gini(shown), *streams)


def gini(count: Floats) -> float:
    """Gini coefficient of counts [n] >= 0: half their mean absolute difference over their mean; NaN where all are 0."""
    total, n = float(count.sum()), len(count)
    if total == 0.0:
        return float("nan")
    rank = np.arange(1, n + 1)
    return float(((2 * rank - n - 1) * np.sort(count)).sum() / (n * total))
