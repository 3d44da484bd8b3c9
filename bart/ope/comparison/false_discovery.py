"""P-values adjusted for how many comparisons were made.

An adjusted p-value is the least false-discovery rate (Benjamini-Hochberg, Benjamini-Yekutieli) or the least chance of
any false discovery (Holm) at which the comparison would still be called a discovery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from bart.types import Floats

Adjustment: TypeAlias = Callable[[Floats], Floats]


def benjamini_hochberg(p: Floats) -> Floats:
    """Controls the expected share of false discoveries where tests are independent or positively dependent.

    Comparisons with one baseline are positively dependent, since they share its error. Source: Benjamini and
    Hochberg (1995).
    """
    return _step_up(p, 1.0)


def benjamini_yekutieli(p: Floats) -> Floats:
    """The same under any dependence, for a factor of about log(number of tests). Source: B. and Yekutieli (2001)."""
    return _step_up(p, float(np.sum(1.0 / np.arange(1, len(p) + 1))))


def holm(p: Floats) -> Floats:
    """Controls the chance of a single false discovery under any dependence. Source: Holm (1979)."""
    m = len(p)
    order = np.argsort(p, kind="stable")
    out = np.empty(m)
    out[order] = np.maximum.accumulate(np.minimum(p[order] * (m - np.arange(m)), 1.0))
    return out


ADJUSTMENTS: Mapping[str, Adjustment] = {
    "benjamini_hochberg": benjamini_hochberg,
    "benjamini_yekutieli": benjamini_yekutieli,
    "holm": holm,
}


def adjusted(p: Floats, name: str = "benjamini_hochberg") -> Floats:
    """[m] adjusted p-values. Raises ValueError for an unknown name or p-values outside [0, 1]."""
    if name not in ADJUSTMENTS:
        raise ValueError(f"adjustment is {name!r}; expected one of {', '.join(ADJUSTMENTS)}")
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p holds numbers outside [0, 1]; expected p-values [m]")
    return ADJUSTMENTS[name](p) if len(p) else p


def _step_up(p: Floats, factor: float) -> Floats:
    m = len(p)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * factor * m / np.arange(1, m + 1)
    out = np.empty(m)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out
