"""`bart bundle`: what a bundle holds, whether it is whole, and which bundle of a run is active."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.options import Config

if TYPE_CHECKING:
    from api.run.versions import Activation, Versions

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Run = Annotated[Path, typer.Argument(help="A run directory.")]


@app.command()
def show(path: Path = typer.Argument(help="A bundle directory."), config: Config = None) -> None:
    """Prints ids, configuration and metrics of a bundle."""
    import json

    from bart.bundle import read_manifest

    _check(config)
    manifest = read_manifest(path)
    manifest["files"] = f"{len(manifest['files'])} files"
    typer.echo(json.dumps(manifest, indent=2, sort_keys=True))


@app.command()
def verify(path: Path = typer.Argument(help="A bundle directory."), config: Config = None) -> None:
    """Checks every file of a bundle against its manifest, and works its ids out anew."""
    from bart.bundle import verify_bundle
    from bart.reward.model import RewardModel

    _check(config)
    bundle = verify_bundle(path, lambda folder: RewardModel.load(folder).content_id())
    typer.echo(f"{path}: {len(bundle.files)} files whole; batch {bundle.batch_id}, model {bundle.model_id}")


@app.command("list")
def list_(run: Run, config: Config = None) -> None:
    """Names the bundles of a run, the oldest first; the active one is marked by *, the one to roll back to by <."""
    versions = _versions(run, config)
    back = versions.before()
    for version in versions.list():
        mark = "*" if version.active else "<" if version.name == back else " "
        outcome = _outcome(version.gate)
        typer.echo(f"{mark} {version.name}  batch {version.batch_id}  model {version.model_id}{outcome}")
    for name, why in versions.damaged().items():
        typer.echo(f"! {name}  {why}")


@app.command()
def activate(
    run: Run,
    name: Annotated[str, typer.Argument(help="Name of a bundle, as bart bundle list prints it; never a path.")],
    why: Annotated[str, typer.Option(help="Reason, for the history.")] = "by hand",
    force: Annotated[bool, typer.Option(help="Also a bundle that bart retrain refused.")] = False,
    config: Config = None,
) -> None:
    """Verifies a bundle of the run and makes it the active one; services take it up by themselves."""
    _say(run, _versions(run, config).activate(name, why, force=force))


@app.command()
def rollback(
    run: Run,
    why: Annotated[str, typer.Option(help="Reason, for the history.")] = "by hand",
    config: Config = None,
) -> None:
    """Returns to the bundle that was active before; once more, to the one before that."""
    _say(run, _versions(run, config).rollback(why))


@app.command()
def migrate(path: Annotated[Path, typer.Argument(help="A bundle directory.")], config: Config = None) -> None:
    """Rewrites a bundle of an older format as the present one."""
    from bart.bundle import migrate as rewrite

    _check(config)
    before, after = rewrite(path)
    typer.echo(f"{path}: format {before} to {after}" if before != after else f"{path}: format {after} already")


def _check(config: Path | None) -> None:
    """Tells a wrong settings file, of which a bundle by itself needs nothing."""
    from api.run.settings import load_settings

    load_settings(file=config)


def _versions(run: Path, config: Path | None) -> Versions:
    from api.run.settings import load_settings
    from api.run.versions import Versions

    versions = Versions.of(run, load_settings(file=config))
    versions.repair()
    return versions


def _say(run: Path, done: Activation) -> None:
    typer.echo(f"{run}: {done.name} is active; before: {done.previous or 'none'}")


def _outcome(gate: object) -> str:
    if not isinstance(gate, dict) or "passed" not in gate:
        return ""
    return "  passed the gate" if gate["passed"] else f"  refused: {gate.get('reason', '')}"
