"""What a log of single choices can support, before any estimate is believed: overlap, weights, support, a verdict.

The verdict needs no reward: a log on which a handful of rows carries all weight is called unusable at any reward. The
gates are stated in `Gates`; slates use the same ones, pages of shelves have gates of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.verdict.balance import judge_balance
from bart.ope.verdict.order import judge_order
from bart.ope.weights.choices import choice_weight, effective_sample_size, importance_weight
from bart.types import Floats, Ints

VERDICTS: tuple[Verdict, ...] = ("conclusive", "weak", "unusable")  # best first


@dataclass(frozen=True, slots=True)
class Gates:
    """Where a verdict turns.

    least_matches: rows x overlap, about how many logged choices the evaluation policy would have made; with fewer, no
    method can say much (a 95 % interval for a share from 16 draws is 0.5 wide). weak_below: effective sample size below
    which intervals are wide enough to mislead a comparison. mean_weight_errors: standard errors between the mean weight
    and 1 that show wrong propensities or missing support; below_errors, above_errors: standard errors below and above 1
    from which they are doubted. top_share: of the weighted reward, carried by the largest
    1 % of weights.
    """

    least_matches: float = 16.0
    least_effective: float = 16.0
    weak_below: float = 100.0
    mean_weight_errors: float = 4.0
    below_errors: float = 2.0
    above_errors: float = 2.75
    top_share: float = 0.5


GATES = Gates()


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Figures behind a verdict.

    n: rows. effective_sample_size: of the plain weights. max_weight, mean_weight, mean_weight_error (standard error).
    overlap: mean of min(1, w), the probability that both policies would choose alike, best coupled. matches:
    n x overlap. top_reward_share: share of sum w |r| carried by the largest 1 % of weights (0 where no reward is).
    needed: rows at this exploration rate for an effective sample size of `Gates.weak_below`.
    verdict, reasons: the judgement, worst reason first.
    """

    n: int
    effective_sample_size: float
    max_weight: float
    mean_weight: float
    mean_weight_error: float
    overlap: float
    matches: float
    top_reward_share: float
    needed: int
    verdict: Verdict
    reasons: tuple[str, ...]


def diagnose(data: LoggedChoices) -> Diagnostics:
    """What this log says of the evaluation policy, whatever the estimator: made once a record."""
    if "diagnosis" not in data.found:
        data.found["diagnosis"] = _diagnosis(data)
    found: Diagnostics = data.found["diagnosis"]
    return found


def _diagnosis(data: LoggedChoices) -> Diagnostics:
    weight, row = choice_weight(data), data.row_weight()
    found = diagnose_weights(weight if row is None else weight * row, data.reward)
    verdict, reasons = found.verdict, found.reasons
    for lowered, why in (judge_balance(data), judge_order(data)):
        verdict, reasons = worse(verdict, lowered), (*reasons, *why)
    return replace(found, verdict=verdict, reasons=reasons)


def diagnose_weights(weight: Floats, reward: Floats, gates: Gates = GATES) -> Diagnostics:
    """The same from weights [n] whose mean should be 1, and the reward [n] they multiply."""
    n = len(weight)
    size = effective_sample_size(weight)
    mean = float(weight.mean())
    error = float(weight.std(ddof=1)) / float(np.sqrt(n)) if n > 1 else np.inf
    overlap = float(np.clip(weight, 0.0, 1.0).mean())  # pseudo-inverse weights may lie below 0
    top = top_share(weight, weight * np.abs(reward))
    needed = int(np.ceil(n * gates.weak_below / size)) if size > 0 else 0
    verdict, reasons = judge(n, size, n * overlap, mean, error, top, gates)
    return Diagnostics(
        n, size, float(weight.max()), mean, error, overlap, n * overlap, top, max(needed, n), verdict, reasons
    )


def judge(
    n: int,
    effective: float,
    matches: float,
    mean_weight: float,
    mean_weight_error: float,
    top_reward_share: float = 0.0,
    gates: Gates = GATES,
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons, the worst first."""
    bad: list[str] = []
    weak: list[str] = []
    if matches < gates.least_matches:
        bad.append(
            f"about {matches:.1f} of {n} logged choices match the evaluation policy; at least {gates.least_matches:g}"
            f" are needed{_needed(n, matches, gates.least_matches)}"
        )
    if effective < gates.least_effective:
        bad.append(
            f"effective sample size {effective:.1f} of {n}; at least {gates.least_effective:g} is needed"
            f"{_needed(n, effective, gates.least_effective)}"
        )
    elif effective < gates.weak_below:
        weak.append(
            f"effective sample size {effective:.0f} of {n} is below {gates.weak_below:g}"
            f"{_needed(n, effective, gates.weak_below)}"
        )
    # Rounding alone moves the mean of constant weights by 1e-16, which no standard error of 0 may turn into an alarm.
    off = abs(mean_weight - 1)
    if off > 1e-6 and off > gates.mean_weight_errors * mean_weight_error:
        bad.append(
            f"weights average {mean_weight:.3f}, {off / max(mean_weight_error, 1e-12):.1f} standard errors from 1:"
            " propensities are wrong or the logging policy leaves out actions"
        )
    elif off > 1e-6 and off > mean_weight_error * (gates.below_errors if mean_weight < 1 else gates.above_errors):
        weak.append(
            f"weights average {mean_weight:.3f}, {off / max(mean_weight_error, 1e-12):.1f} standard errors from 1:"
            f" propensities may be wrong{' or actions left out' if mean_weight < 1 else ''}"
        )
    if top_reward_share > gates.top_share:
        weak.append(f"the largest 1 % of weights carries {top_reward_share:.0%} of the weighted reward")
    if bad:
        return "unusable", tuple(bad + weak)
    return ("weak", tuple(weak)) if weak else ("conclusive", ())


def worse(first: Verdict, second: Verdict) -> Verdict:
    """The less favourable of two verdicts."""
    return VERDICTS[max(VERDICTS.index(first), VERDICTS.index(second))]


def top_share(weight: Floats, carried: Floats, fraction: float = 0.01) -> float:
    """Share of sum(carried) that stands in the rows with the largest `fraction` of weights; 0 for a sum of 0."""
    total = float(carried.sum())
    if total <= 0:
        return 0.0
    top = max(int(np.ceil(fraction * len(weight))), 1)
    # All rows at the edge weigh alike: they share the places that are left, so ties are not drawn by their order.
    edge = np.partition(weight, len(weight) - top)[len(weight) - top]
    above, tied = weight > edge, weight == edge
    places = (top - int(above.sum())) / int(tied.sum())
    return float(carried[above].sum() + places * carried[tied].sum()) / total


def support_violations(data: LoggedChoices, logging_pmf: Floats) -> Ints:
    """Rows in which the evaluation policy may take an action that the logging policy cannot.

    logging_pmf: [n, k]. Such actions come from an exploration rate of 0, pins, or positions held greedy; IPS values
    leave out what they would have earned.
    """
    pmf = np.asarray(logging_pmf)
    if pmf.shape != (len(data), data.n_actions):
        raise ValueError(f"logging_pmf has shape {pmf.shape}; expected ({len(data)}, {data.n_actions})")
    return np.flatnonzero(((data.pmf() > 0) & (pmf <= 0)).any(axis=1))


def propensity_error(data: LoggedChoices, logging_pmf: Floats) -> float:
    """Largest difference between a logged propensity and the one the given pmf [n, k] has for that action."""
    replayed = np.asarray(logging_pmf)[np.arange(len(data)), data.action]
    return float(np.abs(replayed - data.propensity).max())


@dataclass(frozen=True, slots=True, eq=False)
class PositionBalance:
    """position: [p]. rows, mean_reward, mean_weight, effective_sample_size: [p], at each."""

    position: Ints
    rows: Ints
    mean_reward: Floats
    mean_weight: Floats
    effective_sample_size: Floats


def position_balance(data: LoggedChoices) -> PositionBalance:
    """Rows, reward and weights by position: one position with few rows or odd weights spoils an average over all."""
    if data.position is None:
        raise ValueError("data.position is None; expected [n], where each choice stood")
    weight = importance_weight(data.target_propensity(), data.propensity)
    position, number = np.unique(data.position, return_inverse=True)
    rows = np.bincount(number)
    total = np.bincount(number, weights=weight)
    square = np.bincount(number, weights=weight**2)
    return PositionBalance(
        position,
        rows,
        np.bincount(number, weights=data.reward) / rows,
        total / rows,
        np.divide(total**2, square, out=np.zeros_like(total), where=square > 0),
    )


def _needed(n: int, have: float, need: float) -> str:
    if have <= 0:
        return ""
    return f", about {int(np.ceil(n * need / have)) - n:,} more rows at this exploration rate"
