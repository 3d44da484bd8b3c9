"""Whether recorded propensities and the log's actions fit each other, beyond the mean of the weights.

For any function f of context and action, the mean of f(x, a) / propensity is that of sum_a f(x, a) where propensities
are right and nothing is left out. The evaluation policy's pmf for f gives the mean weight, which is noisy; these say
more: the mass on actions that the log never took; the weights of each action and of each group of contexts (by the
action that the evaluation policy prefers), held against the mass that they should have; and f = how often the log took
the action in such contexts, counted without the row itself, where the evaluation policy takes it; its ratio to the
propensity hardly varies where the logging policy is simple; and f = 1, which asks most of contexts that differ.
"""

from __future__ import annotations

import numpy as np

from bart.ope.intervals.quantiles import normal_quantile
from bart.ope.records.balance_sums import BalanceSums, of_pmf
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.reduced_choices import ReducedChoices
from bart.types import Floats

MOST_ROWS = 200_000  # evenly spread over the log: more would find faults that move no verdict
LEAST_EFFECTIVE = 20.0  # rows of an action or group: fewer say nothing of the error of their mean
IMPOSSIBLE = "propensity 0"
EXPECTED = 5.0  # rows that an action should have had before its absence says anything
UNSUPPORTED = (0.02, 0.1)  # of the evaluation policy's mass: weak, unusable beyond
FALSE_ALARM = 0.01  # of a clean log, by all groups and actions together
RATE_ERRORS, RATE_OFF = 3.5, (0.02, 0.1)  # of recorded against counted propensities: standard errors, weak, unusable
UNSEEN = 3.0  # rows of the largest possible weight that a log may lack by chance: e^-3 is 5 %
MOST_CHECKS = 100  # actions, and groups, that are looked at
ROUNDING = 1e-9  # of a mean that should be 0


def judge_balance(data: LoggedChoices) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons; "conclusive" for records that know no actions."""
    if data.sample_weight is not None:
        return "conclusive", ()
    if isinstance(data, ReducedChoices):
        return judge_sums(data.balance)
    if data.target_pmf.ndim != 2:
        return "conclusive", ()
    step = max(len(data) // MOST_ROWS, 1)
    return judge_sums(of_pmf(data.action[::step], data.propensity[::step], data.target_pmf[::step]))


def judge_sums(sums: BalanceSums | None) -> tuple[Verdict, tuple[str, ...]]:
    """The same from what a log summed up; "conclusive" where it did not."""
    if sums is None or sums.n < 2 * EXPECTED:
        return "conclusive", ()
    bad: list[str] = []
    weak: list[str] = []
    missing, where = _missing_mass(sums)
    if missing > UNSUPPORTED[0]:
        said = f"{missing:.0%} of the evaluation policy's choices are actions that the log never took ({where})"
        (bad if missing > UNSUPPORTED[1] else weak).append(f"{said}: what they earn is not in the log")
    else:
        weak += _unbalanced(sums)
    for rate, error in (_counted(sums), _in_all(sums)):
        if abs(rate - 1) > max(RATE_ERRORS * error, RATE_OFF[0]):
            said = f"actions were taken {rate:.3f} times as often as their propensities say"
            (bad if abs(rate - 1) > RATE_OFF[1] else weak).append(f"{said}: propensities are wrong")
            break
    if bad:
        return "unusable", tuple(bad + weak)
    return ("weak" if weak else "conclusive"), tuple(weak)


def _missing_mass(sums: BalanceSums) -> tuple[float, str]:
    """Mass of the evaluation policy on actions that are never logged, though the least propensity would show them."""
    lacking = sums.unsupported / sums.n
    taken = sums.taken > 0
    if taken.all() or sums.n * sums.least < EXPECTED:
        return lacking, IMPOSSIBLE
    mass = np.where(taken, 0.0, sums.mass[0] / sums.n)
    if lacking >= mass.sum():
        return lacking, IMPOSSIBLE
    named = np.argsort(-mass)[: min(int((mass > 0).sum()), 3)]
    return float(mass.sum()), ", ".join(f"action {a}" for a in named.tolist())


def _unbalanced(sums: BalanceSums) -> list[str]:
    """The worst action or group of contexts whose weights do not add up to its mass."""
    n, checks = sums.n, list[tuple[float, str]]()
    share, own, unseen = sums.mass[0] / n, sums.own, UNSEEN * (sums.most / sums.least) ** 2 / n
    gap = np.stack([own[0] - sums.mass[0], sums.mass[1] + own[2], own[3] - sums.mass[2]]) / n
    asked = (share > 0.01) & (sums.taken * sums.least < n) & (_effective(own[0], own[1]) >= LEAST_EFFECTIVE)
    for a in np.flatnonzero(asked).tolist()[:MOST_CHECKS]:
        said = f"on action {a} weights add up to {1 + gap[0, a] / share[a]:.2f} of its mass"
        checks.append((_errors(gap[:, a], n, unseen), said))
    rows, w, w2, w3 = sums.preferred
    inside = np.stack([w - rows, w2 - 2 * w + rows, w3 - 3 * w2 + 3 * w - rows]) / n  # of w - 1
    asked = (rows * sums.least > EXPECTED) & (rows < n) & (_effective(w, w2) >= LEAST_EFFECTIVE)
    for g in np.flatnonzero(asked).tolist()[:MOST_CHECKS]:
        said = f"in {rows[g] / n:.0%} of the contexts weights average {w[g] / rows[g]:.2f} instead of 1"
        checks.append((_errors(inside[:, g], n, unseen), said))
    if not checks:
        return []
    worst, said = max(checks, key=lambda check: abs(check[0]))
    if abs(worst) <= normal_quantile(1 - FALSE_ALARM / 2 / len(checks)):
        return []
    return [f"{said}, {abs(worst):.1f} standard errors off: propensities are wrong or actions are left out there"]


def _effective(total: Floats, square: Floats) -> Floats:
    return np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)


def _errors(moments: Floats, n: int, unseen: float) -> float:
    """Standard errors between a mean and 0. moments: mean, mean square and mean cube of n rows, of which no more than
    `MOST_ROWS` count. unseen: what rows of the largest weight that chance left out would add to the mean square.

    Rare large weights skew the mean. Where some were drawn, Johnson's (1978) term says how much less a mean above 0
    tells; where they were not, the spread does not hold them, and a mean below 0 would look like a fault.
    """
    mean, second, cube = moments.tolist()
    square = second - mean**2
    if abs(mean) < ROUNDING or square <= 1e-24:
        return 0.0
    third, n, moved = cube - 3 * mean * second + 2 * mean**3, min(n, MOST_ROWS), mean
    if mean > 0:
        moved += third / (6 * square * n) + third * mean**2 / (3 * square**2)
    return float(moved / np.sqrt((square + unseen) / n))


def _in_all(sums: BalanceSums) -> tuple[float, float]:
    """The same of all actions together that the log ever took and that the evaluation policy may: 1 / propensity should
    add up to how often they were on offer."""
    k, n = len(sums.taken), sums.n
    if k < 2 or sums.cells.shape[1] != k * k:
        return 1.0, 0.0
    _, offered, both, inverse, square = sums.cells.reshape(5, k, k)
    mean = float(offered[:, sums.taken > 0].sum()) / n
    if mean <= 0 or both.sum() < EXPECTED:
        return 1.0, 0.0
    found = float(inverse.sum()) / n
    spread = max(float(square.sum()) / n - found**2, 0.0) + UNSEEN / sums.least**2 / n
    return found / mean, float(np.sqrt(spread / min(n, MOST_ROWS))) / mean


def _counted(sums: BalanceSums) -> tuple[float, float]:
    """How often actions were taken over how often their propensities say, 1 where right, and its standard error.

    Of actions that the evaluation policy takes: those that it cannot take may not have been on offer.
    """
    k, n = len(sums.taken), sums.n
    width = sums.cells.shape[1] // max(k, 1)  # actions that are counted in a group: all, or its own
    if not width:
        return 1.0, 0.0
    count, offered, both, inverse, square = sums.cells.reshape(5, k, width)
    rows = sums.preferred[0]
    others = np.maximum(rows - 1, 1.0)
    expected = ((offered * count).sum(axis=1) - both.sum(axis=1)) / others  # over the rows of a group
    once = (count - 1) / others[:, None]
    found, squares = (inverse * once).sum(axis=1), float((square * once**2).sum())
    mean = float(expected.sum()) / n
    if mean <= 0 or both.sum() < EXPECTED:
        return 1.0, 0.0
    gap = float(found.sum()) / n - mean
    each = np.divide(expected, rows, out=np.zeros(k), where=rows > 0)
    second = (squares - 2 * float(each @ found) + float(each @ expected)) / n
    error = float(np.sqrt(max(second - gap**2, 0.0) / min(n, MOST_ROWS)))
    return 1 + gap / mean, error / mean
