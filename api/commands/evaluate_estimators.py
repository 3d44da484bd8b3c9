"""`bart evaluate-estimators`: estimators against the truth of a simulated world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config


def evaluate_estimators(
    out: Annotated[Path, typer.Option(help="Directory for selection.json, study.json and study.svg.")],
    world: Annotated[str, typer.Option(help="How a page is read: W1 to W6, see docs/worlds.md.")] = "W1",
    seed: Annotated[int | None, typer.Option(help="Of everything random; log k is drawn from (seed, k).")] = None,
    pages: Annotated[int, typer.Option(help="Pages served in each log.")] = 2_000,
    seeds: Annotated[int, typer.Option("--seeds", "--logs", help="How many logs, each of a new world.")] = 10,
    policies: Annotated[int, typer.Option(help="Close policies to choose among, 2 to 12.")] = 12,
    epsilon: Annotated[float, typer.Option(help="Exploration rate of the logging policy.")] = 0.2,
    estimators: Annotated[
        str | None,
        typer.Option(help="Names with commas between, as in exposure_dr,page_ncis:cap=5; by default twelve."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one a core. The figures do not depend on it.")] = 0,
    config: Config = None,
) -> None:
    """Compares page estimators with the truth: bias, error, coverage, and the choice among close policies."""
    from api.console import console, show_study, track
    from api.evaluate.estimators import run_study
    from api.run.settings import load_settings

    settings = load_settings({"seed": seed}, config)
    screen = console()
    with track(screen) as stages:
        summary = run_study(
            out,
            world=world,
            seed=settings.seed,
            pages=pages,
            logs=seeds,
            policies=policies,
            epsilon=epsilon,
            estimators=None if estimators is None else tuple(name.strip() for name in estimators.split(",")),
            jobs=jobs,
            stages=stages,
        )
    show_study(screen, summary)
    screen.print(f"\nfigures in {out / 'selection.json'}, every estimate in {out / 'study.json'}", markup=False)
