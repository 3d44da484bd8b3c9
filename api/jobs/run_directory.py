"""Run directories that a job makes or renews: written beside, put in place at the end, nothing that was there lost.

RUN/replaced/NAME/   events, items and playlists of which the bundle NAME was made, when another took its place
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.run.in_use import unserved
from api.run.recorded import MARKER, read_marker
from api.run.runs import RunPaths
from api.run.versions import Versions
from bart.directories import replace_directory, sync_directory, sync_tree
from bart.errors import BundleError, DataError
from bart.types import Context, ItemTable

if TYPE_CHECKING:
    from api.run.settings import Settings
    from recommender.states.states import StoredListeners

REPLACED = "replaced"


@contextmanager
def draft_directory(out: Path) -> Iterator[Path]:
    """An empty directory beside `out`; on success its files take the place of those in `out`, one rename each.

    What else stands in `out` (a decision log, its export, reports) stays. Bundles are added to those that are there,
    and the active one of the draft becomes that of `out`; what the one before was made of is kept under its name.
    Raises BundleError where a service serves `out`.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; expected a directory to write to")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.new-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    with _unserved(out):  # told before the work, and held when files change their places
        draft.mkdir()
    try:
        yield draft
        sync_tree(draft)
        if not out.exists():
            draft.rename(out)
            sync_directory(out.parent)
            return
        with _unserved(out):
            _put_in_place(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unserved(out: Path) -> Any:
    return unserved(out) if out.is_dir() and any(out.iterdir()) else nullcontext()


def _put_in_place(draft: Path, out: Path) -> None:
    _carry_listeners(out, draft)
    if (draft / "bundle").exists():
        _keep_sources(out)
    for path in sorted(draft.iterdir()):
        if path.name in ("bundle", "bundles"):
            continue
        for leftover in (f"{path.name}-wal", f"{path.name}-shm"):  # SQLite would replay it into the new file
            (out / leftover).unlink(missing_ok=True)
        if path.is_dir() or (out / path.name).is_dir():
            replace_directory(path, out / path.name)
        else:
            os.replace(path, out / path.name)
    if (draft / "bundle").exists():  # the bundles last: they name the rest
        versions = Versions(out)
        versions.take_from(Versions(draft))
        versions.prune()


def _keep_sources(out: Path) -> None:
    """Moves what the active bundle was made of to its own folder, where nothing writes over it."""
    name = Versions(out).active()
    if name is None:
        return
    paths = RunPaths(out)
    folder = out / REPLACED / name
    for file in (paths.events, paths.items, paths.playlists, out / MARKER):
        if file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            replace_directory(file, folder / file.name)
    if folder.is_dir():
        sync_directory(folder)


def _carry_listeners(out: Path, draft: Path) -> None:
    """The new store also keeps the listeners of the bundles that were there, so that one can return to these; of a
    batch that both have, those that were there, who may have listened since."""
    from recommender.states.states import carry_batches, drop_batches, stored_batches

    old, new = RunPaths(out).listeners, RunPaths(draft).listeners
    if old.is_file() and new.is_file():
        try:
            drop_batches(new, stored_batches(old))
            carry_batches(old, new)
        except sqlite3.DatabaseError:  # the old file is damaged: those bundles cannot be activated again
            return


def items_before(out: Path) -> ItemTable | None:
    """The items of the bundle that serves the run which a build shall replace; None where there is none to read."""
    from bart.bundle import open_bundle
    from bart.item_store import load_items

    if not Path(out).is_dir() or Versions(out).active() is None:
        return None
    try:
        return load_items(open_bundle(RunPaths(out).bundle.resolve()).folder("items"))
    except BundleError:  # what is damaged is replaced, and lies nowhere
        return None


def carried(out: Path, draft: Path, settings: Settings) -> tuple[str, ...]:
    """Brings to a draft what no event tells of the listeners of the run that it shall replace; a line for people."""
    from api.hosts.shared import listener_store
    from bart.bundle import open_bundle
    from bart.item_store import load_items

    before = Versions(out).active() if Path(out).is_dir() else None
    if before is None:
        return ()
    try:
        old, new = (open_bundle(RunPaths(root).bundle.resolve()) for root in (out, draft))
        if old.batch_id == new.batch_id:
            return ()
        old_items, new_items = (load_items(bundle.folder("items")) for bundle in (old, new))
        with (
            closing(listener_store(RunPaths(out), old, settings)) as old_store,
            closing(listener_store(RunPaths(draft), new)) as new_store,
        ):
            told = carry_rows(old_store, old_items, new_store, new_items)
    except (BundleError, sqlite3.DatabaseError) as error:
        return (f"blocked artists and picks of the bundle before could not be read: {error}",)
    return (told, f"before: {before}, to which bart bundle rollback returns; its files in {REPLACED}/{before}")


def carry_rows(old: StoredListeners, items: ItemTable, new: StoredListeners, new_items: ItemTable) -> str:
    """What events do not tell of a listener: blocked artists, success of exploration, picks at the beginning."""
    lost = 0
    for user in old.user_ids():
        before, now = old.get(user), new.get(user)
        if before is None:
            continue
        if now is not None:
            if before.blocked_artists or before.exploration_success is not None:
                blocked, success = before.blocked_artists, before.exploration_success
                new.put_many([replace(now, blocked_artists=blocked, exploration_success=success)])
            continue
        # A pick may lie beyond the table: an item that was published and then rolled back.
        picks = before.favourite[before.favourite < len(items)] if not before.known else np.empty(0, np.int64)
        rows = new_items.rows(items.item_id[picks].tolist())
        rows = rows[rows >= 0]
        if len(rows) and before.made_at_s is not None:
            made_at = datetime.fromtimestamp(before.made_at_s, tz=timezone.utc)
            context = Context(made_at, country=before.usage.country)
            new.onboard(user, rows, new_items.vector[rows], context)
        else:
            lost += 1
    return f"{len(new):,} listeners in the new batch; {lost:,} who are in no event begin anew"


def write_marker(run: Path, kind: str, settings: Settings) -> None:
    """run.json: what made this run, with the effective settings."""
    text = json.dumps({"kind": kind, "settings": settings.as_dict(leave_out={"serve"})}, indent=1)
    (run / MARKER).write_text(text + "\n")


def refuse_run(out: Path, kind: str, renew: bool = True) -> None:
    """Raises DataError where something stands at `out` that is not a run of this kind and would be replaced; without
    `renew` where anything does."""
    out = Path(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file; expected a directory to write to")
    if not any(out.iterdir()):
        return
    if read_marker(out).get("kind") != kind:
        what = {"demo": "a demonstration", "build": "a run made by bart build"}[kind]
        raise DataError(f"{out} exists and is not {what}; expected a new directory, or such a one")
    if not renew:
        raise DataError(
            f"{out} holds a run already; expected another --out, bart retrain {out} --events FILE for more listening, "
            "or --replace, which keeps its bundle, events, log and listener states"
        )
