"""What exploration costs: the logging policy's greedy ranking minus the logging policy itself, on the same rows.

The logging policy's value is known without weights, as the log's mean reward, so the difference is paired and its
interval holds what both have in common only once. Positive: reward given up for data to learn and to evaluate from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.comparison.selection_choices import select_choices
from bart.ope.estimators.conclude import estimate_choices
from bart.ope.intervals.pages import PageSetting, Spread, student
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.log_side import LogSide
from bart.ope.records.pages import LoggedPages
from bart.types import Floats, PageBatch


def greedy_record(batch: PageBatch, q_logged: Floats | None = None, side: LogSide | None = None) -> LoggedPages:
    """The record of the logging policy without its exploration.

    q_logged: [N] rewards predicted by the logging policy's model, if it predicts rewards. side: as of `logged_pages`.
    """
    return logged_pages(batch, batch.score, 0.0, 0.0, q_logged=q_logged, q_target=q_logged, side=side)


def cost_row(greedy: Spread, earned: Spread, verdict: Verdict, warnings: Sequence[str], level: float) -> dict[str, Any]:
    """Greedy minus logging, expected reward a page, as plain values. greedy: its estimate; earned: the log's mean."""
    paired = replace(greedy, value=greedy.value - earned.value, influence=greedy.influence - earned.influence)
    lower, upper = student(paired, PageSetting(level))
    return _row(paired.value, lower, upper, earned.value, len(paired), verdict, warnings, level)


def cost_of_exploration_choices(
    data: LoggedChoices,
    greedy_pmf: Floats,
    rng: np.random.Generator,
    *,
    user: NDArray[Any] | None = None,
    level: float = 0.95,
) -> dict[str, Any]:
    """Greedy minus logging for single choices. greedy_pmf: [n, k] of the logging policy without its exploration.

    The logging policy enters as one whose weights are all 1.
    """
    greedy = replace(data, target_pmf=greedy_pmf, q_hat=None)
    if greedy.target_pmf.ndim == 3:
        raise ValueError("greedy_pmf has 3 dimensions; expected [n, k], at the logged position")
    itself = replace(greedy, target_pmf=_logged_pmf(data))
    found = estimate_choices("snips", greedy, None, level, rng)
    pair = select_choices({"greedy": greedy, "logging": itself}, rng, user=user, level=level, baseline="logging")
    difference = pair.versus_baseline[0]
    mean = float(data.reward.mean())
    return _row(
        difference.value, difference.lower, difference.upper, mean, len(data), found.verdict, found.warnings, level
    )


def _logged_pmf(data: LoggedChoices) -> Floats:
    """A pmf with the logged propensity at the logged action; the rest, which no weight reads, spread evenly."""
    n, k = len(data), data.n_actions
    rest = (1 - data.propensity) / max(k - 1, 1)
    out = np.repeat(rest[:, None], k, axis=1)
    out[np.arange(n), data.action] = data.propensity
    return out


def _row(
    value: float,
    lower: float,
    upper: float,
    logging: float,
    n: int,
    verdict: Verdict,
    warnings: Sequence[str],
    level: float,
) -> dict[str, Any]:
    return {
        "value": value,
        "lower": lower,
        "upper": upper,
        "level": level,
        "greedy": logging + value,
        "logging": logging,
        "relative": value / logging if logging else None,
        "n": n,
        "verdict": verdict,
        "warnings": list(warnings),
    }
