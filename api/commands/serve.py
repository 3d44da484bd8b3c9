"""`bart serve`: the HTTP service and the web page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    run: Annotated[Path, typer.Option(help="A run made by bart demo or bart build.")] = Path("runs/demo"),
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; ./bart.toml if it is there.")] = None,
) -> None:
    """Answers POST /v1/home and shows the home page at /."""
    from api.http.server import serve_run
    from api.run.settings import load_settings

    settings = load_settings({"serve": {"host": host, "port": port, "workers": workers}}, config)
    serve_run(run, settings)
