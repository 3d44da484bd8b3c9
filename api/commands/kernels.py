"""`bart compile`: machine code made ahead, for an image or a unit whose processes may not write it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer


def compile_kernels(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Where to keep it; processes find it there by NUMBA_CACHE_DIR=DIR. By default beside the source.",
        ),
    ] = None,
) -> None:
    """Compiles all inner loops once, so that no later process has to: it runs a small demonstration through them."""
    if folder is not None:
        folder = folder.resolve()
        os.environ["NUMBA_CACHE_DIR"] = str(folder)  # before numba is loaded

    from api.console import console, track
    from api.jobs.demo import run_demo
    from api.run.settings import load_settings
    from api.service.service import open_service
    from api.wire.schemas import HomeRequest
    from bart.errors import DataError

    world = {"listeners": 20, "days": 21, "tracks": 500, "visits": 200, "playlists": 100}
    with TemporaryDirectory() as made:
        run = Path(made) / "run"
        with track(console()) as stages:
            run_demo(run, load_settings({"seed": 1, "world": world}), stages)
        with open_service(run, load_settings({})) as service:
            service.preview(HomeRequest(user_id="u00001"))
    places = [folder] if folder is not None else _packages()
    count = len({found for place in places for found in place.rglob("*.nbi")})
    if not count:
        raise DataError(f"nothing was kept in {folder or places[0]}; expected a folder that may be written")
    where = f"{folder}; processes read it with NUMBA_CACHE_DIR={folder}" if folder else "beside the source"
    typer.echo(f"machine code of {count} functions is kept {'in ' if folder else ''}{where}")


def _packages() -> list[Path]:
    found = (find_spec(name) for name in ("api", "bart", "recommender", "simulator"))
    return [Path(str(spec.origin)).parent for spec in found if spec is not None]
