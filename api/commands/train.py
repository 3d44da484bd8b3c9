"""`bart train`: a new bundle from a closed log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def train(
    log: Annotated[Path, typer.Argument(help="An exported log (RUN/log).")],
    base: Annotated[Path, typer.Option(help="Bundle that served the log.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    until: Annotated[Optional[str], typer.Option(help="Only pages decided before (UTC).")] = None,  # noqa: UP045
    weighting: Annotated[Optional[str], typer.Option(help="none, conditional or exposure.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Of everything random.")] = None,  # noqa: UP045
    config: Annotated[Optional[Path], typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,  # noqa: UP045
) -> None:
    """Trains the reward model on a log and writes a bundle with it."""
    from api.console import console, show_metrics, track
    from api.evaluation import moment, train_bundle
    from api.settings import load_settings

    settings = load_settings({"seed": seed, "reward": {"weighting": weighting}}, config)
    screen = console()
    with track(screen) as stages:
        metrics = train_bundle(log, base, out, settings, stages, moment(until, "--until"))
    show_metrics(screen, out, metrics)
