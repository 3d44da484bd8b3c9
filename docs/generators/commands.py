"""The command line: every command with its arguments and flags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generators.tables import table


def commands() -> str:
    """Every command of `bart` with its arguments and flags."""
    import typer

    from api.cli import app

    return "\n".join(_command("bart", typer.main.get_command(app)))


def _command(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for key, one in inner.items():
            yield from _command(f"{name} {key}", one)
        return
    yield f"## {name}\n"
    yield f"{' '.join((command.help or '').split())}\n"
    given = [one for one in command.params if not one.opts[0].startswith("-")]
    usage = [name, *(one.name.upper() if one.required else f"[{one.name.upper()}]" for one in given), "[OPTIONS]"]
    yield f"`{' '.join(usage)}`\n"
    rows = []
    for one in sorted(command.params, key=lambda one: one.opts[0].startswith("-")):
        if one.name == "help":
            continue
        is_option = one.opts[0].startswith("-")
        shown = (
            " / ".join(f"`{word}`" for word in (*one.opts, *one.secondary_opts))
            if is_option
            else f"`{one.name.upper()}`"
        )
        kind = "" if getattr(one, "is_flag", False) else _annotation(one)
        many = ", may be repeated" if one.multiple else ""
        rows.append((shown, kind + many, _click_default(one), one.help or ""))
    yield from table(("argument or flag", "value", "default", "meaning"), rows)


def _annotation(parameter: Any) -> str:
    found = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if found is None:  # typer before 0.29
        return str(parameter.type.name)
    inner = getattr(found, "__args__", None)
    if inner and all(isinstance(one, str) for one in inner):
        return ", ".join(f"`{one}`" for one in inner)
    return {"Path": "path", "str": "text", "int": "integer", "float": "number"}.get(
        getattr((inner or [found])[0], "__name__", ""), ""
    )


def _click_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value == [] or value == ():
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"
