"""What a person sees in the terminal: progress bars and tables. Reads results, computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from api.build import BuildReport
    from recommender.events import EventCheck


class Tick(Protocol):
    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Stages(Protocol):
    """Named stages of a long job, each with a progress of its own."""

    def stage(self, name: str) -> Tick:
        """Begins a stage and ends the one before; the returned function takes (done, total, note)."""
        ...

    def finish(self) -> None:
        """Ends the last stage."""
        ...


class Quiet:
    """Stages for nobody."""

    def stage(self, name: str) -> Tick:  # noqa: ARG002
        return _ignore

    def finish(self) -> None:
        return None


def _ignore(done: int, total: int, note: str = "") -> None:
    """Progress for nobody."""


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


@contextmanager
def track(screen: Console) -> Iterator[Bars]:
    """Progress bars while the block runs."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=screen) as progress:
        bars = Bars(progress)
        yield bars
        bars.finish()


def show_check(screen: Console, file: Path, check: EventCheck) -> None:
    """Rows kept and rejected by reason, and what cannot be built."""
    screen.print(str(file), style="bold", markup=False, soft_wrap=True)
    for line in check.lines():
        screen.print(line, markup=False, soft_wrap=True)


def show_build(screen: Console, report: BuildReport) -> None:
    """What a build made and what to type next."""
    for fact in report.facts:
        screen.print(f"  {fact}", markup=False, soft_wrap=True)
    for lack in report.cannot_build:
        screen.print(f"left out: {lack}", style="yellow", markup=False, soft_wrap=True)
    screen.print(f"\nbundle {report.batch_id} in {report.run}. Next:", markup=False, soft_wrap=True)
    screen.print(f"  bart serve --run {report.run} --port 8000", style="bold", markup=False, soft_wrap=True)


def show_demo(screen: Console, run: Path, report: dict[str, Any]) -> None:
    """The report as a table, and what to type next."""
    from bart.ope.report import terminal_table

    screen.print()
    screen.print(terminal_table(fitting(report, screen)))
    log, replay = report["log"], report["replay"]
    screen.print(
        f"{log['pages']:,} pages, {log['seen']:,} cards seen, {log['streams']:,} streams; replay of the log: "
        f"{replay['checked']:,} records checked, {replay['mismatches']} mismatches"
    )
    screen.print(f"\nreport in {run / 'report.html'}. Next:")
    screen.print(f"  bart serve --run {run} --port 8000", style="bold")


def show_policies(screen: Console, report: dict[str, Any]) -> None:
    """Estimates by policy."""
    from bart.ope.report import terminal_table

    screen.print(terminal_table(fitting(report, screen)))
    if report.get("note"):
        screen.print(report["note"], style="dim")


def show_metrics(screen: Console, out: Path, metrics: dict[str, Any]) -> None:
    """What was measured of a trained model."""
    table = Table("measured on the latest pages", "value", box=None)
    for name, value in metrics.items():
        if isinstance(value, int | float):
            table.add_row(name.replace("_", " "), f"{value:,.5g}")
    screen.print(table)
    screen.print(f"bundle in {out}")


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
