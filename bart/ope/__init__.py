"""Off-policy evaluation: what another policy would have earned, from logged propensities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bart.ope.estimate import estimate
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.estimators.tuning import Tuned, tune
from bart.ope.intervals.choices import INTERVALS
from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.ope.records.estimate import Estimate
from bart.ope.verdict.choices import Diagnostics, Gates, diagnose

if TYPE_CHECKING:
    from bart.ope.records.pages import LoggedPages

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
        from bart.ope.records.pages import LoggedPages

        return LoggedPages
    if name == "PAGE_ESTIMATORS":
        from bart.ope.estimators import pages as page_estimators
        from bart.ope.estimators import slates

        return {**slates.SLATE_ESTIMATORS, **page_estimators.PAGE_ESTIMATORS}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
