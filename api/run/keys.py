"""The secrets of a run, each in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bart.errors import DataError

if TYPE_CHECKING:
    from api.run.settings import ServeSettings

KEY_FILE = "service.key"
ADMIN_KEY_FILE = "admin.key"


def run_key(path: Path) -> bytes:
    """The secret of a run, made where there is none; the same for all processes that serve it."""
    return _kept(path, lambda: secrets.token_bytes(32))


def has_administrator(serve: ServeSettings) -> bool:
    """Whether the settings hold a key of administrators."""
    return bool(serve.admin_key) or any("admin" in key.scopes for key in serve.keys.values())


def admin_key(root: Path, serve: ServeSettings) -> str:
    """The administrator's key of a run: made at its first use where the settings hold none; empty where they hold
    digests alone, which give no key away. Raises DataError for a file that others can read, or that holds no key."""
    if has_administrator(serve):
        return serve.admin_key
    path = root / ADMIN_KEY_FILE
    key = _kept(path, lambda: secrets.token_urlsafe(24).encode() + b"\n").decode(errors="replace").strip()
    if path.stat().st_mode & 0o077:
        raise DataError(f"{path} can be read by others; expected mode 0600 (chmod 600 {path})")
    if len(key) < 16 or not key.isascii() or not key.isprintable():
        raise DataError(f"{path} holds no key; expected 16 printable characters or more (remove it for a new one)")
    return key


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file, made where there is none: whole or not at all, and never over another process's."""
    if not path.exists():
        mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make())
            os.link(mine, path)
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return path.read_bytes()
