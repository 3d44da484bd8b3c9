"""One call for every estimator: value, interval, how much of the log supports it, and a verdict.

`estimate` looks at the type of the record and goes to the table of estimators that stands beside that record:
single choices, slates, pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.ope.records.estimate import Estimate
from bart.ope.records.estimate import Verdict as Verdict

if TYPE_CHECKING:
    from bart.ope.records.pages import LoggedPages


def estimate(
    name: str,
    data: LoggedChoices | LoggedSlates | LoggedPages,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    **parameters: Any,
) -> Estimate:
    """The value of the evaluation policy by the named estimator, with an interval and a verdict.

    name: a key of `ESTIMATORS` (single choices) or `PAGE_ESTIMATORS` (slates, pages). interval: a key of `INTERVALS`,
    or None for the default of this estimator. rng: needed by bootstraps only. parameters: of the estimator (`cap`,
    `tau`, `lam`, ...) and, under `reward_range`, the least and the largest reward that is possible.
    Raises ValueError for an unknown name, interval or parameter.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number in (0, 1)")
    if isinstance(data, LoggedChoices):
        from bart.ope.estimators.conclude import estimate_choices

        return estimate_choices(name, data, interval, level, rng, **parameters)
    if isinstance(data, LoggedSlates):
        from bart.ope.estimators.slates import estimate_slates

        return estimate_slates(name, data, interval, level, rng, **parameters)
    from bart.ope.records.pages import LoggedPages

    if isinstance(data, LoggedPages):
        from bart.ope.estimators.page_estimate import estimate_pages

        return estimate_pages(name, data, interval, level, rng, **parameters)
    raise ValueError(f"data is a {type(data).__name__}; expected LoggedChoices, LoggedSlates or LoggedPages")
