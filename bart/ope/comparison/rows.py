"""Rows of the comparison's tables: estimate, interval, verdict, and what separates it from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bart.ope.comparison.false_discovery import adjusted
from bart.ope.comparison.selection import student_difference
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.verdict.choices import worse


def slice_row(dimension: str, name: str, policy: str, found: Estimate, verdict: Verdict) -> dict[str, Any]:
    """One slice under one policy; it cannot be more certain than the whole log, whose exposure model it uses."""
    return {
        "dimension": dimension,
        "slice": name,
        "policy": policy,
        "pages": found.n,
        **{key: getattr(found, key) for key in ("value", "lower", "upper", "effective_sample_size")},
        "verdict": worse(found.verdict, verdict),
        "warnings": list(found.warnings),
    }


def reward_row(reward: str, policy: str, spread: Spread, verdict: Verdict, level: float) -> dict[str, Any]:
    """One reward under one policy, expected sum a page."""
    lower, upper = student(spread, PageSetting(level))
    return {
        "reward": reward,
        "policy": policy,
        "value": spread.value,
        "lower": max(lower, min(0.0, spread.value)),
        "upper": upper,
        "verdict": verdict,
    }


def difference(one: Spread, other: Spread, against: str, level: float) -> dict[str, Any]:
    """Paired difference of two estimates on the same pages, clustered by listener."""
    paired = replace(one, value=one.value - other.value, influence=one.influence - other.influence)
    lower, upper, p = student_difference(paired.value, paired.by_user(), len(paired), level)
    return {"against": against, "value": paired.value, "lower": lower, "upper": upper, "p_value": p}


def discover(rows: Sequence[dict[str, Any]], false_discovery: float) -> None:
    """Adjusts the p-values of a whole table: the more is looked at, the more differs by chance."""
    compared = [row["difference"] for row in rows if row["difference"] is not None]
    corrected = adjusted(np.array([d["p_value"] for d in compared], dtype=np.float64))
    for found, p in zip(compared, corrected, strict=True):
        found["adjusted_p"] = float(p)
        found["told_apart"] = bool(p <= false_discovery)
