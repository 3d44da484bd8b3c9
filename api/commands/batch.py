"""`bart batch`: a new batch of vectors beside the old one, made active, returned from, listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.options import Config, Seed

if TYPE_CHECKING:
    from api.jobs.batches import Flip

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Run = Annotated[Path, typer.Argument(help="A run directory.")]
REFUSED = 3  # exit code: the batch was built, and a gate refused it


@app.command()
def build(run: Run, seed: Seed = None, config: Config = None) -> int:
    """Builds vectors, listener model, index, states and reward model anew; what serves goes on serving.

    Exit 0: built, or nothing new. Exit 3: built, and refused by a gate.
    """
    from api.console import console, track
    from api.jobs.batches import build as build_batch
    from api.run.settings import load_settings

    screen = console()
    with track(screen) as stages:
        done = build_batch(run, load_settings({"seed": seed}, config), stages)
    for fact in done.facts:
        typer.echo(f"  {fact}")
    if done.name is None:
        typer.echo(f"{run}: nothing new: the run's events give batch {done.batch_id}, which serves")
    elif done.refused:
        typer.echo(f"{run}: batch {done.batch_id} is built as {done.name} and refused: {done.refused}")
        return REFUSED
    else:
        typer.echo(f"{run}: batch {done.batch_id} is built as {done.name}; bart batch activate {run} makes it serve")
    return 0


@app.command()
def activate(
    run: Run,
    batch: Annotated[str | None, typer.Argument(help="A batch id or a bundle's name; by default the newest.")] = None,
    force: Annotated[bool, typer.Option(help="Also a batch that a gate refused.")] = False,
    config: Config = None,
) -> None:
    """Lets a batch's states catch up with what was heard since, and makes it the active one."""
    from api.jobs.batches import activate as make_active
    from api.run.settings import load_settings

    _say(run, make_active(run, load_settings(file=config), batch, force=force))


@app.command()
def rollback(run: Run, config: Config = None) -> None:
    """Returns to the batch that served before, with what was heard since."""
    from api.jobs.batches import rollback as go_back
    from api.run.settings import load_settings

    _say(run, go_back(run, load_settings(file=config)))


@app.command("list")
def list_(run: Run, config: Config = None) -> None:
    """Names the batches of a run; the one that serves is marked by *, the one to roll back to by <."""
    from api.jobs.batches import batches
    from api.run.settings import load_settings

    load_settings(file=config)  # the list needs nothing of it, but a mistake in it is told
    for one in batches(run):
        mark = "*" if one.active else "<" if one.back else " "
        typer.echo(f"{mark} {one.batch_id}  {one.listeners:,} listeners  {', '.join(one.bundles)}")


def _say(run: Path, flip: Flip) -> None:
    typer.echo(
        f"{run}: batch {flip.batch_id} is active ({flip.done.name}), {flip.replayed:,} sessions caught up; "
        f"before: {flip.done.previous or 'none'}"
    )
