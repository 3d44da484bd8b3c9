"""`bart demo` and `bart simulate`: the main job in a simulated world, and the world's data alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.options import Config, Seed

Int = int | None


def demo(
    out: Annotated[Path, typer.Option(help="Run directory to make.")] = Path("runs/demo"),
    seed: Seed = None,
    listeners: Annotated[Int, typer.Option(help="Simulated listeners.")] = None,
    days: Annotated[Int, typer.Option(help="Days of listening before the first page.")] = None,
    tracks: Annotated[Int, typer.Option(help="Tracks in the catalogue.")] = None,
    visits: Annotated[Int, typer.Option(help="Visits to the home page.")] = None,
    browsing: Annotated[str | None, typer.Option(help="How a page is read, see docs/worlds.md.")] = None,
    config: Config = None,
) -> None:
    """From listening events to a trained policy, its log and a report of what other policies would have earned."""
    from api.console import console, show_demo, track
    from api.jobs.demo import run_demo
    from api.run.settings import load_settings

    world = {"listeners": listeners, "days": days, "tracks": tracks, "visits": visits, "browsing": browsing}
    settings = load_settings({"seed": seed, "world": _with_playlists(world)}, config)
    screen = console()
    with track(screen) as stages:
        report = run_demo(out, settings, stages)
    show_demo(screen, out, report)


def simulate(
    out: Annotated[Path, typer.Option(help="Event file to write; items and playlists are written beside it.")],
    listeners: Annotated[Int, typer.Option(help="Simulated listeners.")] = None,
    days: Annotated[Int, typer.Option(help="Days of listening.")] = None,
    tracks: Annotated[Int, typer.Option(help="Tracks in the catalogue.")] = None,
    seed: Seed = None,
    off: Annotated[
        list[str] | None,
        typer.Option(help="An effect to switch off: context, sequence or one of docs/worlds.md; may be repeated."),
    ] = None,
    config: Config = None,
) -> None:
    """Writes the listening events, items and playlists of a simulated world."""
    from api.console import console, track
    from api.jobs.demo import simulate_to
    from api.run.settings import load_settings

    world = {"listeners": listeners, "days": days, "tracks": tracks, "off": tuple(off) if off else None}
    settings = load_settings({"seed": seed, "world": _with_playlists(world)}, config)
    screen = console()
    with track(screen) as stages:
        written = simulate_to(out, settings, stages)
    for path, rows in written.items():
        screen.print(f"{path}: {rows:,} rows")


def _with_playlists(world: dict[str, Any]) -> dict[str, Any]:
    """Settings of a world, with as many playlists as go with its tracks where these are given."""
    tracks = world["tracks"]
    return world if tracks is None else {**world, "playlists": max(100, tracks * 2 // 3)}
