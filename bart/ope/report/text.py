"""What every form of a report says alike: names of estimators, the one to read, numbers as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNIT = "expected streams a page"  # of reports that do not say what their values are
MOST_COLUMNS = 6  # estimators side by side in the terminal
MAIN = ("dr", "exposure_dr", "snips", "sn_independent_ips", "ips", "dm")  # which estimate a verdict is read from
NAMES = {
    "ips": "IPS",
    "snips": "SNIPS",
    "ncis": "NCIS",
    "dm": "direct method",
    "dr": "doubly robust",
}
MEANING = {
    "ips": "independent IPS by exact item-position marginals",
    "snips": "the same with weights divided by their sum, slot by slot",
    "ncis": "the same with weights capped; biased by the cap, to either side",
    "dm": "model's reward under modelled browsing; its interval cannot show the model's bias",
    "dr": "exposure DR: model and browsing, corrected by what was seen; read this one",
}


def main_estimate(policy: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The estimate that a policy's verdict is read from, by name."""
    estimates = policy["estimates"]
    name = next((key for key in MAIN if key in estimates), next(iter(estimates)))
    return name, estimates[name]


def tail_of(policy: Mapping[str, Any], estimate: Mapping[str, Any]) -> float | None:
    """Pareto's k of the weights of an estimate, or of its policy where that has one; None where nobody fitted it."""
    found = estimate["pareto_k"] if "pareto_k" in estimate else policy.get("pareto_k")
    return None if found is None else float(found)


def reason_of(policy: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Why a policy's verdict is not conclusive: the first reason, the worst; "" for a conclusive one.

    known: reasons that hold for the whole log and were said before.
    """
    found = main_estimate(policy)[1]
    if found.get("verdict") == "conclusive":
        return ""
    reasons = [str(words) for words in found.get("warnings") or ()]
    return next((words for words in reasons if words not in known), reasons[0] if reasons else "")


def estimator_names(report: Mapping[str, Any]) -> list[str]:
    """Estimators of the report in the order of first appearance, the main one first."""
    names = list(dict.fromkeys(name for policy in report["policies"] for name in policy["estimates"]))
    main = main_estimate(report["policies"][0])[0]
    return [main, *(name for name in names if name != main)]


def number(value: Any) -> str:
    """Four significant digits at most; a dash where nothing is known."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1_000:
        return f"{value:,.0f}"
    if 0 < size < 0.01:
        return f"{value:.2g}" if size >= 0.0001 else f"{value:.1e}"
    return f"{value:.1f}" if size >= 100 else f"{value:.3f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """The interval in words."""
    return f"{number(estimate.get('lower'))} to {number(estimate.get('upper'))}"


def plain(value: Any) -> Any:
    """The same as JSON holds it: no numpy types, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
