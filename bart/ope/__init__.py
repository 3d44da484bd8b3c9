"""Off-policy evaluation: what another policy would have earned, from logged propensities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bart.ope.data import LoggedChoices, LoggedSlates
from bart.ope.diagnostics import Diagnostics, Gates, diagnose
from bart.ope.estimate import Estimate, estimate
from bart.ope.estimators import ESTIMATORS
from bart.ope.intervals import INTERVALS
from bart.ope.tuning import Tuned, tune

if TYPE_CHECKING:
    from bart.ope.pages import LoggedPages

    PAGE_ESTIMATORS: Mapping[str, Callable[..., Any]]

__all__ = [
    "ESTIMATORS",
    "INTERVALS",
    "PAGE_ESTIMATORS",
    "Diagnostics",
    "Estimate",
    "Gates",
    "LoggedChoices",
    "LoggedPages",
    "LoggedSlates",
    "Tuned",
    "diagnose",
    "estimate",
    "tune",
]


def __getattr__(name: str) -> Any:
    # Pages bring in the page policy: whoever evaluates single choices does not pay for that import.
    if name == "LoggedPages":
        from bart.ope.pages import LoggedPages

        return LoggedPages
    if name == "PAGE_ESTIMATORS":
        from bart.ope import page_estimators, slates

        return {**slates.SLATE_ESTIMATORS, **page_estimators.PAGE_ESTIMATORS}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
