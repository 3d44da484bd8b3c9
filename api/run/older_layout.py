"""The older layout of a run, where RUN/bundle is the bundle itself and not a link to it, and the way out of it.

At each moment RUN/bundle verifies: the bundle gets a second directory with the same files, then directory and link
change names in one step. Where the system cannot exchange names there is a moment without RUN/bundle; a kill there is
made good by `repair`, which every opening of a run calls.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bart.bundle import open_bundle
from bart.directories import exchange, link_tree, point, sync_directory, sync_tree
from bart.errors import BundleError

_OLD = ".bundle.old"


def adopt(link: Path, directory: Path, name: str) -> None:
    """Moves the bundle at `link` to `directory`/name (or name-2, ... where another has it), and links to it."""
    target, number = directory / name, 1
    while os.path.lexists(target) and not _same(target, link):
        number += 1
        target = directory / f"{name}-{number}"
    if not target.exists():
        draft = directory / ".older"
        shutil.rmtree(draft, ignore_errors=True)
        link_tree(link, draft)
        sync_tree(draft)
        os.rename(draft, target)
        sync_directory(directory)
    beside = link.with_name(f".bundle.link-{os.getpid()}")
    point(beside, f"{directory.name}/{target.name}")
    old = link.with_name(_OLD)
    if exchange(beside, link):
        os.rename(beside, old)
    else:
        os.rename(link, old)
        os.rename(beside, link)
    sync_directory(link.parent)
    shutil.rmtree(old, ignore_errors=True)


def broken(link: Path) -> bool:
    """Whether a kill fell into the moment without RUN/bundle."""
    return not os.path.lexists(link) and link.with_name(_OLD).is_dir()


def repair(link: Path) -> None:
    """Gives the directory its name back where `broken`."""
    if broken(link):
        os.rename(link.with_name(_OLD), link)


def _same(one: Path, other: Path) -> bool:
    try:
        return open_bundle(one).files == open_bundle(other).files
    except BundleError:
        return False
