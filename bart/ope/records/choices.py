"""The records that estimators take: logged single choices and logged slates, checked once when they are made.

Pages of shelves have a record of their own, `bart.ope.records.pages.LoggedPages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.errors import SupportError
from bart.types import Floats, Ints

Numbers = NDArray[Any]  # float32 or float64, kept as given where it is large

PMF_TOLERANCE = 1e-6  # how far a pmf may be from summing to 1: float32 inputs round at about 1e-7 an entry
LEAST_PROPENSITY = 1e-60  # of a choice: nobody draws what is rarer, and the squares of such weights overflow


@dataclass(frozen=True, slots=True, eq=False)
class LoggedChoices:
    """Single decisions of a logging policy, with what the evaluation policy would have done.

    reward: [n], finite. action: [n] int in [0, k), the one taken. propensity: [n] in (0, 1], with which it was taken
    (1.0000001, a sum of float32, is 1; below `LEAST_PROPENSITY` it is refused).
    target_pmf: [n, k], the evaluation policy's pmf in each context; or [n, k, positions], one pmf a position (then
    `position` is needed). q_hat: [n, k], predicted reward of every action in each context (at the logged position).
    position: [n] int, where the choice stood. warnings: what holds for the whole log (propensities that were estimated,
    say): every estimate says it first and none is conclusive. sample_weight: [n] > 0, how many decisions each row
    stands for where the log was subsampled (only their ratios count). user: [n], whose decision it was: intervals then
    let rows of one user hang together. Large arrays (target_pmf, q_hat) may be float32 or broadcast views. found: what
    holds whatever the estimator, so that several share it.
    Raises ValueError (SupportError for propensities) that says what is wrong and where.
    """

    reward: Floats
    action: Ints
    propensity: Floats
    target_pmf: Numbers
    q_hat: Numbers | None = None
    position: Ints | None = None
    warnings: tuple[str, ...] = ()
    sample_weight: Floats | None = None
    user: NDArray[Any] | None = None
    found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        reward = _floats("reward", self.reward, 1)
        n = len(reward)
        if n == 0:
            raise ValueError("reward is empty; expected at least one logged choice")
        propensity = _floats("propensity", self.propensity, 1)
        target = _numbers("target_pmf", self.target_pmf)
        if target.ndim not in (2, 3):
            raise ValueError(f"target_pmf has shape {target.shape}; expected [n, k] or [n, k, positions]")
        k = target.shape[1]
        action = _codes("action", self.action, k)
        for name, array in (("action", action), ("propensity", propensity), ("target_pmf", target)):
            _same_length(name, array, n)
        propensity = _propensity("propensity", propensity)
        if propensity.min() < LEAST_PROPENSITY:
            raise SupportError(
                f"propensity{_at(propensity, propensity < LEAST_PROPENSITY)}; expected at least {LEAST_PROPENSITY:g}, "
                "since nobody draws what is rarer"
            )
        _check_pmf("target_pmf", target)
        position = self.position
        if position is not None:
            position = _codes("position", position, target.shape[2] if target.ndim == 3 else None)
            _same_length("position", position, n)
        elif target.ndim == 3:
            raise ValueError(f"target_pmf has shape {target.shape}, one pmf a position; expected position [n] with it")
        q_hat = self.q_hat
        if q_hat is not None:
            q_hat = _numbers("q_hat", q_hat)
            if q_hat.shape != (n, k):
                raise ValueError(f"q_hat has shape {q_hat.shape}; expected ({n}, {k})")
            _check_finite("q_hat", q_hat)
        if self.sample_weight is not None:
            stands_for = _floats("sample_weight", self.sample_weight, 1)
            _same_length("sample_weight", stands_for, n)
            if not stands_for.min() > 0:
                raise ValueError(f"sample_weight{_at(stands_for, ~(stands_for > 0))}; expected a number > 0")
            object.__setattr__(self, "sample_weight", stands_for)
        if self.user is not None:
            object.__setattr__(self, "user", _users(self.user, n))
        for name, value in (
            ("reward", reward),
            ("action", action),
            ("propensity", propensity),
            ("target_pmf", target),
            ("q_hat", q_hat),
            ("position", position),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def n_actions(self) -> int:
        return int(self.target_pmf.shape[1])

    def row_weight(self) -> Floats | None:
        """[n], mean 1: how much each row counts; None where all count alike."""
        return None if self.sample_weight is None else np.asarray(self.sample_weight / self.sample_weight.mean())

    def pmf(self) -> Numbers:
        """The evaluation policy's pmf at the logged position, [n, k]."""
        if self.target_pmf.ndim == 2:
            return self.target_pmf
        return np.asarray(self.target_pmf[np.arange(len(self)), :, self.position])

    def target_propensity(self) -> Floats:
        """[n], the evaluation policy's probability of the logged action."""
        row = np.arange(len(self))
        if self.target_pmf.ndim == 2:
            return np.asarray(self.target_pmf[row, self.action], dtype=np.float64)
        return np.asarray(self.target_pmf[row, self.action, self.position], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class LoggedSlates:
    """Logged slates of m positions, with the probabilities of both policies at three granularities.

    reward: [n, m]. slate_propensity, target_slate: [n], of the whole slate. marginal_propensity, target_marginal:
    [n, m], of the item at that position whatever stands elsewhere. cascade_propensity, target_cascade: [n, m], of all
    items down to that position (products of conditionals). Logging probabilities lie in (0, 1], target ones in [0, 1].
    user: [n], whose slate it was: intervals then let slates of one user hang together.
    """

    reward: Floats
    slate_propensity: Floats
    marginal_propensity: Floats
    cascade_propensity: Floats
    target_slate: Floats
    target_marginal: Floats
    target_cascade: Floats
    user: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        reward = _floats("reward", self.reward, 2)
        if reward.size == 0:
            raise ValueError(f"reward has shape {reward.shape}; expected at least one slate and one position")
        object.__setattr__(self, "reward", reward)
        shape = reward.shape
        for name in (
            "slate_propensity",
            "marginal_propensity",
            "cascade_propensity",
            "target_slate",
            "target_marginal",
            "target_cascade",
        ):
            expected = shape[:1] if "slate" in name else shape
            array = _floats(name, getattr(self, name), len(expected))
            if array.shape != expected:
                raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
            if name.startswith("target"):
                _check_probability(name, array)
            else:
                array = _propensity(name, array)
            object.__setattr__(self, name, array)
        if self.user is not None:
            object.__setattr__(self, "user", _users(self.user, len(reward)))

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def n_positions(self) -> int:
        return int(self.reward.shape[1])


def _users(given: Any, n: int) -> NDArray[Any]:
    user = np.asarray(given)
    if user.ndim != 1:
        raise ValueError(f"user has shape {user.shape}; expected [n], whose decision each row was")
    _same_length("user", user, n)
    return user


def _at(array: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """Index and value of the first bad entry, as `[3, 1] is nan`."""
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"[{', '.join(map(str, index))}] is {array[index]}"


def _numbers(name: str, value: Any) -> Numbers:
    """The array as it is where it is float32 or float64, otherwise as float64."""
    try:
        array = np.asarray(value)
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers") from error


def _floats(name: str, value: Any, ndim: int) -> Floats:
    array = _numbers(name, value).astype(np.float64, copy=False)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimension{'s' if ndim > 1 else ''}")
    _check_finite(name, array)
    return array


def _codes(name: str, value: Any, below: int | None) -> Ints:
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}; expected integers [n]")
    upper = np.inf if below is None else below
    if len(array) and not (array.min() >= 0 and array.max() < upper):
        raise ValueError(f"{name}{_at(array, (array < 0) | (array >= upper))}; expected an integer in [0, {upper})")
    return array.astype(np.int64, copy=False)


def _same_length(name: str, array: NDArray[Any], n: int) -> None:
    if len(array) != n:
        raise ValueError(f"{name} has {len(array)} rows; expected {n}, as many as reward")


def _check_finite(name: str, array: NDArray[Any]) -> None:
    # min and max carry a NaN through, so a good array costs two passes and no temporary.
    if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ValueError(f"{name}{_at(array, ~np.isfinite(array))}; expected a finite number")


def _propensity(name: str, array: Floats) -> Floats:
    """Probabilities in (0, 1]; what float32 leaves above 1 is 1."""
    most = 1 + PMF_TOLERANCE
    if array.size and not (array.min() > 0 and array.max() <= most):
        raise SupportError(f"{name}{_at(array, ~((array > 0) & (array <= most)))}; expected (0, 1]")
    return np.minimum(array, 1.0) if array.size and array.max() > 1 else array


def _check_probability(name: str, array: NDArray[Any]) -> None:
    if array.size and not (array.min() >= 0 and array.max() <= 1 + PMF_TOLERANCE):
        raise ValueError(f"{name}{_at(array, ~((array >= 0) & (array <= 1 + PMF_TOLERANCE)))}; expected [0, 1]")


def _check_pmf(name: str, array: NDArray[Any]) -> None:
    _check_finite(name, array)
    _check_probability(name, array)
    total = array.sum(axis=1, dtype=np.float64)
    if max(abs(float(total.min()) - 1), abs(float(total.max()) - 1)) > PMF_TOLERANCE:
        bad = np.abs(total - 1) > PMF_TOLERANCE
        raise ValueError(f"{name} at row {_at(total, bad)} in sum; expected 1 within {PMF_TOLERANCE}")
