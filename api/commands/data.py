"""`bart init`, `bart check`, `bart build`: from a user's own files to a bundle that can be served."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from api.options import Config, Kind, Mapping, Seed, Tz, User, parse_mapping


def init(
    out: Annotated[Path, typer.Option(help="Where to write it.")] = Path("bart.toml"),
    force: Annotated[bool, typer.Option(help="Write over an existing file.")] = False,
) -> None:
    """Writes a settings file with every setting at its default, commented."""
    from api.run.settings import commented_toml
    from bart.errors import DataError

    if out.exists() and not force:
        raise DataError(f"{out} exists; expected a new file (--force writes over it)")
    out.write_text(commented_toml())
    typer.echo(f"wrote {out}")


def check(
    file: Annotated[Path, typer.Argument(help="Listening events: a table or an export; a file, a folder or a ZIP.")],
    mapping: Mapping = None,
    kind: Kind = None,
    user: User = None,
    tz: Tz = None,
    config: Config = None,
) -> None:
    """Prints which rows of an event file are kept, which are rejected and why, and what could not be built from it."""
    from api.console import console, show_check
    from api.jobs.build import check_events
    from api.run.listening import Listening
    from api.run.settings import load_settings

    settings = load_settings({"listener": {"timezone": tz}}, config)
    show_check(console(), file, check_events(Listening(file, kind, parse_mapping(mapping), user), settings))


def build(
    events: Annotated[Path, typer.Option(help="Listening events: a table or an export; a file, a folder or a ZIP.")],
    out: Annotated[Path, typer.Option(help="Run directory to make; one that holds a run is refused.")],
    items: Annotated[Path | None, typer.Option(help="Items; else they are taken from the events.")] = None,
    playlists: Annotated[Path | None, typer.Option(help="playlist_id, position, item_id.")] = None,
    mapping: Mapping = None,
    kind: Kind = None,
    user: User = None,
    tz: Tz = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Renew the run in --out: its bundle stays for a rollback; events, log and states are kept.",
        ),
    ] = False,
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Makes a bundle from your own listening data: vectors, listener model, index and a prior scorer."""
    from api.console import console, show_build, track
    from api.jobs.build import build_run
    from api.run.runs import open_run
    from api.run.settings import load_settings

    began = time.perf_counter()
    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    screen = console()
    with track(screen) as progress:
        report = build_run(
            events,
            items,
            playlists,
            out,
            parse_mapping(mapping),
            settings,
            progress,
            kind=kind,
            user=user,
            renew=replace,
        )
    page = open_run(out, settings).page(report.a_listener)
    show_build(screen, report, page, time.perf_counter() - began)
