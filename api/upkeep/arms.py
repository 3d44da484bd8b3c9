"""The arms of an experiment against each other: plain randomised comparisons, with listeners as the independent units.

Errors are the jackknife's by listener with Student's law at its degrees of freedom (`bart.ope.intervals.clusters`).
Differences to the first arm hold at every look, since a report is one that is read again tomorrow, and for all arms
together (Bonferroni); beside them stands the shorter interval for a single look decided upon beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.intervals.clusters import Clustered, clustered_mean
from bart.ope.intervals.quantiles import chi_square_tail
from bart.types import Bools, PageBatch, Strings

LEAST_LISTENERS = 20  # in an arm: with fewer, nothing is decided
LARGEST_SHARE = 0.2  # of an arm's pages, from one listener: beyond it the arm's mean is that of one person
SHARES_WRONG = 0.001  # p-value of the arms' sizes below which something else than chance filled them


@dataclass(frozen=True, slots=True)
class Online:
    """Mean value of a page in an arm with its interval, and the difference to the first arm.

    difference_lower, difference_upper: hold at every look; once_lower, once_upper: for one look. None where there is no
    interval: a single listener, or the first arm. decision: "better" or "worse" than the first arm, or "open". notes:
    what the arm's figures must be read with.
    """

    arm: str
    pages: int
    listeners: int
    largest_share: float
    value: float
    lower: float | None
    upper: float | None
    difference: float | None = None
    difference_lower: float | None = None
    difference_upper: float | None = None
    once_lower: float | None = None
    once_upper: float | None = None
    decision: str | None = None
    notes: tuple[str, ...] = ()


def compare(pages: PageBatch, arm: Strings, labels: Sequence[str], level: float) -> list[Online]:
    """The mean value of a page in each arm of `labels` that has pages, the first one being what others differ from."""
    value = np.where(pages.seen, pages.reward, 0.0).sum(axis=(1, 2))
    means: dict[str, Clustered] = {}
    for label in labels:
        mine: Bools = arm == label
        if mine.any():
            means[label] = clustered_mean(value[mine], pages.user_id[mine].astype(str))
    if not means:
        raise DataError("no closed page is of an arm of this experiment; expected [experiment] as it was served")
    return compare_means(means, level)


def compare_means(means: Mapping[str, Clustered], level: float) -> list[Online]:
    """The same from each arm's mean, the first one being what others differ from."""
    (_, base), *others = means.items()
    each = 1 - (1 - level) / max(len(others), 1)
    out: list[Online] = []
    for label, mean in means.items():
        notes = _notes(mean)
        found: dict[str, Any] = {}
        if mean is not base:
            gap = mean.minus(base)
            always, once = gap.always(each), gap.interval(each)
            decided = not notes and not _notes(base) and not always[0] <= 0 <= always[1]
            found = {
                "difference": gap.value,
                "difference_lower": _finite(always[0]),
                "difference_upper": _finite(always[1]),
                "once_lower": _finite(once[0]),
                "once_upper": _finite(once[1]),
                "decision": ("better" if gap.value > 0 else "worse") if decided else "open",
            }
        lower, upper = (_finite(end) for end in mean.interval(level))
        out.append(
            Online(label, mean.decisions, mean.listeners, mean.largest, mean.value, lower, upper, **found, notes=notes)
        )
    return out


def check_shares(user_id: Strings, arm: Strings, share: Mapping[str, float]) -> dict[str, Any]:
    """Whether the arms hold as many listeners as their shares say: a page lost in one arm alone shows here.

    share: by arm, more than 0. Listeners with pages in several arms (the shares were changed) are counted apart.
    """
    pairs = np.unique(np.stack([user_id.astype(str), arm.astype(str)], axis=1)[np.isin(arm, list(share))], axis=0)
    listener, times = np.unique(pairs[:, 0], return_counts=True)
    alone = np.isin(pairs[:, 0], listener[times == 1])
    count = np.array([int((pairs[alone, 1] == label).sum()) for label in share], dtype=np.float64)
    expected = np.array(list(share.values())) / sum(share.values()) * count.sum()
    several = int((times > 1).sum())
    p = 1.0
    if len(share) > 1 and count.sum() > 0:
        p = chi_square_tail(float(((count - expected) ** 2 / expected).sum()), len(share) - 1)
    warnings = []
    if p < SHARES_WRONG:
        told = ", ".join(f"{label} {int(n):,} ({e:,.0f})" for label, n, e in zip(share, count, expected, strict=True))
        warnings.append(
            f"listeners by arm (expected from the shares): {told}; p = {p:.2g}: something else than the draw decides"
            " whose pages are in the log, and no comparison holds"
        )
    if several:
        warnings.append(f"{several:,} listeners have pages in several arms: shares or salt were changed on the way")
    return {
        "listeners": dict(zip(share, count.astype(int).tolist(), strict=True)),
        "expected": dict(zip(share, expected.tolist(), strict=True)),
        "p_value": p,
        "several_arms": several,
        "warnings": warnings,
    }


def _notes(mean: Clustered) -> tuple[str, ...]:
    notes = []
    if mean.listeners < LEAST_LISTENERS:
        notes.append(f"{mean.listeners} listeners; {LEAST_LISTENERS} an arm are needed before anything is decided")
    if mean.largest > LARGEST_SHARE:
        notes.append(f"one listener made {mean.largest:.0%} of the pages: the mean is largely that of one person")
    return tuple(notes)


def _finite(end: float) -> float | None:
    return float(end) if np.isfinite(end) else None
