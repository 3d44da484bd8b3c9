"""Sums that check propensities against actions, of a table whose pmfs are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bart.ope.records.balance_sums import BalanceSums, of_pmf

MOST_CELLS = 40_000  # of a batch, which of many columns holds few rows


def put_balance(found: dict[str, Any], names: Sequence[str], events: int) -> None:
    """Adds "balance NAME" of each policy to the arrays of a batch, from its "pmf NAME". events: how many were known
    before; of each event the first row counts. Nothing where the log has no propensities, or rows stand for several."""
    if "propensity" not in found or "weight" in found or not len(found["reward"]):
        return
    rows: Any = slice(None)
    if "event" in found:
        code, first = np.unique(found["event"], return_index=True)
        rows = np.sort(first[code >= events])
    for name in names:
        given = found["action"][rows], found["propensity"][rows], found[f"pmf {name}"][rows]
        found[f"balance {name}"] = of_pmf(*given, MOST_CELLS)


def plus(one: BalanceSums | None, other: BalanceSums | None) -> BalanceSums | None:
    """Of both parts of a log; None where neither is known."""
    return other if one is None else one.plus(other)
