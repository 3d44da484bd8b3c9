"""`bart train`: a new bundle from a closed log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config, Seed, moment


def train(
    log: Annotated[Path, typer.Argument(help="An exported log (RUN/log).")],
    base: Annotated[Path, typer.Option(help="Bundle that served the log.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    until: Annotated[str | None, typer.Option(help="Only pages decided before (UTC).")] = None,
    weighting: Annotated[str | None, typer.Option(help="none, conditional or exposure.")] = None,
    cap: Annotated[float | None, typer.Option(help="Largest weight; without, by percentile alone.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of adaptive gradient steps.")] = None,
    passes: Annotated[int | None, typer.Option(help="Passes over the training pages.")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share of the pages, the latest, to measure on and not to learn from.")
    ] = None,
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Trains the reward model on a log and writes a bundle with it."""
    from api.console import console, show_metrics, track
    from api.jobs.train import train_bundle
    from api.run.settings import load_settings

    asked = {"weighting": weighting, "cap": cap, "learning_rate": learning_rate, "passes": passes, "holdout": holdout}
    settings = load_settings({"seed": seed, "reward": asked}, config)
    screen = console()
    with track(screen) as stages:
        metrics = train_bundle(log, base, out, settings, stages, moment(until, "--until"))
    show_metrics(screen, out, metrics)
