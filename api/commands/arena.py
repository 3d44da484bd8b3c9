"""`bart arena`: page estimators against known truths, on logs that are the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def arena() -> None:
    """A frozen, seeded benchmark of page-level evaluation."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Directory for answers.jsonl, table.md and table.json.")],
    estimator: Annotated[
        list[str] | None,
        typer.Option(help="Who enters: FILE.py:FUNCTION, MODULE:FUNCTION or a name of ours; may be repeated."),
    ] = None,
    ours: Annotated[bool, typer.Option(help="Enter the estimators of this project as well.")] = True,
    seeds: Annotated[int, typer.Option(help="How many seeds; each has a log for every world and logging policy.")] = 3,
    worlds: Annotated[str | None, typer.Option(help="Names with commas between; by default all eight.")] = None,
    first: Annotated[int, typer.Option(help="The first seed.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes one a core. The answers do not depend on it.")] = 0,
) -> None:
    """Asks every estimator on every log, and prints the table. What is done stays in OUT and is not done again."""
    from api.console import console, track
    from api.evaluate.arena import run_arena

    with track(console()) as stages:
        some = None if worlds is None else [name.strip() for name in worlds.split(",")]
        table = run_arena(out, estimator or [], ours, range(first, first + seeds), some, jobs, stages)
    typer.echo(table)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Directory for candidates.parquet and slots.parquet.")],
    world: Annotated[str, typer.Option(help="How pages are read.")] = "W1",
    logging: Annotated[str, typer.Option(help="Who served: even, skewed, partly or adaptive.")] = "even",
    seed: Annotated[int, typer.Option(help="Of the log.")] = 1,
) -> None:
    """Writes one log as Parquet, for estimators in other languages, and prints the checksums."""
    from simulator.arena import arena_log
    from simulator.arena.logs import export_log

    log = arena_log(world, logging, seed)
    for name, checksum in export_log(log, out).items():
        typer.echo(f"{out / name}: {checksum}")
