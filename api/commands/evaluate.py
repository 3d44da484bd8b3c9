"""`bart evaluate`: what another policy would have earned, from a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    log: Annotated[str, typer.Argument(help="An exported log (RUN/log), or open-bandit for the sample data set.")],
    policy: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="BUNDLE or BUNDLE:epsilon, or popularity:epsilon; may be repeated."),
    ] = None,
    since: Annotated[Optional[str], typer.Option(help="Only pages decided from then on (UTC).")] = None,  # noqa: UP045
    out: Annotated[
        Path | None, typer.Option(help="Directory for report.html and report.json (open_bandit.json).")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Of everything random.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,  # noqa: UP045
) -> None:
    """Estimates what other policies would have earned, with intervals and diagnostics."""
    from api.console import console, show_open_bandit, show_policies, track
    from api.evaluation import evaluate_log, evaluate_open_bandit, moment
    from api.settings import load_settings
    from bart.errors import DataError

    settings = load_settings({"seed": seed}, config)
    screen = console()
    if log == "open-bandit":
        if policy:
            raise DataError("--policy does not go with open-bandit; expected no policy, the data set has its own two")
        with track(screen) as stages:
            report = evaluate_open_bandit(settings, out, stages)
        show_open_bandit(screen, report)
        if out is not None:
            screen.print(f"\nreport in {out / 'open_bandit.json'}", markup=False)
        return
    with track(screen) as stages:
        report = evaluate_log(Path(log), policy or [], settings, out, stages, moment(since, "--since"))
    show_policies(screen, report)
    if out is not None:
        screen.print(f"\nreport in {out / 'report.html'}")
