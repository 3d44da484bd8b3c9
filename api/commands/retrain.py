"""`bart retrain`: take in what is new, train, judge, and activate or refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.options import Config, Kind, Mapping, Seed, Tz, User, parse_mapping

REFUSED = 3  # exit code: a candidate was made, or could not be, and the serving bundle stays


def retrain(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    events: Annotated[Path | None, typer.Option(help="New listening events, merged into RUN/events.parquet.")] = None,
    kind: Kind = None,
    mapping: Mapping = None,
    user: User = None,
    tz: Tz = None,
    vectors: Annotated[str, typer.Option(help="keep those of the serving bundle, or rebuild.")] = "keep",
    seed: Seed = None,
    config: Config = None,
) -> int:
    """Takes in events and closed pages, trains a candidate and activates it if it passes its gates.

    Exit 0: activated, or nothing new to learn from. Exit 3: refused, and the serving bundle stays.
    """
    from api.console import console, show_retrained, track
    from api.jobs.retrain import retrain_run
    from api.run.listening import Listening
    from api.run.settings import load_settings
    from bart.errors import DataError

    if vectors not in ("keep", "rebuild"):
        raise DataError(f"--vectors is {vectors!r}; expected keep or rebuild")
    if events is None and (mapping or kind or user or tz):
        raise DataError("--map, --kind, --user and --tz say how --events is read; expected --events too")
    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    new = Listening(events, kind, parse_mapping(mapping), user) if events is not None else None
    screen = console()
    with track(screen) as stages:
        result = retrain_run(run, settings, stages, events=new, vectors="rebuild" if vectors == "rebuild" else "keep")
    show_retrained(screen, run, result)
    return REFUSED if result.status == "refused" else 0
