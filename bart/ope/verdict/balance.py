"""Whether recorded propensities and the log's actions fit each other, beyond the mean of the weights.

For any function f of context and action, the mean of f(x, a) / propensity is that of sum_a f(x, a) where propensities
are right and nothing is left out. The evaluation policy's pmf for f gives the mean weight, which is noisy; these say
more: the mass on actions that the log never took; the weights of each action and of each group of contexts (by the
action that the evaluation policy prefers), held against the mass that they should have; and f = how often the log took
the action in such contexts, counted without the row itself, where the evaluation policy takes it; its ratio to the
propensity hardly varies where the logging policy is simple.
"""

from __future__ import annotations

import numpy as np

from bart.ope.intervals.quantiles import normal_quantile
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.reduced_choices import ReducedChoices
from bart.ope.weights.choices import effective_sample_size
from bart.types import Bools, Floats, Ints

MOST_ROWS = 200_000  # evenly spread over the log: more would find faults that move no verdict
LEAST_EFFECTIVE = 20.0  # rows of an action or group: fewer say nothing of the error of their mean
EXPECTED = 5.0  # rows that an action should have had before its absence says anything
UNSUPPORTED = (0.02, 0.1)  # of the evaluation policy's mass: weak, unusable beyond
FALSE_ALARM = 0.01  # of a clean log, by all groups and actions together
RATE_ERRORS, RATE_OFF = 3.5, (0.02, 0.1)  # of recorded against counted propensities: standard errors, weak, unusable


def judge_balance(data: LoggedChoices) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons; "conclusive" for records that kept no actions."""
    if isinstance(data, ReducedChoices) or data.target_pmf.ndim != 2 or data.sample_weight is not None:
        return "conclusive", ()
    step = max(len(data) // MOST_ROWS, 1)
    action, propensity, pmf = data.action[::step], data.propensity[::step], data.target_pmf[::step]
    if len(action) < 2 * EXPECTED:
        return "conclusive", ()
    weight = pmf[np.arange(len(action)), action].astype(np.float64) / propensity
    group = np.unique(pmf.argmax(axis=1), return_inverse=True)[1].reshape(-1)
    bad: list[str] = []
    weak: list[str] = []
    missing, where = _missing_mass(action, propensity, pmf)
    if missing > UNSUPPORTED[0]:
        said = f"{missing:.0%} of the evaluation policy's choices are actions that the log never took ({where})"
        (bad if missing > UNSUPPORTED[1] else weak).append(f"{said}: what they earn is not in the log")
    else:
        weak += _unbalanced(action, propensity, pmf, weight, group)
    rate, error = _counted(action, propensity, pmf, group)
    if abs(rate - 1) > max(RATE_ERRORS * error, RATE_OFF[0]):
        said = f"actions were taken {rate:.3f} times as often as their propensities say"
        (bad if abs(rate - 1) > RATE_OFF[1] else weak).append(f"{said}: propensities are wrong")
    if bad:
        return "unusable", tuple(bad + weak)
    return ("weak" if weak else "conclusive"), tuple(weak)


def _missing_mass(action: Ints, propensity: Floats, pmf: Floats) -> tuple[float, str]:
    """Mass of the evaluation policy on actions that are never logged, though the least propensity would show them."""
    taken = np.bincount(action, minlength=pmf.shape[1]) > 0
    if taken.all() or len(action) * float(propensity.min()) < EXPECTED:
        return 0.0, ""
    mass = np.where(taken, 0.0, pmf.mean(axis=0, dtype=np.float64))
    named = np.argsort(-mass)[: min(int((mass > 0).sum()), 3)]
    return float(mass.sum()), ", ".join(f"action {a}" for a in named.tolist())


def _unbalanced(action: Ints, propensity: Floats, pmf: Floats, weight: Floats, group: Ints) -> list[str]:
    """The worst action or group of contexts whose weights do not add up to its mass."""
    n, least = len(action), float(propensity.min())
    checks: list[tuple[float, str]] = []
    share = pmf.mean(axis=0, dtype=np.float64)
    for a in np.flatnonzero((share > 0.01) & (np.bincount(action, minlength=pmf.shape[1]) * least < n)).tolist()[:100]:
        own: Bools = action == a
        if effective_sample_size(weight[own]) < LEAST_EFFECTIVE:
            continue
        gap = np.where(own, weight, 0.0) - pmf[:, a]
        checks.append((_errors(gap), f"on action {a} weights add up to {1 + gap.mean() / share[a]:.2f} of its mass"))
    size = np.bincount(group)
    for g in np.flatnonzero((size * least > EXPECTED) & (size < n)).tolist()[:100]:
        inside: Bools = group == g
        if effective_sample_size(weight[inside]) < LEAST_EFFECTIVE:
            continue
        gap = np.where(inside, weight - 1, 0.0)
        some = f"in {inside.mean():.0%} of the contexts"
        checks.append((_errors(gap), f"{some} weights average {1 + gap.sum() / inside.sum():.2f} instead of 1"))
    if not checks:
        return []
    worst, said = max(checks, key=lambda check: abs(check[0]))
    if abs(worst) <= normal_quantile(1 - FALSE_ALARM / 2 / len(checks)):
        return []
    return [f"{said}, {abs(worst):.1f} standard errors off: propensities are wrong or actions are left out there"]


def _errors(gap: Floats) -> float:
    """Standard errors between the mean and 0, with the skew of rare large weights in them (Johnson, 1978)."""
    mean, square = float(gap.mean()), float(gap.var())
    if square <= 1e-24:
        return 0.0
    third, n = float(np.mean((gap - mean) ** 3)), len(gap)
    moved = mean + third / (6 * square * n) + third * mean**2 / (3 * square**2)
    return moved / float(np.sqrt(square / n))


def _counted(action: Ints, propensity: Floats, pmf: Floats, group: Ints) -> tuple[float, float]:
    """How often actions were taken over how often their propensities say, 1 where right, and its standard error.

    Of actions that the evaluation policy takes: those that it cannot take may not have been on offer.
    """
    offered = pmf > 0
    own = offered[np.arange(len(action)), action]
    count = np.zeros((int(group.max()) + 1, pmf.shape[1]))
    np.add.at(count, (group, action), 1.0)
    others = np.maximum(count.sum(axis=1)[group] - 1, 1.0)
    expected = ((offered * count[group]).sum(axis=1) - own) / others
    gap = own * (count[group, action] - 1) / others / propensity - expected
    mean = float(expected.mean())
    if mean <= 0:
        return 1.0, 0.0
    return 1 + float(gap.mean()) / mean, float(gap.std()) / float(np.sqrt(len(gap))) / mean
