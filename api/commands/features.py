"""`bart features`: what is known of a candidate besides its item, and whether the log says what was known then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_features(
    run: Annotated[Path | None, typer.Option(help="A run whose values are shown, for a listener and an item.")] = None,
    user: Annotated[str, typer.Option(help="The listener.")] = "",
    item: Annotated[str, typer.Option(help="The item.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: Config = None,
) -> None:
    """Lists the features of candidates: what each says, from what, and what moves it.

    With --run, --user and --item also their values now: online, by what serves, and offline, worked out anew from the
    run's events and the sessions that were reported.
    """
    import json
    from dataclasses import asdict

    from api.run.clock import utc_now
    from api.run.settings import load_settings
    from api.upkeep.feature_check import known_now
    from recommender.features.definitions import DEFINITIONS

    settings = load_settings(file=config)
    if (run is None) != (not user) or (run is None) != (not item):
        raise typer.BadParameter("--run, --user and --item go together; expected all three or none")
    known = {} if run is None else known_now(run, settings, user, item, utc_now())
    if as_json:
        rows = [asdict(one) for one in DEFINITIONS]
        for row in rows:
            if row["name"] in known:
                row |= {k: _number(v) for k, v in zip(("online", "offline"), known[row["name"]], strict=True)}
        typer.echo(json.dumps(rows))
        return
    width = max(len(one.name) for one in DEFINITIONS)
    for one in DEFINITIONS:
        value = "".join(f"{_words(v):>12}" for v in known.get(one.name, ()))
        typer.echo(f"{one.name:{width}}{value}  {one.says}; from {one.source}; moves {one.moves}")


def _number(value: float) -> float | None:
    return None if value != value else value


def _words(value: float) -> str:
    return "not known" if value != value else f"{value:.6g}"


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
