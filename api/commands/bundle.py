"""`bart bundle`: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command()
def show(path: Path = typer.Argument(help="A bundle directory.")) -> None:
    """Prints ids, configuration and metrics of a bundle."""
    import json

    from bart.bundle import read_manifest

    manifest = read_manifest(path)
    manifest["files"] = f"{len(manifest['files'])} files"
    typer.echo(json.dumps(manifest, indent=2, sort_keys=True))


@app.command()
def verify(path: Path = typer.Argument(help="A bundle directory.")) -> None:
    """Checks every file of a bundle against its manifest."""
    from bart.bundle import open_bundle

    bundle = open_bundle(path)
    typer.echo(f"{path}: {len(bundle.files)} files whole; batch {bundle.batch_id}, model {bundle.model_id}")
