"""`bart evaluate --engine`: logs of single choices in any number of Parquet files, summed up in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.evaluate.choices import NOTE, ChoiceOptions, choice_columns, meanings
from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.ope.engine.run import Engine
    from bart.ope.policies.choices import Asked

REPLICATES = 1_000


def evaluate_on_engine(
    path: Path,
    options: ChoiceOptions,
    settings: Settings,
    out: Path | None,
    stages: Stages,
    engine: Engine,
    *,
    since: datetime | None = None,
    estimators: Sequence[str] = (),
    everything: bool = False,
    interval: str | None = None,
    level: float | None = None,
) -> dict[str, Any]:
    """Estimates of each policy on a log of single choices, in memory that does not grow with the log.

    path: a Parquet file or a directory of them. All engines give the same numbers. Raises DataError
    """
    from bart.ope.engine.choices import ChoiceKernel
    from bart.ope.engine.estimates import ENGINE_INTERVALS, choice_estimates
    from bart.ope.engine.run import run_kernel
    from bart.ope.inputs.files import column_names
    from bart.ope.policies.choices import parse_estimator
    from bart.ope.policies.pages import as_row
    from bart.ope.report.report import write_report

    if options.context or options.propensities != "logged":
        raise DataError("--context and --propensities fit a model, which no engine does; expected no --engine for them")
    _refuse_repeats(path, options)
    if interval is not None and interval not in ENGINE_INTERVALS:
        raise DataError(f"--interval is {interval!r}; expected with --engine one of {', '.join(ENGINE_INTERVALS)}")
    columns = choice_columns(options, column_names(path))
    chosen, lacking = _chosen([parse_estimator(text) for text in estimators], everything, bool(options.q_hat))
    level = settings.evaluation.level if level is None else level
    draws = REPLICATES if options.user is not None or interval == "percentile" else 0
    kernel = ChoiceKernel(
        columns,
        chosen,
        since,
        draws,
        settings.seed,
        zero=0.0 if options.reward_range is None else options.reward_range[0],
    )
    tick = stages.stage("Summing up the log")
    found = run_kernel(kernel, path, engine, tick)
    policies = [*columns.targets, "logging"]
    estimates = choice_estimates(
        found,
        policies,
        by_user=options.user is not None,
        interval=interval,
        level=level,
        reward_range=options.reward_range,
    )
    from bart.ope.engine.estimates import ChoiceSums

    rows = [
        {
            "name": policy,
            "truth": None,
            "truth_error": None,
            "estimates": as_row(estimates[policy]),
            "parameters": {n: dict(chosen[n]) for n in estimates[policy] if chosen[n]},
            "weights": ChoiceSums(found, policy).weights(),
        }
        for policy in policies
    ]
    count, outside = int(found.total("rows")), int(found.total("outside"))
    report = {
        "kind": "choices",
        "unit": "expected reward a choice",
        "seed": settings.seed,
        "level": level,
        "warnings": [],
        "policies": rows,
        "log": {"choices": count, "mean reward": found.total("reward") / count},
        "left_out": {"before the time asked for": outside} if outside else {},
        "estimators_left_out": lacking,
        "meanings": meanings("choices", rows),
        "replay": None,
        "engine": {"name": engine.name, "replicates": draws},
        "configuration": settings.as_dict(leave_out={"serve"}),
        "note": NOTE,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


def _refuse_repeats(path: Path, options: ChoiceOptions) -> None:
    """An engine sums up every row where it lies, so it cannot leave out what stands elsewhere, too."""
    from bart.ope.inputs.events import count_repeats, event_column
    from bart.ope.inputs.files import column_names

    if options.weight is not None:
        raise DataError("--weight does not go with --engine; expected a log whose rows count alike")
    column = options.event_id or event_column(column_names(path))
    if column is None or column == "none":
        return
    repeats = count_repeats(path, column)
    if repeats:
        raise DataError(
            f"{path}: {repeats:,} rows repeat the {column!r} of another; expected one row an event with --engine"
            " (without it repeats are left out; --event-id none: rows are decisions)"
        )


def _chosen(
    asked: Sequence[Asked], everything: bool, model: bool
) -> tuple[dict[str, Mapping[str, float]], dict[str, str]]:
    """Parameters by estimator, and which were left out, with the reason."""
    from bart.ope.engine.choices import ROW_BY_ROW, WITH_MODEL
    from bart.ope.estimators.choices import ESTIMATORS, RECOMMENDED
    from bart.ope.estimators.tuning import TUNABLE

    given = {each.name: each.parameters for each in asked}
    wanted = list(given) or list(ESTIMATORS if everything else RECOMMENDED)
    chosen: dict[str, Mapping[str, float]] = {}
    lacking: dict[str, str] = {}
    for name in wanted:
        parameters = given.get(name, {})
        if name not in ESTIMATORS:
            raise DataError(f"--estimator {name!r} is not known; expected one of {', '.join(ROW_BY_ROW)}")
        known = {TUNABLE[name][0]} if name in TUNABLE else set()
        if name not in ROW_BY_ROW:
            why = "it needs more of a row than an engine keeps"
        elif set(parameters) - known:
            why = f"its parameters are: {', '.join(known) or 'none'}"
        elif known - set(parameters):
            key = TUNABLE[name][0]
            why = f"an engine does not choose {key} from the log; expected {name}:{key}=NUMBER"
        elif name in WITH_MODEL and not model:
            why = "it needs predicted rewards (--q-hat)"
        else:
            chosen[name] = parameters
            continue
        if asked:
            raise DataError(f"{name} cannot be estimated with --engine: {why}")
        lacking[name] = why
    return chosen, lacking
