"""`bart init`, `bart check`, `bart build`: from a user's own files to a bundle that can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Mapping = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads this at run time on every supported Python)
    typer.Option("--map", help="ours=theirs, a column of the file under another name; may be repeated."),
]
Config = Annotated[Optional[Path], typer.Option(help="Settings file; ./bart.toml is read when it is there.")]  # noqa: UP045
Seed = Annotated[Optional[int], typer.Option(help="Of everything random.")]  # noqa: UP045


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
    file: Annotated[Path, typer.Argument(help="Listening events: CSV or Parquet.")],
    mapping: Mapping = None,
    tz: Annotated[Optional[str], typer.Option(help="Zone of times that carry none.")] = None,  # noqa: UP045
    config: Config = None,
) -> None:
    """Prints which rows of an event file are kept, which are rejected and why, and what could not be built from it."""
    from api.console import console, show_check
    from api.jobs.build import check_events
    from api.run.settings import load_settings

    settings = load_settings({"listener": {"timezone": tz}}, config)
    show_check(console(), file, check_events(file, parse_mapping(mapping), settings))


def build(
    events: Annotated[Path, typer.Option(help="Listening events: CSV or Parquet; user, item and time are required.")],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    items: Annotated[Optional[Path], typer.Option(help="Items; else they are taken from the events.")] = None,  # noqa: UP045
    playlists: Annotated[Optional[Path], typer.Option(help="playlist_id, position, item_id.")] = None,  # noqa: UP045
    mapping: Mapping = None,
    tz: Annotated[Optional[str], typer.Option(help="Zone of times that carry none.")] = None,  # noqa: UP045
    seed: Seed = None,
    config: Config = None,
) -> None:
    """Makes a bundle from your own listening data: vectors, listener model, index and a prior scorer."""
    from api.console import console, show_build, track
    from api.jobs.build import build_run
    from api.run.settings import load_settings

    settings = load_settings({"seed": seed, "listener": {"timezone": tz}}, config)
    screen = console()
    with track(screen) as progress:
        report = build_run(events, items, playlists, out, parse_mapping(mapping), settings, progress)
    show_build(screen, report)


def parse_mapping(pairs: list[str] | None) -> dict[str, str]:
    """{ours: theirs} of the --map options. Raises DataError for anything but ours=theirs."""
    from bart.errors import DataError

    out: dict[str, str] = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise DataError(f"--map {pair!r} is not of the form ours=theirs, such as user_id=uid")
        if ours in out:
            raise DataError(f"--map names {ours!r} twice; expected each of our columns once")
        out[ours.strip()] = theirs.strip()
    return out
