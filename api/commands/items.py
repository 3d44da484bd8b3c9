"""`bart items`: a catalogue brought up to date while a run serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Run = Annotated[Path, typer.Option(help="A run made by bart demo or bart build.")]
Config = Annotated[Path | None, typer.Option(help="Settings file; by default ./bart.toml.")]


@app.command()
def sync(
    file: Annotated[Path, typer.Argument(help="The catalogue (items.parquet or CSV); only item_id is required.")],
    run: Run = Path("runs/demo"),
    take_down_missing: Annotated[bool, typer.Option(help="Items that the file lacks are taken down.")] = False,
    publish: Annotated[bool, typer.Option(help="Activate a bundle with the new items at once.")] = True,
    config: Config = None,
) -> None:
    """Adds new items, changes others, and publishes them; a serving process takes them up without a restart."""
    from contextlib import closing
    from datetime import datetime, timezone

    from api.run.settings import load_settings
    from api.run.versions import Versions
    from api.service.control import CONTROL_FILE, ControlStore
    from api.upkeep.item_updates import publish_items, sync_items
    from bart.bundle import open_bundle
    from bart.errors import BundleError
    from bart.item_store import load_items
    from recommender.events.importers import tabular
    from recommender.shelves.items import read_items

    if not (run / "bundle").is_dir():
        raise BundleError(f"{run} does not exist or holds no bundle; expected a run made by bart demo or bart build")
    rows = read_items(tabular.read_table(file)).items
    at = datetime.now(timezone.utc)
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        known = load_items(open_bundle(run / "bundle").folder("items"))
        counts = sync_items(store, rows, known, at, take_down=take_down_missing)
        typer.echo(f"{file}: {len(rows):,} items; " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
        if publish:
            versions = Versions.of(run, load_settings(file=config))
            made_at = at.isoformat(timespec="seconds")
            _tell(publish_items(run, store, made_at, keep=versions.keep, spared=versions.spared))


@app.command()
def publish(
    run: Run = Path("runs/demo"),
    keep: Annotated[int | None, typer.Option(min=2, help="Bundles to keep; by default retrain.keep.")] = None,
    spare: Annotated[list[str] | None, typer.Option(help="Bundles to keep besides; by default the arms'.")] = None,
    config: Config = None,
) -> None:
    """Activates a bundle with the items that wait (put over HTTP, or by sync --no-publish)."""
    from contextlib import closing
    from datetime import datetime, timezone

    from api.run.settings import load_settings
    from api.run.versions import Versions
    from api.service.control import CONTROL_FILE, ControlStore
    from api.upkeep.item_updates import publish_items

    versions = Versions.of(run, load_settings(file=config))
    spared = {*versions.spared, *(spare or ())}
    with closing(ControlStore(run / CONTROL_FILE)) as store:
        made_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        _tell(publish_items(run, store, made_at, keep=keep or versions.keep, spared=spared))


def _tell(done: object) -> None:
    from api.upkeep.item_updates import Published

    assert isinstance(done, Published)
    if done.bundle is None:
        typer.echo("no item waits")
    else:
        lacking = f" ({done.without_vector:,} without a vector)" if done.without_vector else ""
        typer.echo(f"{done.bundle} is active: {done.added:,} items added{lacking}, {done.changed:,} changed")
