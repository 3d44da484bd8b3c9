"""Single choices and slates for `bart evaluate`: a file in, the report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.ope.inputs.scores import Scores
    from bart.ope.inputs.table import Columns, Target
    from bart.ope.records.choice_input import ChoiceInput

NOTE = (
    "What actions outside the logging policy's support would have earned is not in the log: taking actions away can be"
    " estimated, adding one cannot. Values are those of the next choice in the state in which the logging policy left"
    " its users; what another policy would carry over is not in them."
)
# What columns are called, first here, then in the Open Bandit Dataset and by its library.
NAMES = {
    "reward": ("reward", "click"),
    "action": ("action", "item_id"),
    "propensity": ("propensity", "propensity_score", "pscore"),
}


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Which column holds what, and which policies are evaluated: the options of the command.

    target_probability, target_pmf, target_action: [NAME=]COLUMN (of a pmf: COLUMN,COLUMN,...). policies, scores: of a
    DSJSON log, NAME[:epsilon] and [NAME=]FILE[:epsilon].
    """

    reward: str | None = None  # these three: by default the first of `NAMES` that the table has
    action: str | None = None  # only where actions are needed
    propensity: str | None = None
    user: str | None = None
    timestamp: str | None = None
    event_id: str | None = None  # a column called event_id, where there is one; "none": rows are decisions
    weight: str | None = None
    context: Sequence[str] = ()
    q_hat: Sequence[str] = ()
    target_probability: Sequence[str] = ()
    target_pmf: Sequence[str] = ()
    target_action: Sequence[str] = ()
    propensities: str = "logged"
    reward_range: tuple[float, float] | None = None
    policies: Sequence[str] = ()
    scores: Sequence[str] = ()
    most_missing: float = 0.1
    given: Sequence[str] = field(default=())  # names of the options that were set, for refusing those that mean nothing


def evaluate_file(
    path: Path,
    kind: str,
    options: ChoiceOptions,
    settings: Settings,
    out: Path | None,
    stages: Stages,
    *,
    since: datetime | None = None,
    estimators: Sequence[str] = (),
    everything: bool = False,
    interval: str | None = None,
    level: float | None = None,
) -> dict[str, Any]:
    """Estimates of each policy on a log of choices or slates, and the report where `out` is given.

    kind: "table", "dsjson" or "npz". Raises DataError or ValueError with what was expected.
    """
    from api.background.memory import release_memory
    from bart.ope.policies.choices import evaluate_choices, parse_estimator
    from bart.ope.report.report import write_report

    asked = [parse_estimator(text) for text in estimators]
    level = settings.evaluation.level if level is None else level
    rng = np.random.default_rng(settings.seed)
    tick = stages.stage("Reading the log")
    read = {"table": _table, "dsjson": _dsjson, "npz": _npz}[kind]
    log = read(path, options, since, rng, tick)
    log = without_chance(log)
    release_memory()
    tick(1, 1, f"{len(log.reward):,} rows")
    tick = stages.stage("Estimating")
    rows, lacking = evaluate_choices(
        log,
        asked,
        everything=everything,
        interval=interval,
        level=level,
        rng=rng,
        reward_range=options.reward_range,
        on_progress=tick,
    )
    one = "slate" if log.kind == "slates" else "choice"
    facts: dict[str, Any] = {log.kind: len(log.reward), "mean reward": log.mean_reward}
    if log.user is not None:
        facts["users"] = int(log.user.max()) + 1
    _add_sensitivity(rows, log)
    report = {
        "kind": log.kind,
        "unit": f"expected reward a {one}",
        "seed": settings.seed,
        "level": level,
        "warnings": list(log.warnings),
        "policies": rows,
        "log": facts,
        "left_out": dict(log.left_out),
        "estimators_left_out": lacking,
        "meanings": meanings(log.kind, rows),
        "replay": None,
        "configuration": settings.as_dict(leave_out={"serve"}),
        "note": " ".join([*log.notes, NOTE]),
        **_compared(log, level, options.reward_range, rng),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


def without_chance(log: ChoiceInput) -> ChoiceInput:
    """The log with a warning where every choice had propensity 1: nothing in it tells actions apart."""
    from bart.ope.records.choices import LoggedChoices

    first = next(iter(log.policies.values()))
    if log.model_only or not isinstance(first, LoggedChoices) or not (first.propensity == 1).all():
        return log
    words = (
        "every choice has propensity 1: nothing was left to chance, so no estimate of another policy is conclusive;"
        " --propensities none with --context or --q-hat gives what a model says"
    )
    return replace(log, warnings=(*log.warnings, words))


def _add_sensitivity(rows: list[dict[str, Any]], log: ChoiceInput) -> None:
    """How wrong recorded propensities must be before each difference to the log's mean may be none; and Pareto's k."""
    from bart.ope.records.choices import LoggedChoices
    from bart.ope.verdict.tails import pareto_k, turning_factor
    from bart.ope.weights.choices import choice_weight

    for row in rows:
        record = log.policies[row["name"]]
        if log.model_only or not isinstance(record, LoggedChoices):
            continue
        weight, counts = choice_weight(record), record.row_weight()
        row["pareto_k"] = pareto_k(weight)
        if row["name"] != "logging":
            row["sensitivity"] = {"factor": turning_factor(weight, record.reward, log.mean_reward, counts)}


def _compared(
    log: ChoiceInput, level: float, reward_range: tuple[float, float] | None, rng: np.random.Generator
) -> dict[str, Any]:
    """The policies against each other; nothing for slates and for logs that only a model can judge."""
    from bart.ope.comparison.choices import compare_choices
    from bart.ope.records.choices import LoggedChoices

    records = {
        name: replace(record, warnings=log.warnings)
        for name, record in log.policies.items()
        if isinstance(record, LoggedChoices)
    }
    if log.model_only or len(records) < 2:
        return {}
    return compare_choices(records, rng, user=log.user, level=level, reward_range=reward_range)


def meanings(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """First sentence of each estimator's own description."""
    from bart.ope.estimators.choices import ESTIMATORS
    from bart.ope.estimators.slates import SLATE_ESTIMATORS

    table: Mapping[str, Any] = SLATE_ESTIMATORS if kind == "slates" else ESTIMATORS
    names = dict.fromkeys(name for row in rows for name in row["estimates"])
    return {name: (table[name].__doc__ or "").split("\n")[0].split(". ")[0].rstrip(".") for name in names}


def _npz(path: Path, options: ChoiceOptions, since: Any, rng: np.random.Generator, tick: Any) -> ChoiceInput:  # noqa: ARG001
    from bart.ope.inputs.arrays import read_arrays

    if options.policies or options.scores:
        raise DataError("--policy and --scores do not go with npz; expected none, the file's own arrays say the policy")
    _only(options, "npz", ("reward_range",))
    if since is not None:
        raise DataError("--since needs the times of choices; expected a table with --timestamp, or no --since")
    return read_arrays(path)


def _table(
    path: Path, options: ChoiceOptions, since: datetime | None, rng: np.random.Generator, tick: Any
) -> ChoiceInput:
    from bart.ope.inputs.choices import choice_input
    from bart.ope.inputs.events import event_column
    from bart.ope.inputs.files import column_names
    from bart.ope.inputs.table import read_table

    there = column_names(path)
    columns = choice_columns(options, there)
    if options.event_id is None:
        columns = replace(columns, event=event_column(there))
    return choice_input(read_table(path, columns, since=since, on_progress=tick), options.propensities, rng)


def choice_columns(options: ChoiceOptions, there: Sequence[str]) -> Columns:
    """Which column of a table holds what; there: the columns that it has. Raises DataError for options that do not go
    with a table."""
    from bart.ope.inputs.choices import PROPENSITIES
    from bart.ope.inputs.table import Columns

    if options.policies or options.scores:
        raise DataError(
            "--policy and --scores go with page logs and DSJSON; expected --target-probability, --target-pmf or "
            "--target-action for a table"
        )
    if options.propensities not in PROPENSITIES:
        raise DataError(f"--propensities is {options.propensities!r}; expected one of {', '.join(PROPENSITIES)}")

    def named(what: str, given: str | None) -> str:
        return given or next((name for name in NAMES[what] if name in there), what)

    needs_action = bool(options.context or options.q_hat or options.target_pmf or options.target_action)
    return Columns(
        reward=named("reward", options.reward),
        propensity=named("propensity", options.propensity) if options.propensities == "logged" else None,
        targets=_targets(options),
        action=named("action", options.action) if needs_action or options.action else None,
        user=options.user,
        timestamp=options.timestamp,
        context=tuple(options.context),
        q_hat=tuple(options.q_hat),
        event=None if options.event_id == "none" else options.event_id,
        weight=options.weight,
    )


def _targets(options: ChoiceOptions) -> dict[str, Target]:
    from bart.ope.inputs.table import Target

    out: dict[str, Target] = {}
    for kind, texts in (
        ("probability", options.target_probability),
        ("pmf", options.target_pmf),
        ("action", options.target_action),
    ):
        for text in texts:
            name, equals, columns = text.partition("=")
            if not equals:
                name, columns = ("target" if kind == "pmf" else text), text
            names = tuple(c.strip() for c in columns.split(",") if c.strip())
            actions: tuple[str, ...] = ()
            if kind == "pmf" and names and all(c.count(":") == 1 for c in names):
                actions, names = zip(*(c.split(":") for c in names), strict=True)
            if not names or (kind != "pmf" and len(names) != 1) or (kind == "pmf" and len(names) < 2):
                raise DataError(f"--target-{kind} is {text!r}; expected [NAME=]COLUMN{',COLUMN,...' * (kind == 'pmf')}")
            if name in out or name == "logging":
                raise DataError(f"--target-{kind} names {name!r} again; expected a name of its own for each policy")
            out[name] = Target(kind, names, actions)  # type: ignore[arg-type]
    if not out:
        raise DataError(
            "no evaluation policy is named; expected --target-probability, --target-pmf or --target-action with the "
            "columns that say what it would do"
        )
    return out


def _dsjson(path: Path, options: ChoiceOptions, since: datetime | None, rng: Any, tick: Any) -> ChoiceInput:  # noqa: ARG001
    from api.evaluate.policies import LOGGED, open_scores, parse_policy, titled
    from bart.ope.inputs.dsjson import POLICIES, read_dsjson_choices

    _only(options, "DSJSON", ("user", "reward_range", "policies", "scores", "most_missing"))
    wanted: dict[str, tuple[str | Scores, float]] = {}
    for text in options.policies:
        name, epsilon = parse_policy(text)
        if name == "logging":
            continue
        if name not in POLICIES:
            raise DataError(f"--policy is {text!r}; expected {', '.join(POLICIES)} or logging for DSJSON, or --scores")
        wanted[titled(name, epsilon)] = (name, epsilon)
    for text in options.scores:
        name, epsilon, scores = open_scores(text)
        wanted[titled(name, epsilon)] = (scores, epsilon)
    if any(epsilon == LOGGED for _, epsilon in wanted.values()):
        raise DataError("epsilon is 'logged'; expected a number for DSJSON, which has no exploration rates")
    return read_dsjson_choices(
        path,
        wanted or {name: (name, 0.0) for name in POLICIES},
        user=options.user,
        reward_range=options.reward_range,
        since=since,
        most_missing=options.most_missing,
        on_progress=tick,
    )


def _only(options: ChoiceOptions, what: str, allowed: Sequence[str]) -> None:
    for name in options.given:
        if name not in allowed:
            raise DataError(f"--{name.replace('_', '-')} does not go with {what}; expected it for a table")
