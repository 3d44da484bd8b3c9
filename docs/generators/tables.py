"""Tables and examples as Markdown."""

from __future__ import annotations

import json
from typing import Any


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a table and an empty one; none where there are no rows."""
    if not rows:
        return []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |")
    return [*lines, ""]


def example(value: Any, what: str) -> list[str]:
    """The lines of a value as JSON, marked as something shown."""
    return [f"<!-- shown: {what} -->", "```json", *json.dumps(value, indent=2).splitlines(), "```", ""]


def toml(value: Any) -> str:
    """A value as bart.toml would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | set | frozenset):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{}"
    return f'"{value}"' if isinstance(value, str) else str(value)
