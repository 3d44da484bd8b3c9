"""What a person sees in the terminal: progress bars and tables. Reads results, computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from api.run.progress import Tick

if TYPE_CHECKING:
    from api.jobs.attempt import Retrained
    from api.jobs.build import BuildReport
    from bart.page.shown import ShownPage
    from recommender.events.table import EventCheck


class Bars:
    """Stages as rich progress bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None

    def stage(self, name: str) -> Tick:
        self.finish()
        task = self._progress.add_task(name, total=None, note="")
        self._task = task

        def tick(done: int, total: int, note: str = "") -> None:
            self._progress.update(task, completed=done, total=total, note=note)

        return tick

    def finish(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, completed=task.total or 1, total=task.total or 1)
            self._task = None


def console() -> Console:
    """The terminal; where the output goes elsewhere, lines are long enough to stay whole."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=160)


NARROW = 110  # columns; below, a table shows fewer estimators


def fitting(report: dict[str, Any], screen: Console) -> dict[str, Any]:
    """The report with as many estimators as the terminal is wide enough for."""
    if screen.width >= NARROW:
        return report
    kept = ("dr", "snips")
    policies = [
        {
            **policy,
            "estimates": {name: e for name, e in policy["estimates"].items() if name in kept} or policy["estimates"],
        }
        for policy in report["policies"]
    ]
    return {**report, "policies": policies}


class TimeLeft(ProgressColumn):
    """How long a stage will go on at the pace of late; nothing where that is not known, or it is over."""

    def render(self, task: Task) -> Text:
        left_s = None if task.finished else task.time_remaining
        return Text("" if left_s is None else f"{timedelta(seconds=int(left_s))} left", style="dim")


@contextmanager
def track(screen: Console) -> Iterator[Bars]:
    """Progress bars while the block runs."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeft(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=screen, speed_estimate_period=600) as progress:
        bars = Bars(progress)
        yield bars
        bars.finish()


def show_check(screen: Console, file: Path, check: EventCheck) -> None:
    """Rows kept and rejected by reason, and what cannot be built."""
    screen.print(str(file), style="bold", markup=False, soft_wrap=True)
    for line in check.lines():
        screen.print(line, markup=False, soft_wrap=True)


def show_build(screen: Console, report: BuildReport, page: ShownPage, took_s: float) -> None:
    """What a build made, the first page and how long it took, and what to type next."""
    for fact in report.facts:
        screen.print(f"  {fact}", markup=False, soft_wrap=True)
    for lack in report.cannot_build:
        screen.print(f"left out: {lack}", style="yellow", markup=False, soft_wrap=True)
    screen.print(f"\nfirst page after {took_s:.1f} s, for {page.decision.user_id}:", markup=False, soft_wrap=True)
    for shelf in page.shelves:
        screen.print(f"  {shelf.title}: {', '.join(c.title for c in shelf.cards[:3])}", markup=False, soft_wrap=True)
    screen.print(f"\nbundle {report.batch_id} in {report.run}. Next:", markup=False, soft_wrap=True)
    screen.print(f"  bart serve --run {report.run} --port 8000", style="bold", markup=False, soft_wrap=True)


def show_demo(screen: Console, run: Path, report: dict[str, Any]) -> None:
    """The report as a table, and what to type next."""
    from bart.ope.report.report import terminal_table

    screen.print()
    screen.print(terminal_table(fitting(report, screen)))
    log, replay = report["log"], report["replay"]
    screen.print(
        f"{log['pages']:,} pages, {log['seen']:,} cards seen, {log['streams']:,} streams; replay of the log: "
        f"{replay['checked']:,} records checked, {replay['mismatches']} mismatches"
    )
    _show_scope(screen, report)
    screen.print(f"\nreport in {run / 'report.html'}. Next:")
    screen.print(f"  bart serve --run {run} --port 8000", style="bold")


def show_policies(screen: Console, report: dict[str, Any]) -> None:
    """Warnings of the whole log, then estimates by policy, then what was left out."""
    from bart.ope.report.comparison import comparison_tables
    from bart.ope.report.report import terminal_table
    from bart.ope.report.text import main_estimate, reason_of

    for words in report.get("warnings") or ():
        screen.print(f"warning: {words}", style="bold yellow", markup=False, soft_wrap=True)
    screen.print(terminal_table(fitting(report, screen)))
    for policy in report["policies"]:
        why = reason_of(policy, report.get("warnings") or ())
        if why:
            verdict = main_estimate(policy)[1]["verdict"]
            screen.print(f"{policy['name']} is {verdict}: {why}", markup=False, soft_wrap=True)
    for table in comparison_tables(report):
        screen.print()
        screen.print(table)
    left = [f"{count:,} {reason}" for reason, count in (report.get("left_out") or {}).items() if count]
    if left:
        screen.print(f"left out: {', '.join(left)}", markup=False, soft_wrap=True)
    for found in report.get("scores") or ():
        if found["missing"]:
            share = f"{found['missing']:,} of {found['candidates']:,} candidates"
            screen.print(f"{found['name']}: {share} have no score and rank last", markup=False, soft_wrap=True)
    for name, why in (report.get("estimators_left_out") or {}).items():
        screen.print(f"{name} left out: {why}", style="dim", markup=False, soft_wrap=True)
    _show_scope(screen, report)


def _show_scope(screen: Console, report: dict[str, Any]) -> None:
    """What "conclusive" does not say, whether the log is adaptive, and what the values are values of."""
    from bart.ope.report.estimand import beyond_verdict

    beyond = beyond_verdict(report)
    if beyond:
        screen.print(beyond, markup=False, soft_wrap=True)
    for words in ((report.get("adaptive") or {}).get("line"), report.get("note")):
        if words:
            screen.print(words, style="dim", markup=False, soft_wrap=True)


def show_metrics(screen: Console, out: Path, metrics: dict[str, Any]) -> None:
    """What was measured of a trained model: numbers, the calibration curve, the expected stream rate."""
    holdout, rate = metrics.get("holdout") or {}, metrics.get("stream_rate")
    table = Table("measured on the latest pages", "value", box=None)
    counted = {f"{name}": value for name, value in (metrics.get("counts") or {}).items() if value}
    for name, value in {**metrics, **counted, **holdout}.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            table.add_row(name.replace("_", " "), f"{value:,.5g}" if isinstance(value, float) else f"{value:,}")
    if rate is not None:
        table.add_row(
            f"expected streams a page, NCIS ({rate['verdict']})",
            f"{rate['value']:.4f} ({rate['level']:.0%}: {rate['lower']:.4f} to {rate['upper']:.4f}; logged"
            f" {rate['logged']:.4f})",
        )
    screen.print(table)
    if metrics.get("without_stream_rate"):
        screen.print(f"no stream rate: {metrics['without_stream_rate']}", markup=False, soft_wrap=True)
    if holdout.get("calibration"):
        curve = Table("calibration: mean prediction", "mean reward", "cards", box=None)
        for part in holdout["calibration"]:
            curve.add_row(f"{part['prediction']:.4f}", f"{part['reward']:.4f}", f"{part['n']:,}")
        screen.print(curve)
    screen.print(f"bundle in {out}")


def show_retrained(screen: Console, run: Path, result: Retrained) -> None:
    """What came in, each gate, and the outcome in one line."""
    for fact in result.facts:
        screen.print(f"  {fact}", markup=False, soft_wrap=True)
    if result.gates:
        table = Table("gate", "value", "bound", "", "what", box=None)
        for gate in result.gates:
            numbers = ["" if number is None else f"{number:.4g}" for number in (gate.value, gate.bound)]
            table.add_row(gate.name, *numbers, "passed" if gate.passed else "not passed", gate.text)
        screen.print(table)
    if result.status == "activated":
        line = f"activated: {result.name}; before: {result.serving} (bart bundle rollback {run} returns to it)"
    elif result.status == "refused":
        line = f"refused: {result.reason}; {result.serving} stays active"
    else:
        line = f"nothing new to learn from: {result.reason}; {result.serving} stays active"
    screen.print(line, markup=False, soft_wrap=True)


def show_study(screen: Console, summary: dict[str, Any]) -> None:
    """Estimators of a study, the one that orders policies best first."""
    columns = ("estimator", "tau", "±", "P(best)", "regret", "bias", "RMSE", "covers", "half width", "verdicts")
    table = Table(*columns, box=None)
    for name, row in sorted(summary.items(), key=lambda item: -item[1]["mean_kendall_tau"]):
        error, logs = row["kendall_tau_error"], len(row["kendall_tau"])
        numbers = (sum(row["chance_of_best"]) / logs, sum(row["regret"]) / logs, row["bias"], row["relative_rmse"])
        table.add_row(
            name,
            f"{row['mean_kendall_tau']:.3f}",
            "" if error is None else f"{error:.3f}",
            *(f"{x:.3f}" for x in (*numbers, row["coverage"], row["half_width"])),
            ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items() if count),
        )
    screen.print(table)


def show_online(screen: Console, report: dict[str, Any]) -> None:
    """Arms of an experiment: what they earned, and what the others' pages say that they would."""
    for warning in report["shares"]["warnings"]:
        screen.print(f"[bold]{warning}[/]")
    table = Table(
        "arm", "pages", "listeners", "value a page", "against the first", "", "by the others' pages", box=None
    )
    for arm in report["arms"]:
        against = "" if arm["difference"] is None else _span(arm, "difference", "difference_lower", "difference_upper")
        off, told = arm["off_policy"], ""
        if off is not None and off["value"] is not None:
            told = f"{_span(off, 'value', 'lower', 'upper')} {off['verdict']}"
        value = _span(arm, "value", "lower", "upper")
        decision = arm["decision"] or ""
        table.add_row(arm["arm"], f"{arm['pages']:,}", f"{arm['listeners']:,}", value, against, decision, told)
    screen.print(table)
    screen.print("Differences hold at every look and for all arms together.", markup=False)
    for arm in report["arms"]:
        for note in arm["notes"]:
            screen.print(f"{arm['arm']}: {note}", markup=False)
        if arm["off_policy"] is not None and arm["off_policy"]["value"] is None:
            screen.print(f"{arm['arm']}: no estimate by the others' pages: {arm['off_policy']['reason']}", markup=False)
    for name, count in report["left_out"].items():
        screen.print(f"left out: {count:,} pages of {name}", markup=False)
    for words in (report["adaptive"]["line"], report["note"]):
        screen.print(words, style="dim", markup=False, soft_wrap=True)


def _span(row: dict[str, Any], value: str, lower: str, upper: str) -> str:
    if row[lower] is None:
        return f"{row[value]:.4f} (no interval)"
    return f"{row[value]:.4f} ({row[lower]:.4f} to {row[upper]:.4f})"


def show_open_bandit(screen: Console, report: dict[str, Any]) -> None:
    """Both directions of the Open Bandit sample: the estimate beside what the other log says."""
    for direction in report["directions"]:
        screen.print(f"\n[bold]{direction['title']}[/]")
        screen.print(direction["verdict_line"])
        table = Table("estimator", "click rate", "interval", "effective n", "largest weight", "verdict", box=None)
        for row in direction["estimates"]:
            table.add_row(
                row["name"],
                f"{row['value']:.5f}",
                f"{row['lower']:.5f} to {row['upper']:.5f}",
                f"{row['effective_sample_size']:,.0f}",
                f"{row['max_weight']:,.1f}",
                row["verdict"],
            )
        screen.print(table)
