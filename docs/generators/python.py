"""Public Python names: a line each with a link to the file, or, for the site, what their docstrings say in full."""

from __future__ import annotations

import ast
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def public(place: str) -> str:
    """A line for each name: `module` (what it hands on, in its own order) or `module: Name, Name`.

    A table of the code is told by the names in it.
    """
    module, names = _asked(place)
    lines = []
    for name in names:
        value = getattr(module, name)
        file = _file_of(module, name)
        text = _first_line(value)
        if text:
            lines.append(f"- [`{name}`](../../{file.as_posix()}): {text}")
    return "\n" + "\n".join(lines) + "\n"


def in_full(place: str) -> str:
    """The directive by which the site shows the same names with their docstrings."""
    module, _, names = place.partition(":")
    return "\n".join(
        ["", "```{eval-rst}", f".. automodule:: {module}", f"   :members: {names.strip()}".rstrip(), "```", ""]
    )


def _asked(place: str) -> tuple[ModuleType, list[str]]:
    path, _, names = place.partition(":")
    module = import_module(path)
    if names.strip():
        return module, [name.strip() for name in names.split(",")]
    listed = getattr(module, "__all__", None)
    return module, list(listed) if listed else [one for one, value in vars(module).items() if _own(value, path)]


def _own(value: Any, path: str) -> bool:
    return getattr(value, "__module__", None) == path and isinstance(value, type)


def _first_line(value: Any) -> str:
    if isinstance(value, Collection) and not isinstance(value, str | type):
        return "the table of " + ", ".join(f"`{one}`" for one in value) + "."
    if getattr(value, "__module__", "").split(".")[0] not in ("bart", "recommender", "simulator", "api"):
        return ""  # the name of a type of numpy's
    return (value.__doc__ or "").strip().split("\n\n")[0].split("\n")[0]


def _file_of(module: ModuleType, name: str) -> Path:
    """Where the name is defined, relative to the checkout: imports are followed to the file that makes it."""
    file = Path(str(module.__file__))
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and any(name in (a.asname, a.name) for a in node.names):
            return _file_of(import_module(node.module), name)
    return file.relative_to(ROOT)
