"""Whether rows in the order of the log look like independent draws of one world: drift, and neighbours that are alike.

Intervals take rows as independent and their mean as constant. Rewards that fall while the log is written leave a value
of no time; rows of one user next to one another make an interval too short. Either is seen in the rewards, less what
each action earns on average.
"""

from __future__ import annotations

import numpy as np

from bart.ope.intervals.quantiles import chi_square_tail
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Verdict
from bart.ope.records.reduced_choices import ReducedChoices
from bart.ope.records.terms import reward_limits
from bart.types import Floats

BLOCKS = 10
LAGS = 5
LEAST_ROWS = 200
DRIFT = (
    1e-4,
    0.1,
)  # p-value of equal blocks; standard deviation of their true means, of the mean's distance from least
ALIKE = 4.0  # standard errors of the autocorrelation over five lags


def judge_order(data: LoggedChoices) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons; "conclusive" for short logs."""
    n, reward = len(data), data.reward
    spread = float(reward.std())
    if n < LEAST_ROWS or spread == 0:
        return "conclusive", ()
    rest = _residual(data)
    reasons = []
    blocks = np.array_split(rest, BLOCKS)
    mean = np.array([block.mean() for block in blocks])
    noise = float(rest.var()) / (n / BLOCKS)
    if data.user is not None:  # users one after the other are no drift
        by_user = np.bincount(np.unique(data.user, return_inverse=True)[1].reshape(-1), rest)
        noise *= max(float(by_user @ by_user) / float(rest @ rest), 1.0)
    distance = abs(float(reward.mean()) - reward_limits(float(reward.min()), float(reward.max()))[0])
    true = float(np.sqrt(max(mean.var(ddof=1) - noise, 0.0)))
    p = chi_square_tail(float((mean**2).sum()) / noise, BLOCKS - 1) if noise > 0 else 1.0
    if p < DRIFT[0] and true > DRIFT[1] * distance:
        level = float(reward.mean())
        told = f"from {level + mean[0]:.3g} in the first tenth of the log to {level + mean[-1]:.3g} in the last"
        reasons.append(f"rewards are not constant, {told}: the value is that of no one time")
    elif data.user is None:
        square = float(rest @ rest)
        lags = [float(rest[lag:] @ rest[:-lag]) / square for lag in range(1, LAGS + 1)] if square > 0 else [0.0]
        if sum(lags) * np.sqrt(n / LAGS) > ALIKE:
            reasons.append(
                f"rows next to one another are alike (autocorrelation {lags[0]:.2f}): intervals take them as"
                " independent; name the user if rows are of few users"
            )
    return ("weak" if reasons else "conclusive"), tuple(reasons)


def _residual(data: LoggedChoices) -> Floats:
    """[n] rewards less the mean of their action, where the log keeps actions, mean 0."""
    reward = data.reward
    if isinstance(data, ReducedChoices):
        return np.asarray(reward - reward.mean())
    count = np.bincount(data.action)
    mean = np.bincount(data.action, reward) / np.maximum(count, 1)
    rest = reward - mean[data.action]
    return np.asarray(rest - rest.mean())
