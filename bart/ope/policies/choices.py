"""Several evaluation policies on one log of choices or slates: every estimator asked for, as rows of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bart.ope.estimate import estimate
from bart.ope.estimators.choices import ESTIMATORS, RECOMMENDED
from bart.ope.estimators.slates import SLATE_ESTIMATORS
from bart.ope.estimators.tuning import TUNABLE, tune
from bart.ope.intervals.choices import BY_USER
from bart.ope.policies.pages import as_row
from bart.ope.records.choice_input import ChoiceInput
from bart.ope.records.choices import LoggedChoices, LoggedSlates
from bart.ope.records.estimate import Estimate
from bart.ope.verdict.choices import worse
from bart.ope.verdict.pages import weight_histogram
from bart.ope.weights.choices import importance_weight
from bart.types import Floats

T = TypeVar("T")

RECOMMENDED_SLATES = ("sn_independent_ips", "sn_cascade_ips", "slate_snips", "independent_ips")
CHOSEN = "{parameter} {value:.4g} was chosen from the log (SLOPE)"
TAKES_NONE = "{policy} is left out: it takes none of the logged actions, so this log tells nothing of its value"
MODEL_LACKING = "it needs predicted rewards (q_hat, or context to fit them from)"
_MODEL = ("dm", "dr", "sndr", "switch_dr", "dros", "sg_dr", "offcem")
NEEDS = {
    "mrdr": ("context",),
    "mips": ("embedding", "logging_pmf"),
    "offcem": ("cluster", "logging_pmf"),
    "cascade_dr": ("q_hat", "q_target"),
    "adaptive_ips": ("behaviour",),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An estimator that somebody named, with the parameters that were given with it."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)


def parse_estimator(text: str) -> Asked:
    """NAME or NAME:parameter=number,... as `Asked`. Raises ValueError for another form."""
    name, colon, rest = text.partition(":")
    given: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        try:
            given[key.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not key.strip():
            raise ValueError(f"estimator is {text!r}; expected NAME or NAME:parameter=number")
    return Asked(name, given)


def evaluate_choices(
    log: ChoiceInput,
    asked: Sequence[Asked] = (),
    *,
    everything: bool = False,
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator,
    reward_range: tuple[float, float] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows for a report, one a policy; and which estimators were left out, with the reason.

    asked: estimators by name; everything: all of the table; otherwise the recommended ones. Those that were not named
    are left out where the log lacks what they need. A cap or shrinkage not given is chosen from the log (SLOPE).
    Raises ValueError for a named estimator that does not exist or lacks what it needs, or an unknown interval.
    """
    table: Mapping[str, Any] = SLATE_ESTIMATORS if log.kind == "slates" else ESTIMATORS
    handful = RECOMMENDED_SLATES if log.kind == "slates" else RECOMMENDED
    wanted = list(asked) or [Asked(name) for name in (table if everything else handful)]
    for each in wanted:
        if each.name not in table:
            raise ValueError(f"estimator is {each.name!r}; expected one of {', '.join(table)}")
    if interval in BY_USER or log.user is None or interval is None:
        user = log.user
    else:
        raise ValueError(f"interval is {interval!r}, which takes rows as independent; expected {', '.join(BY_USER)}")
    rows: list[dict[str, Any]] = []
    left_out: dict[str, dict[str, list[str]]] = {}
    for number, (policy, stream) in enumerate(zip(log.policies, rng.spawn(len(log.policies)), strict=True)):
        if on_progress is not None:
            on_progress(number, len(log.policies), policy)
        estimates: dict[str, Estimate] = {}
        used: dict[str, dict[str, float]] = {}
        for each in wanted:
            lacking = _lacking(each.name, policy, log)
            if lacking is not None:
                if asked and policy != "logging":
                    raise ValueError(f"{each.name} cannot be estimated for {policy!r}: {lacking}")
                if policy != "logging":
                    left_out.setdefault(each.name, {}).setdefault(lacking, []).append(policy)
                continue
            data = log.full.get(policy, log.policies[policy]) if each.name in NEEDS else log.policies[policy]
            found, parameters = _estimate(each, data, log, interval, level, stream, user, reward_range, bool(asked))
            estimates[each.name] = with_notes(found, log.warnings)
            if parameters:
                used[each.name] = parameters
        if not estimates:
            if policy == "logging":
                continue
            raise ValueError(f"no estimator is left for {policy!r}; expected another one than {', '.join(left_out)}")
        rows.append(
            {
                "name": policy,
                "truth": None,
                "truth_error": None,
                "estimates": as_row(estimates),
                "parameters": used,
                "weights": weight_histogram(weights_of(log.policies[policy])),
            }
        )
    return rows, reasons_of(left_out, len(log.policies) - ("logging" in log.policies))


def that_act(policies: Mapping[str, T], acts: Callable[[str], bool]) -> tuple[dict[str, T], list[str]]:
    """The policies that take some of the logged actions, and a sentence on each of the others.

    Raises ValueError where none but the logging policy is left.
    """
    kept = {name: one for name, one in policies.items() if name == "logging" or acts(name)}
    told = [TAKES_NONE.format(policy=name) for name in policies if name not in kept]
    if told and not set(kept) - {"logging"}:
        raise ValueError("; ".join(told))
    return kept, told


def reasons_of(left_out: Mapping[str, Mapping[str, Sequence[str]]], others: int) -> dict[str, str]:
    """Sentences on estimators from the policies that lack them, by reason. others: policies beside the logging one."""
    return {
        name: "; ".join(
            why if len(policies) == others else f"for {', '.join(policies)}: {why}" for why, policies in reasons.items()
        )
        for name, reasons in left_out.items()
    }


def _lacking(name: str, policy: str, log: ChoiceInput) -> str | None:
    """What the log lacks for this estimator, None where nothing."""
    data = log.policies[policy]
    if log.model_only and name != "dm":
        return "the log has no propensities"
    if isinstance(data, LoggedChoices) and name in _MODEL and data.q_hat is None:
        return MODEL_LACKING
    missing = [key for key in NEEDS.get(name, ()) if key not in log.parameters]
    if missing:
        return f"it needs {' and '.join(missing)}"
    from bart.ope.records.reduced_choices import ReducedChoices

    if name in ("mrdr", "mips", "offcem") and isinstance(log.full.get(policy, data), ReducedChoices):
        return "it needs the whole pmf of every row"
    return None


def _estimate(
    asked: Asked,
    data: LoggedChoices | LoggedSlates,
    log: ChoiceInput,
    interval: str | None,
    level: float,
    rng: np.random.Generator,
    user: Any,
    reward_range: tuple[float, float] | None,
    named: bool,
) -> tuple[Estimate, dict[str, float]]:
    """The estimate, and the parameters that were chosen or given."""
    own: dict[str, float] = dict(asked.parameters)
    if interval is None and isinstance(data, LoggedSlates) and _constant(data):
        interval = "student"  # weights of 1 constrain nothing: the likelihood would allow any value
    note: tuple[str, ...] = ()
    if isinstance(data, LoggedChoices) and asked.name in TUNABLE and TUNABLE[asked.name][0] not in own:
        tuned = tune(asked.name, data, grid(asked.name, weights_of(data)), level=level)
        own[tuned.parameter] = tuned.chosen
        note = (CHOSEN.format(parameter=tuned.parameter, value=tuned.chosen),)
    more: dict[str, Any] = {key: log.parameters[key] for key in NEEDS.get(asked.name, ())}
    options = {**own, **more, "reward_range": reward_range, "user": user}

    def made(how: str | None) -> Estimate:
        return estimate(asked.name, data, how, level, rng, **options)

    try:
        found = made(interval)
    except ValueError as error:
        from bart.ope.intervals.choices import INTERVALS

        if named or interval not in INTERVALS:
            raise
        found = made(None)
        note = (*note, f"{found.interval} interval instead of {interval}: {error}")
    return with_notes(found, (), note), own


def with_notes(found: Estimate, first: Sequence[str], last: Sequence[str] = ()) -> Estimate:
    """The estimate with warnings before and after its own."""
    from dataclasses import replace

    # What holds for the whole log (propensities that were estimated, say) leaves no estimate conclusive.
    verdict = worse(found.verdict, "weak") if first else found.verdict
    return replace(found, verdict=verdict, warnings=(*first, *found.warnings, *last))


def grid(name: str, weight: Floats) -> list[float]:
    """Values to choose a cap or shrinkage from, up to no cap at all."""
    most = max(float(weight.max()), 1.0)
    if TUNABLE[name][0] == "lam" and name != "dros":
        return [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    top = most**2 * 10 if name == "dros" else most
    return [*np.geomspace(1.0, top, 10).tolist(), np.inf] if top > 1 else [np.inf]


def _constant(data: LoggedSlates) -> bool:
    return bool((data.target_slate == data.slate_propensity).all())


def weights_of(data: LoggedChoices | LoggedSlates) -> Floats:
    """How much more often each logged action, or card of a slate, is taken by the evaluation policy."""
    if isinstance(data, LoggedSlates):
        return importance_weight(data.target_marginal, data.marginal_propensity).reshape(-1)
    return importance_weight(data.target_propensity(), data.propensity)
