"""Whether rows in the order of the log look like independent draws of one world: drift, and neighbours that are alike.

Intervals take rows as independent and their mean as constant. Rewards that fall while the log is written leave a value
of no time; rows of one user next to one another make an interval too short. Either is seen in the rewards, less what
each action earns on average.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.intervals.quantiles import chi_square_tail, variance_ratio_tail
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.reduced_choices import ReducedChoices
from bart.ope.records.terms import reward_limits
from bart.types import Floats, Ints

BLOCKS = 10
LAGS = 5
LEAST_ROWS = 200
DRIFT = (
    1e-4,
    0.1,
)  # p-value of equal blocks; standard deviation of their true means, of the mean's distance from least
ALIKE = 4.0  # standard errors of the autocorrelation over five lags
PARTS = (2, 5, 10)  # of a tenth
DRIFTS_BEYOND = 1e-3  # p-value of tenths that differ by no more than their parts


def judge_order(data: LoggedChoices) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons; "conclusive" for short logs."""
    return judge_rows(data.reward, _residual(data), data.user)


def judge_rows(reward: Floats, rest: Floats, user: NDArray[Any] | None) -> tuple[Verdict, tuple[str, ...]]:
    """The same from rewards [n] in the order of the log, what of them is neither of the mean nor of what was shown [n],
    mean 0, and whose row each is."""
    n = len(reward)
    if n < LEAST_ROWS or float(reward.std()) == 0:
        return "conclusive", ()
    mean = np.array([block.mean() for block in np.array_split(rest, BLOCKS)])
    effect = 1.0
    if user is not None:  # users one after the other are no drift
        by_user = np.bincount(np.unique(user, return_inverse=True)[1].reshape(-1), rest)
        effect = max(float(by_user @ by_user) / float(rest @ rest), 1.0)
    level, least = float(reward.mean()), reward_limits(float(reward.min()), float(reward.max()))[0]
    drifts = _drifts(mean, np.full(BLOCKS, n / BLOCKS), float(rest.var()) * effect, abs(level - least))
    if user is not None:
        found = 0.0
    else:  # where rewards drift, neighbours are alike by that: what they share beside it
        found = _likeness(np.concatenate([x - x.mean() for x in np.array_split(rest, BLOCKS)]) if drifts else rest)
    why = []
    if drifts and (not found or _beyond_likeness(rest)):
        told = f"from {level + mean[0]:.3g} in the first tenth of the log to {level + mean[-1]:.3g} in the last"
        why.append(f"rewards are not constant, {told}: the value is that of no one time")
    if found:
        why.append(
            f"rows next to one another are alike (autocorrelation {found:.2f}): intervals take them as"
            " independent; name the user if rows are of few users"
        )
    return ("weak", tuple(why)) if why else ("conclusive", ())


def _likeness(rest: Floats) -> float:
    """Autocorrelation at the first lag where that over a few lags is beyond chance, else 0."""
    square = float(rest @ rest)
    if square <= 0:
        return 0.0
    lags = [float(rest[lag:] @ rest[:-lag]) / square for lag in range(1, LAGS + 1)]
    return lags[0] if sum(lags) * np.sqrt(len(rest) / LAGS) > ALIKE else 0.0


def _beyond_likeness(rest: Floats) -> bool:
    """Whether tenths of the log differ by more than parts of a tenth do, however long the runs of rows that are alike:
    analyses of variance with parts of several lengths."""
    for parts in PARTS:
        mean = np.array([[x.mean() for x in np.array_split(block, parts)] for block in np.array_split(rest, BLOCKS)])
        inside = float(mean.var(axis=1, ddof=1).mean())
        between = parts * float(mean.mean(axis=1).var(ddof=1))
        ratio = between / max(inside, 1e-300)
        if variance_ratio_tail(ratio, BLOCKS - 1, BLOCKS * (parts - 1)) > DRIFTS_BEYOND:
            return False
    return True


def judge_parts(rows: Floats, reward: Floats, square: Floats, least: float) -> tuple[Verdict, tuple[str, ...]]:
    """Drift, from what the parts of a log sum up, [parts] each: rows, rewards and their squares. least: reward that is
    possible."""
    n = float(rows.sum())
    level = float(reward.sum()) / max(n, 1.0)
    spread = float(square.sum()) / max(n, 1.0) - level**2
    if len(rows) < 2 or n < LEAST_ROWS or spread <= 0:
        return "conclusive", ()
    mean = reward / rows
    if not _drifts(mean - level, rows, spread, abs(level - least)):
        return "conclusive", ()
    told = f"from {mean.min():.3g} to {mean.max():.3g} between parts of the log"
    return "weak", (f"rewards are not constant, {told}: the value is that of no one time",)


def stretches(moment: Ints, pages: Floats) -> Ints:
    """[m] the stretch of the log, from 0, that each of the ascending moments [m] (hours) falls into: about tenths of
    the pages, of whole days where the log has three days or more."""
    day = moment // 24
    unit = np.unique(day if len(np.unique(day)) >= 3 else moment, return_inverse=True)[1].reshape(-1)
    count = np.bincount(unit, pages)
    middle = np.cumsum(count) - count / 2
    return np.unique((BLOCKS * middle / max(count.sum(), 1.0)).astype(np.int64), return_inverse=True)[1][unit]


def judge_stretches(
    stretch: Ints, pages: Floats, reward: Floats, modelled: Floats, square: float
) -> tuple[Verdict, tuple[str, ...]]:
    """Drift of what pages earned beside what is modelled of the pages that were shown, so that a logging policy which
    learnt is none. pages, reward, modelled: [m] sums, each of a stretch. square: of listeners' sums of reward less the
    modelled one in scale, all of them."""
    n, earned = float(pages.sum()), float(reward.sum())
    if n < LEAST_ROWS or earned <= 0 or not float(modelled.sum()) > 0 or square <= 0:
        return "conclusive", ()
    rest = reward - modelled * (earned / float(modelled.sum()))
    rows, total, found = (np.bincount(stretch, each).astype(np.float64) for each in (pages, rest, reward))
    if len(rows) < 2 or not _drifts(total / rows, rows, square / n, earned / n):
        return "conclusive", ()
    told = f"from {found[0] / rows[0]:.3g} a page at the beginning of the log to {found[-1] / rows[-1]:.3g} at its end"
    return "weak", (f"rewards are not constant, {told}: the value is that of no one time",)


def _drifts(mean: Floats, rows: Floats, spread: float, distance: float) -> bool:
    """Whether means [parts] that should be 0 differ by more than chance, and by more than matters. spread: variance of
    a row. distance: of the whole mean from the least."""
    noise = spread / rows
    true = float(np.sqrt(max(mean.var(ddof=1) - float(noise.mean()), 0.0)))
    p = chi_square_tail(float((mean**2 / noise).sum()), len(mean) - 1) if spread > 0 else 1.0
    return p < DRIFT[0] and true > DRIFT[1] * distance


def _residual(data: LoggedChoices) -> Floats:
    """[n] rewards less the mean of their action, where the log keeps actions, mean 0."""
    reward = data.reward
    if isinstance(data, ReducedChoices):
        return np.asarray(reward - reward.mean())
    count = np.bincount(data.action)
    mean = np.bincount(data.action, reward) / np.maximum(count, 1)
    rest = reward - mean[data.action]
    return np.asarray(rest - rest.mean())
