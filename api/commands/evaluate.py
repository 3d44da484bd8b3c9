"""`bart evaluate`: what another policy would have earned, from a log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.options import moment, number_range, parse_mapping

if TYPE_CHECKING:
    from rich.console import Console

    from api.run.settings import Settings

Texts = list[str] | None
Text = str | None
LACKING = 4  # exit code: the report does not show what --require asks for
TABLE = "Tables (CSV, Parquet)"
ENGINE = "Logs in many Parquet files"
PAGES = "Page logs"
OPEN_BANDIT = "The Open Bandit Dataset"


def evaluate(
    log: Annotated[
        str,
        typer.Argument(
            help="A run, whose log is brought up to date and whose report is written; an exported log (RUN/log); "
            "choices as CSV, Parquet, DSJSON or npz; slates as npz; or open-bandit."
        ),
    ] = "",
    policy: Annotated[
        Texts,
        typer.Option(
            help="BUNDLE, BUNDLE:epsilon or BUNDLE:logged, popularity:epsilon; may be repeated. DSJSON: uniform, first."
        ),
    ] = None,
    scores: Annotated[
        Texts, typer.Option(help="[NAME=]FILE[:epsilon] with request_id, item_id, score: any outside ranker.")
    ] = None,
    missing: Annotated[float, typer.Option(help="Largest share of candidates without a score (they rank last).")] = 0.1,
    format: Annotated[Text, typer.Option(help="pages, table, dsjson or npz; by default told by the name.")] = None,
    estimator: Annotated[
        Texts, typer.Option(help="NAME or NAME:parameter=number; may be repeated. By default the recommended ones.")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Every estimator that the log allows.")] = False,
    interval: Annotated[
        Text,
        typer.Option(
            help="Another interval than each estimator's default. jackknife: up to 2 million candidates, since it fits "
            "the pages anew."
        ),
    ] = None,
    level: Annotated[float | None, typer.Option(help="Confidence level of intervals.")] = None,
    since: Annotated[Text, typer.Option(help="Only what was decided from then on (UTC).")] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="Listening events, to compute the vectors that a bundle of another batch needs.", rich_help_panel=PAGES
        ),
    ] = None,
    mapping: Annotated[
        Texts, typer.Option("--map", help="ours=theirs, a column of --events.", rich_help_panel=PAGES)
    ] = None,
    kind: Annotated[
        Text, typer.Option(help="How --events is read; by default told by what is in it.", rich_help_panel=PAGES)
    ] = None,
    tz: Annotated[Text, typer.Option(help="Zone of times of --events that carry none.", rich_help_panel=PAGES)] = None,
    pins: Annotated[
        bool,
        typer.Option(
            "--pins/--without-pins",
            help="Whether the policies keep the pins of the log; without, pages that hold some are left out and told.",
            rich_help_panel=PAGES,
        ),
    ] = True,
    reward: Annotated[
        Text, typer.Option(help="Column of rewards; by default reward, or click.", rich_help_panel=TABLE)
    ] = None,
    action: Annotated[
        Text, typer.Option(help="Column of logged actions; by default action, or item_id.", rich_help_panel=TABLE)
    ] = None,
    propensity: Annotated[
        Text,
        typer.Option(
            help="Column of logged propensities; by default propensity, or propensity_score or pscore.",
            rich_help_panel=TABLE,
        ),
    ] = None,
    user: Annotated[
        Text,
        typer.Option(
            help="Column of users; rows of one user hang together. DSJSON: a path in the context. Page logs: the name "
            "of the listener of --events, where it is an export of one."
        ),
    ] = None,
    timestamp: Annotated[Text, typer.Option(help="Column of times, for --since.", rich_help_panel=TABLE)] = None,
    event_id: Annotated[
        Text,
        typer.Option(
            help="Column of the decision's id, of which one row counts; by default one called event_id. none: no such.",
            rich_help_panel=TABLE,
        ),
    ] = None,
    weight: Annotated[
        Text,
        typer.Option(help="Column: how many decisions a row of a subsampled log stands for.", rich_help_panel=TABLE),
    ] = None,
    context: Annotated[
        Text, typer.Option(help="COLUMN,... of numbers to predict rewards from.", rich_help_panel=TABLE)
    ] = None,
    q_hat: Annotated[
        Text, typer.Option("--q-hat", help="COLUMN,... predicted reward of each action.", rich_help_panel=TABLE)
    ] = None,
    target_probability: Annotated[
        Texts, typer.Option(help="[NAME=]COLUMN: a policy's probability of the logged action.", rich_help_panel=TABLE)
    ] = None,
    target_pmf: Annotated[
        Texts,
        typer.Option(help="[NAME=]COLUMN,... or [NAME=]ACTION:COLUMN,...: a policy's pmf.", rich_help_panel=TABLE),
    ] = None,
    target_action: Annotated[
        Texts, typer.Option(help="[NAME=]COLUMN: the action that a policy takes.", rich_help_panel=TABLE)
    ] = None,
    propensities: Annotated[
        str, typer.Option(help="logged; fit (from --context) or none where the log has none.", rich_help_panel=TABLE)
    ] = "logged",
    reward_range: Annotated[Text, typer.Option(help="LOW,HIGH: least and largest possible reward.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for report.html and report.json (open_bandit.json); of a run, by default the run."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the Open Bandit Dataset as it is downloaded.", rich_help_panel=OPEN_BANDIT),
    ] = None,
    campaign: Annotated[str, typer.Option(help="Of --data: all, men or women.", rich_help_panel=OPEN_BANDIT)] = "all",
    engine: Annotated[
        Text,
        typer.Option(
            help="Where the log is read and estimated: local (processes) or spark, with every option, to the numbers "
            "of this process. Parquet tables of more than 4 million rows are summed up in flat memory; what needs all "
            "rows at once (--context, --propensities, --weight, repeated events, rarer intervals) takes them in one "
            "piece.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    master: Annotated[
        Text, typer.Option(help="Where Spark runs: local[4], spark://host:7077, ...", rich_help_panel=ENGINE)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of --engine local, by default one a core.", rich_help_panel=ENGINE)
    ] = None,
    require: Annotated[
        Text, typer.Option(help="conclusive, or better (than the logging policy): exit code 4 where it is not so.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,
) -> None:
    """Estimates what other policies would have earned, with intervals and diagnostics."""
    from api.console import console, show_policies, track
    from api.evaluate.choice_input import ChoiceOptions
    from api.evaluate.choices import evaluate_file
    from api.evaluate.pages_log import evaluate_log
    from api.run.listening import Listening
    from api.run.settings import load_settings
    from bart.errors import DataError
    from bart.ope.engine.run import Engine
    from bart.ope.inputs.kinds import format_of

    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    screen = console()
    listening = None if events is None else Listening(events, kind, parse_mapping(mapping), user)
    if events is None and (kind is not None or tz is not None):
        raise DataError("--kind and --tz say how --events is read; expected --events too")
    _check(level, estimator, all, require)
    of_table: dict[str, Any] = {
        "action": action,
        "propensity": propensity,
        "user": user if events is None else None,
        "timestamp": timestamp,
        "event_id": event_id,
        "weight": weight,
        "context": _columns(context),
        "q_hat": _columns(q_hat),
        "target_probability": target_probability or [],
        "target_pmf": target_pmf or [],
        "target_action": target_action or [],
        "reward_range": None if reward_range is None else number_range(reward_range, "--reward-range"),
    }
    given = [name for name, value in of_table.items() if value]
    where = Engine(engine, workers, master)
    if data is not None or (log == "open-bandit" and not Path(log).exists()):
        mean_nothing = {"--policy": policy, "--scores": scores, "--require": require}
        _open_bandit(
            settings, out, screen, log, data, campaign, [name for name, is_set in mean_nothing.items() if is_set]
        )
        return
    path, out = _log_of(log, out, {"seed": seed, "listener": {"timezone": tz}}, config)
    form = format_of(path, format)
    told: dict[str, Any] = {
        "since": moment(since, "--since"),
        "estimators": estimator or [],
        "everything": all,
        "interval": interval,
        "level": level,
    }
    outside: dict[str, Any] = {"scores": scores or [], "most_missing": missing}
    with track(screen) as stages:
        if form == "pages":
            if given:
                raise DataError(f"--{given[0].replace('_', '-')} does not go with pages; expected it for a table")
            report = evaluate_log(
                path, policy or [], settings, out, stages, events=listening, engine=where, pins=pins, **told, **outside
            )
        else:
            if not pins:
                raise DataError("--without-pins goes with a log of pages; expected none for single choices")
            if events is not None:
                raise DataError("--events goes with a log of pages; expected no --events for single choices")
            options = ChoiceOptions(
                reward=reward, propensities=propensities, policies=policy or [], given=given, **of_table, **outside
            )
            report = evaluate_file(path, form, options, settings, out, stages, engine=where, **told)
    for line in report.get("listening", ()):
        screen.print(line, markup=False, soft_wrap=True)
    show_policies(screen, report)
    if out is not None:
        page = out / "report.html"
        lacking = "" if page.is_file() else "; report.html needs pip install 'bart-home[plots]'"
        screen.print(f"\nreport in {out / 'report.json' if lacking else page}{lacking}", markup=False)
    if require is not None:
        _require(report, require, screen)


def _require(report: dict[str, Any], requirement: str, screen: Console) -> None:
    from bart.ope.report.require import lacking

    why = lacking(report, requirement)
    if why:
        screen.print(f"not {requirement}: {why}", style="bold", markup=False, soft_wrap=True)
        raise typer.Exit(LACKING)


def _check(level: float | None, estimator: list[str] | None, everything: bool, require: str | None) -> None:
    from bart.errors import DataError
    from bart.ope.report.require import REQUIREMENTS

    if require is not None and require not in REQUIREMENTS:
        raise DataError(f"--require is {require!r}; expected {' or '.join(REQUIREMENTS)}")

    if level is not None and not 0 < level < 1:
        raise DataError(f"--level is {level}; expected a number in (0, 1)")
    if estimator and everything:
        raise DataError("--estimator and --all exclude each other; expected one of them")


def _log_of(log: str, out: Path | None, flags: dict[str, Any], config: Path | None) -> tuple[Path, Path | None]:
    """What is evaluated, and where the report goes: of a run its exported log, brought up to date, and the run."""
    from api.run.recorded import is_run, settings_of_run
    from bart.errors import DataError

    if not log:
        raise DataError("nothing to evaluate is named; expected a run, a log, or open-bandit")
    path = Path(log)
    if not is_run(path):
        return path, out
    from api.jobs.ingest import exported_log  # brings in the service, which the core goes without

    return exported_log(path, settings_of_run(path, config, flags)), out or path


def _open_bandit(
    settings: Settings,
    out: Path | None,
    screen: Console,
    log: str,
    data: Path | None,
    campaign: str,
    mean_nothing: list[str],
) -> None:
    from api.console import show_open_bandit, track
    from api.evaluate.pages_log import evaluate_open_bandit
    from bart.errors import DataError

    if log not in ("", "open-bandit"):
        raise DataError(f"--data is the Open Bandit Dataset's folder; expected no {log} beside it")
    if mean_nothing:
        raise DataError(
            f"{mean_nothing[0]} does not go with open-bandit; expected none, the data set has its own two policies"
        )
    with track(screen) as stages:
        report = evaluate_open_bandit(settings, out, stages, data, campaign)
    show_open_bandit(screen, report)
    if out is not None:
        screen.print(f"\nreport in {out / 'open_bandit.json'}", markup=False)


def _columns(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []
