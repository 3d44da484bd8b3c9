"""An `Estimate` from the terms of an estimator of single choices or slates: interval, diagnostics, verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bart.ope.estimators.choices import ESTIMATORS, Estimator
from bart.ope.intervals.choices import BY_USER, Setting, interval_of
from bart.ope.intervals.model_assisted import LABEL, STRENGTH
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate, Verdict
from bart.ope.records.terms import Terms, reward_limits
from bart.ope.verdict.choices import Diagnostics, diagnose, worse
from bart.ope.weights.choices import effective_sample_size
from bart.types import Floats

T = TypeVar("T")

WIDE = 2.0  # an interval wider than this many times the value says little more than its order of magnitude
MEAN_SAID = 0.05  # a mean weight further from 1 is said of estimators that move with it
FEW_USERS = 40  # with fewer clusters, errors by cluster are too small (Cameron and Miller, 2015: 20 to 50 are few)

MODEL_ONLY = (
    "the log has no propensities: the value is a model's prediction alone, and no interval can show the model's bias"
)


def estimate_choices(
    name: str,
    data: LoggedChoices,
    interval: str | None,
    level: float,
    rng: np.random.Generator | None,
    *,
    reward_range: tuple[float, float] | None = None,
    replicates: int = 1_000,
    user: NDArray[Any] | None = None,
    **parameters: Any,
) -> Estimate:
    """The `Estimate` of one estimator of `ESTIMATORS`; see `bart.ope.estimate`.

    reward_range: least and largest possible reward of a choice; [0, 1] where None and rewards lie in it, else what was
    seen, with a warning. replicates, user: of bootstraps; `mrdr` also folds by it.
    """
    if name == "mrdr" and rng is not None:
        parameters = {"rng": rng, "user": user, **parameters}
    terms = run(name, ESTIMATORS, data, parameters)
    seen = float(data.reward.min()), float(data.reward.max())
    warnings: tuple[str, ...] = ()
    if reward_range is not None:
        terms, limits = with_range(terms, seen, reward_range)
    else:
        limits, warnings = seen_range(seen)
    user = data.user if user is None else user
    setting = Setting(level, limits, rng, replicates, user)
    diagnostics = diagnose(data)
    doubtful = terms.control is None or bool(data.warnings or terms.warnings)
    verdict: Verdict = worse(diagnostics.verdict, "weak") if doubtful else diagnostics.verdict
    return finish(name, terms, interval, setting, diagnostics, verdict, warnings, first=data.warnings)


def checked_call(
    name: str, table: Mapping[str, Callable[..., T]], data: Any, parameters: dict[str, Any], **where_taken: Any
) -> T:
    """What the function of that name gives; a ValueError names what is wrong with the name or its parameters.

    where_taken: parameters for a function that has them, unless they are given.
    """
    if name not in table:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(table)}")
    from inspect import signature

    accepted = list(signature(table[name]).parameters)
    parameters = {**{key: value for key, value in where_taken.items() if key in accepted}, **parameters}
    try:
        signature(table[name]).bind(data, **parameters)
    except TypeError as error:
        known = ", ".join(accepted[1:]) or "none"
        raise ValueError(f"{name}: {error}; its parameters are: {known}") from None
    return table[name](data, **parameters)


def run(name: str, table: Mapping[str, Estimator], data: Any, parameters: dict[str, Any]) -> Terms:
    """The terms of the named estimator; a ValueError as `checked_call`."""
    found = checked_call(name, table, data, parameters)
    return found.weighed(data.row_weight()) if isinstance(data, LoggedChoices) else found


def default_interval(terms: Terms) -> str:
    """Empirical likelihood where there are weights to constrain, else Student's (the rows of a model are many)."""
    return "empirical_likelihood" if terms.control is not None and terms.row is None else "student"


def finish(
    name: str,
    terms: Terms,
    interval: str | None,
    setting: Setting,
    diagnostics: Diagnostics,
    verdict: Verdict,
    warnings: tuple[str, ...] = (),
    first: tuple[str, ...] = (),
) -> Estimate:
    """Value, interval and warnings put together; `first` are the warnings that nothing may stand before."""
    chosen = interval or default_interval(terms)
    if setting.user is not None and interval is None and chosen not in BY_USER:
        chosen = "studentised"
    if terms.row is not None and chosen == "empirical_likelihood":
        raise ValueError("interval is 'empirical_likelihood'; expected another one for a log that was subsampled")
    lower, upper = interval_of(chosen, terms, setting)
    size = len(terms) if terms.control is None else effective_sample_size(terms.own_weight())
    value, n = terms.value(), len(terms)
    return conclude(name, terms, value, (lower, upper), chosen, n, size, setting, diagnostics, verdict, warnings, first)


def conclude(
    name: str,
    terms: Terms,
    value: float,
    interval: tuple[float, float],
    chosen: str,
    n: int,
    size: float,
    setting: Setting,
    diagnostics: Diagnostics,
    verdict: Verdict,
    warnings: tuple[str, ...] = (),
    first: tuple[str, ...] = (),
) -> Estimate:
    """The `Estimate` from what was computed of it. Of `terms` only the kind is read (control, shrunk, warnings).

    interval: made by the method named in `chosen`. size: effective sample size of n rows.
    """
    lower, upper = interval
    if lower > upper:  # what is left of a sequence that excluded every value
        verdict, (lower, upper) = worse(verdict, "weak"), setting.limits
        first = (*first, "the anytime interval crossed itself: the mean was not constant, and no interval of it holds")
    if chosen == "model_assisted":
        first = (*first, LABEL.format(strength=STRENGTH))
        verdict = worse(verdict, "weak")
    notes = [*first, *diagnostics.reasons, *terms.warnings, *warnings]
    if terms.control is None:
        notes.append("the direct method has no weights: its interval cannot show the model's bias")
    if terms.shrunk and chosen != "empirical_likelihood":
        verdict = worse(verdict, "weak")
        notes.append("weights were capped or shrunk: this interval leaves out the bias of that")
    if setting.user is not None and chosen in BY_USER:
        users = len(np.unique(setting.user))
        if users < FEW_USERS:
            verdict = worse(verdict, "weak")
            notes.append(f"{users} users: an interval clustered by fewer than {FEW_USERS} of them is too short")
    if setting.limits[0] >= 0 and upper - lower > WIDE * abs(value):
        verdict = worse(verdict, "weak")
        notes.append(f"the interval is {upper - lower:.3g} wide, more than {WIDE:g} times the value")
    possible = min(max(value, setting.limits[0]), setting.limits[1])
    if abs(possible - value) > 1e-9 * max(abs(value), 1.0):
        verdict = worse(verdict, "weak")
        notes.append(
            f"the value {value:.6g} lies beyond what is possible, {list(setting.limits)}: weights average"
            f" {diagnostics.mean_weight:.3f}; the nearest end stands for it"
        )
    elif not terms.normalised and terms.control is not None and abs(diagnostics.mean_weight - 1) > MEAN_SAID:
        notes.append(
            f"weights average {diagnostics.mean_weight:.3f}, and this estimator moves with that; snips and sndr divide"
            " by it"
        )
    value = possible
    slack = 1e-9 * max(abs(value), abs(lower), abs(upper))
    if not lower - slack <= value <= upper + slack:
        verdict = worse(verdict, "weak")
        why = " and the bias of capped or shrunk weights" if terms.shrunk else ""
        notes.append(
            f"the value {value:.6g} lies outside [{lower:.6g}, {upper:.6g}], what fits weights that average 1 (here"
            f" {diagnostics.mean_weight:.3f}) and rewards in {list(setting.limits)}: chance{why}; the interval was"
            " extended to hold it"
        )
    lower, upper = min(lower, value), max(upper, value)
    return Estimate(
        name=name,
        value=value,
        lower=lower,
        upper=upper,
        level=setting.level,
        interval=chosen,
        n=n,
        effective_sample_size=size,
        max_weight=diagnostics.max_weight,
        mean_weight=diagnostics.mean_weight,
        verdict=verdict,
        warnings=tuple(notes),
    )


def seen_range(seen: tuple[float, float]) -> tuple[tuple[float, float], tuple[str, ...]]:
    """The limits of a value where no range was given, from the least and the largest reward; and what to say of it."""
    limits = reward_limits(*seen)
    if limits == (0.0, 1.0):
        return limits, ()
    return limits, (f"reward_range is not given; rewards are taken to lie in {list(limits)}, as in this log",)


def with_range(
    terms: Terms, seen: tuple[float, float], reward_range: tuple[float, float]
) -> tuple[Terms, tuple[float, float]]:
    """The terms with limits made for rewards in `reward_range`, and that range; `seen`: the rewards of the log.

    Raises ValueError where the range does not hold them.
    """
    low, high = float(reward_range[0]), float(reward_range[1])
    if not low <= seen[0] or not high >= seen[1] or not high > low:
        raise ValueError(f"reward_range is ({low}, {high}); expected to hold the rewards seen, {seen}")
    # The residual's limits were made with the rewards' own (or [0, 1]); shift them to the ones given.
    old = reward_limits(*seen)
    residual = terms.residual_limits[0] + low - old[0], terms.residual_limits[1] + high - old[1]
    return (terms if terms.control is None else replace(terms, residual_limits=residual)), (low, high)


def estimate_model_only(
    reward: Floats, target_pmf: Floats, q_hat: Floats, interval: str | None = None, level: float = 0.95
) -> Estimate:
    """The direct method on a log without propensities, target_pmf and q_hat [n, k]. Never better than weak.

    reward: [n], for the range of values only.
    """
    target_pmf, q_hat = np.asarray(target_pmf, dtype=np.float64), np.asarray(q_hat, dtype=np.float64)
    if target_pmf.ndim != 2 or q_hat.shape != target_pmf.shape or len(reward) != len(q_hat):
        raise ValueError(
            f"reward {np.shape(reward)}, target_pmf {target_pmf.shape} and q_hat {q_hat.shape} do not fit;"
            " expected [n], [n, k] and [n, k]"
        )
    # The record checks what is given; its propensities are not read.
    checked = LoggedChoices(reward, np.zeros(len(reward), dtype=np.int64), np.ones(len(reward)), target_pmf, q_hat)
    base = np.einsum("ij,ij->i", checked.target_pmf, q_hat)
    zero = np.zeros(len(base))
    terms = Terms(base, zero, zero, residual_limits=(0.0, 0.0), base_limits=(float(base.min()), float(base.max())))
    low, high = float(checked.reward.min()), float(checked.reward.max())
    limits = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    none = Diagnostics(len(base), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, "weak", (MODEL_ONLY,))
    return finish("dm", terms, interval, Setting(level, limits), none, "weak")
