"""`bart features`: what is known of a candidate besides its item, and whether the log says what was known then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_features(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, config: Config = None
) -> None:
    """Lists the features of candidates: what each says, from what, and what moves it."""
    import json
    from dataclasses import asdict

    from api.run.settings import load_settings
    from recommender.features.definitions import DEFINITIONS

    load_settings(file=config)  # nothing of it is needed, but a mistake in it is told
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in DEFINITIONS]))
        return
    width = max(len(one.name) for one in DEFINITIONS)
    for one in DEFINITIONS:
        typer.echo(f"{one.name:{width}}  {one.says}; from {one.source}; moves {one.moves}")


@app.command("check")
def check(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    pages: Annotated[int, typer.Option(min=1, help="Pages to compare at most, drawn at random.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    config: Config = None,
) -> None:
    """Works out anew what was known of candidates when pages were decided, and compares it with their records.

    Exit 1 where a value differs; the first one is named.
    """
    import numpy as np

    from api.run.settings import load_settings
    from api.upkeep.feature_check import check_features

    found = check_features(run, load_settings(file=config), pages, np.random.default_rng(seed))
    left_out = "".join(f"; {count:,} left out: {why}" for why, count in found.left_out.items())
    typer.echo(f"{found.pages:,} pages, {found.values:,} values, {found.differences:,} differences{left_out}")
    if found.first:
        typer.echo(found.first)
        raise typer.Exit(1)
