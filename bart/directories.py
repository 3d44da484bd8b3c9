"""Putting directories in place so that a kill or a power cut leaves either the old one or the new one, whole.

What a name is to point at is written and synced first; the name changes in one step. Linux can exchange two names in
one step (renameat2), also where both are directories; elsewhere a directory is replaced by two renames, and in the
moment between them nothing has the name.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bart.errors import BundleError

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Makes the content of a file survive a power cut."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_tree(path: Path) -> None:
    """Makes every file below a directory, and all names, survive a power cut."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            sync_file(Path(folder) / name)
        sync_directory(Path(folder))


def write_synced(path: Path, text: str) -> None:
    """Puts a text file in the place of `path` in one step, synced."""
    beside = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def link_tree(source: Path, target: Path) -> None:
    """A second directory with the same files, by hard links where the file system has them, else copied."""

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)
        return other

    shutil.copytree(source, target, copy_function=link)


def replace_directory(new: Path, path: Path) -> None:
    """Puts `new`, a directory or a file, in the place of `path` (same file system): a directory, a file or nothing.

    Where names cannot be exchanged, and not both are files, a kill may leave nothing under the name: see `given_back`.
    """
    if not path.exists() or (path.is_file() and new.is_file()):
        os.replace(new, path)
    elif exchange(new, path):
        remove(new)
    else:
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        remove(old)
        os.rename(path, old)
        os.rename(new, path)
        remove(old)
    sync_directory(path.parent)


def given_back(path: Path) -> None:
    """Gives a name back what it stood for where a kill took that in the midst of `replace_directory`; what else such
    kills left of it is removed. No other process may be replacing it."""
    for old in sorted(path.parent.glob(f".{path.name}.old-*")):
        if os.path.lexists(path):
            remove(old)
        else:
            os.rename(old, path)
            sync_directory(path.parent)


def remove(path: Path) -> None:
    """Removes a file or a directory, where there is one and as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def point(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target` in one step. Raises OSError where `link` is a directory."""
    beside = link.with_name(f".{link.name}.link-{os.getpid()}")
    beside.unlink(missing_ok=True)
    os.symlink(target, beside)
    try:
        os.replace(beside, link)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(link.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges what two names stand for in one step; False, with nothing done, where the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return int(call(_HERE, ctypes.c_char_p(names[0]), _HERE, ctypes.c_char_p(names[1]), ctypes.c_uint(_EXCHANGE))) == 0


@contextmanager
def exclusive(file: Path, refuse: str | None = None) -> Iterator[None]:
    """Holds a lock file while the block runs; the system lets go of it with the process, however that ends.

    refuse: where another process holds it, BundleError with this text; without it the other is waited for.
    """
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if refuse is not None else 0))
        except BlockingIOError:
            raise BundleError(refuse or "") from None
        yield
