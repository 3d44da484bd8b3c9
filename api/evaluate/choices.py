"""Single choices and slates for `bart evaluate`: a file in, the report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.evaluate.adaptive import adaptive_choices
from api.evaluate.choice_input import ChoiceOptions, choice_columns
from api.evaluate.choice_kernel import Question, WholeLog
from api.run.progress import Quiet

if TYPE_CHECKING:
    from api.run.progress import Stages
    from api.run.settings import Settings
    from bart.ope.comparison.summed_choices import Run
    from bart.ope.engine.run import Engine

AT_ONCE = 4_000_000  # rows of a log that is estimated as it is: some 100 bytes each at the peak


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
    engine: Engine | None = None,
    at_once: int = AT_ONCE,
) -> dict[str, Any]:
    """Estimates of each policy on a log of choices or slates, and the report where `out` is given.

    kind: "table", "dsjson" or "npz"; a table may be a directory of Parquet files. engine: where the log is read and
    estimated, this process where None; all give the same numbers. at_once: rows from which on a log is summed up batch
    by batch, unless what is asked for needs all rows at once. Raises DataError or ValueError with what was expected.
    """
    from bart.ope.engine.run import HERE, kept, run_kernel
    from bart.ope.engine.sums import Part
    from bart.ope.inputs.kinds import file_size
    from bart.ope.policies.choices import parse_estimator
    from bart.ope.report.estimand import CHOICES
    from bart.ope.report.report import write_report

    asked = tuple(parse_estimator(text) for text in estimators)
    level = settings.evaluation.level if level is None else level
    question = Question(options, asked, everything, interval, level, since, settings.seed)
    engine = engine or HERE
    with kept(engine):
        if kind == "table" and is_long(path, question, at_once):
            found = summed(path, question, lambda kernel, name: run_kernel(kernel, path, engine, stages.stage(name)))
        else:
            # A worker on another machine tells nobody how far it is.
            far = engine.name == "spark"
            tick = stages.stage("Reading and estimating the log") if far else None
            kernel = WholeLog(kind, question, Quiet() if far else stages)
            found = kernel.told(run_kernel(kernel, [Part((path,), file_size(path))], engine, tick))
    report = {
        "unit": f"expected reward a {'slate' if found['kind'] == 'slates' else 'choice'}",
        "seed": settings.seed,
        "level": level,
        "meanings": meanings(found["kind"], found["policies"]),
        "replay": None,
        "configuration": settings.as_dict(leave_out={"serve"}),
        "adaptive": adaptive_choices(path, kind, found.pop("models")),
        "note": " ".join([*found.pop("notes"), CHOICES]),
        **found.pop("compared"),
        **found,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


def is_long(path: Path, question: Question, at_once: int) -> bool:
    """Whether a table is summed up batch by batch: Parquet files of more rows than are taken at once, and nothing asked
    for that needs all of them: fitted models and propensities, weights of rows, repeated events, rarer intervals."""
    import pyarrow.parquet as pq

    from bart.ope.engine.estimates import BY_USER_INTERVALS, ENGINE_INTERVALS
    from bart.ope.engine.run import log_files
    from bart.ope.inputs.events import count_repeats, event_column
    from bart.ope.inputs.files import column_names, is_parquet

    options = question.options
    files = log_files(path)
    if not all(is_parquet(file) for file in files) or sum(pq.read_metadata(f).num_rows for f in files) <= at_once:
        return False
    intervals = (None, *(BY_USER_INTERVALS if options.user else ENGINE_INTERVALS))
    if options.context or options.weight or options.propensities != "logged" or question.interval not in intervals:
        return False
    column = options.event_id or event_column(column_names(path))
    return column in (None, "none") or not count_repeats(path, str(column))


def summed(path: Path, question: Question, run: Run) -> dict[str, Any]:
    """What `WholeLog` tells, of a long log from its sums."""
    from bart.ope.comparison.summed_choices import summed_choices
    from bart.ope.inputs.files import column_names

    options = question.options
    found = summed_choices(
        run,
        replace(choice_columns(options, column_names(path)), event=None),
        question.asked,
        everything=question.everything,
        interval=question.interval,
        level=question.level,
        reward_range=options.reward_range,
        since=question.since,
        seed=question.seed,
    )
    rows, outside = int(found.sums.total("rows")), int(found.sums.total("outside"))
    return {
        "kind": "choices",
        "warnings": list(found.warnings),
        "policies": found.rows,
        "log": {"choices": rows, "mean reward": found.sums.total("reward") / rows},
        "left_out": {"before the time asked for": outside} if outside else {},
        "estimators_left_out": found.lacking,
        "notes": [],
        "models": {},
        "compared": found.compared,
    }


def meanings(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """First sentence of each estimator's own description."""
    from bart.ope.estimators.choices import ESTIMATORS
    from bart.ope.estimators.slates import SLATE_ESTIMATORS

    table: Mapping[str, Any] = SLATE_ESTIMATORS if kind == "slates" else ESTIMATORS
    names = dict.fromkeys(name for row in rows for name in row["estimates"])
    return {name: (table[name].__doc__ or "").split("\n")[0].split(". ")[0].rstrip(".") for name in names}
