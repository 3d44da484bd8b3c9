"""What verdicts and plots need of page weights, in sums: their size, and what the heaviest of them carry."""

from __future__ import annotations

import numpy as np

from bart.ope.engine.sums import Statistics
from bart.ope.verdict.pages import WeightFacts
from bart.types import Floats

BITS = 12  # mantissa bits: weights within a four-thousandth of one another are counted together
HEAVIEST = 0.01


def put_weights(out: Statistics, place: str, weight: Floats, reward: Floats) -> None:
    """Adds page weights [b], and the rewards [b] that they carry by cells of nearly equal weights."""
    size = np.abs(weight)
    cell, group = np.unique(size.astype(np.float64).view(np.int64) >> (52 - BITS), return_inverse=True)
    out.put(f"{place}/weight", weight.sum())
    out.put(f"{place}/weight size", size.sum())
    out.put(f"{place}/weight square", np.einsum("i,i->", weight, weight))
    out.put(f"{place}/weight most", weight.max(), "max")
    out.put(f"{place}/cell pages", np.bincount(group, minlength=len(cell)), key=cell)
    out.put(f"{place}/cell carried", np.bincount(group, size * reward, len(cell)), key=cell)


def weight_cells(found: Statistics, place: str) -> tuple[Floats, Floats]:
    """Sizes of page weights, to within a four-thousandth, and how many pages have each."""
    size = (found.keys(f"{place}/cell pages").astype(np.int64) << (52 - BITS)).view(np.float64)
    return size, found.values(f"{place}/cell pages")


def summed_weights(found: Statistics, place: str) -> WeightFacts:
    """As `weight_facts` of all pages, but for the edge between the heaviest and the rest, which is a cell wide."""
    count, carried = found.values(f"{place}/cell pages"), found.values(f"{place}/cell carried")
    pages, square = int(count.sum()), found.total(f"{place}/weight square")
    mean = found.total(f"{place}/weight") / pages
    left = np.clip(max(np.ceil(HEAVIEST * pages), 1) - (np.cumsum(count[::-1])[::-1] - count), 0, count)
    total = float(carried.sum())
    return WeightFacts(
        pages=pages,
        size=found.total(f"{place}/weight size") ** 2 / square if square > 0 else 0.0,
        mean=mean,
        error=float(np.sqrt(max(square / pages - mean**2, 0.0) / pages)),
        largest=found.total(f"{place}/weight most"),
        top=float((carried * left / count).sum()) / total if total > 0 else 0.0,
    )
