"""Reference text made from the code itself, as Markdown: commands, HTTP calls, settings, columns.

A page names what it wants: `<!-- generated: commands -->`. The site fills it in while it is built (conf.py), so what a
reader sees is what the installed version does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version as installed
from typing import Any

_PLACE = re.compile(r"<!-- generated: (\w+)(?: ([\w.:]+))? -->")
_SECTION = re.compile(r"^class (\w+)")


def version() -> str:
    """The installed version of the package."""
    return installed("bart-home")


def fill(page: str) -> str:
    """The page with everything generated in its place; KeyError for a name that nothing makes."""
    return _PLACE.sub(lambda found: MAKERS[found[1]](*([found[2]] if found[2] else [])), page)


def commands() -> str:
    """Every command of `bart` with its arguments and flags."""
    import typer

    from api.cli import app

    return "\n".join(_command("bart", typer.main.get_command(app)))


def http_calls() -> str:
    """Every call of the HTTP service, from its OpenAPI document."""
    document = openapi()
    out: list[str] = []
    for path, calls in sorted(document["paths"].items()):
        for method, call in calls.items():
            out += [f"### {method.upper()} {path}", "", f"{call['summary']}.", ""]
            out += _parameters(call.get("parameters", []))
            body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body:
                name = body["$ref"].rsplit("/", 1)[-1]
                out += [f"Takes [{name}](#body-{name.lower()}).", ""]
            for status, answer in call["responses"].items():
                example = answer.get("content", {}).get("application/json", {}).get("example")
                if status != "default" and example is not None:
                    out += [f"Answers {status}:", "", *_json(example)]
    return "\n".join(out)


def http_bodies() -> str:
    """Every body that a call takes and the one shape of errors, from the OpenAPI document."""
    document = openapi()
    used = {
        call["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
        for calls in document["paths"].values()
        for call in calls.values()
        if "requestBody" in call
    }
    schemas = document["components"]["schemas"]
    inner = {found for name in used for found in re.findall(r"#/components/schemas/(\w+)", json.dumps(schemas[name]))}
    out: list[str] = []
    for name in sorted(used | inner | {"Problem"}):
        schema = schemas[name]
        out += [f"(body-{name.lower()})=", f"### {name}", "", schema.get("description", ""), ""]
        required = set(schema.get("required", ()))
        rows = [
            (f"`{key}`", _kind_of(value), _default_of(value, key in required), value.get("description", ""))
            for key, value in schema.get("properties", {}).items()
        ]
        out += _table(("field", "type", "default", "meaning"), rows)
        for example in schema.get("examples", [])[:1]:
            out += _json(example)
    return "\n".join(out)


def settings() -> str:
    """Every setting of bart.toml with its default and meaning."""
    from pydantic import BaseModel

    from api.run.settings import ArmSettings, EditorialSettings, KeySettings, Settings

    out: list[str] = []
    top = [
        (f"`{name}`", f"`{_toml(field.default)}`", field.description or "")
        for name, field in Settings.model_fields.items()
        if not isinstance(field.default, BaseModel) and name != "rules"
    ]
    out += _table(("setting", "default", "meaning"), top)
    nested = {
        "shelves.editorial.NAME": EditorialSettings,
        "serve.keys.NAME": KeySettings,
        "experiment.arms.NAME": ArmSettings,
    }
    sections = {
        name: type(field.default)
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, BaseModel)
    }
    for name, section in {**sections, **nested}.items():
        note = (section.__doc__ or "").strip().splitlines()
        if section.__doc__ and "BaseModel" not in section.__doc__ and note:
            out += [f"## [{name}]", "", note[0], ""]
        else:
            out += [f"## [{name}]", ""]
        rows = [
            (f"`{key}`", _setting_default(field), field.description or "")
            for key, field in section.model_fields.items()
        ]
        out += _table(("setting", "default", "meaning"), rows)
    return "\n".join(out)


def business_rules() -> str:
    """The settings of [rules], from the record that checks them."""
    from bart.page.rules import Rules

    return "\n".join(_table(("setting", "default"), [(f"`{one.name}`", f"`{_plain(one)}`") for one in fields(Rules)]))


def columns(place: str) -> str:
    """The columns of an Arrow schema, `module:NAME`."""
    module, name = place.split(":")
    schema = getattr(import_module(module), name)
    rows = [(f"`{one.name}`", f"`{one.type}`", "no" if not one.nullable else "yes") for one in schema]
    return "\n".join(_table(("column", "Arrow type", "may be null"), rows))


def record(place: str) -> str:
    """The fields of a dataclass with their types, `module:Name`."""
    module, name = place.split(":")
    rows = [(f"`{one.name}`", f"`{one.type}`") for one in fields(getattr(import_module(module), name))]
    return "\n".join(_table(("field", "type"), rows))


def version_of(place: str) -> str:
    """The value of a constant, `module:NAME`."""
    module, name = place.split(":")
    return str(getattr(import_module(module), name))


def names(place: str) -> str:
    """The names in a table or tuple of the code, `module:NAME`, in one line."""
    module, name = place.split(":")
    return ", ".join(f"`{one}`" for one in getattr(import_module(module), name))


MAKERS: dict[str, Callable[..., str]] = {
    "commands": commands,
    "http_calls": http_calls,
    "http_bodies": http_bodies,
    "settings": settings,
    "business_rules": business_rules,
    "columns": columns,
    "record": record,
    "constant": version_of,
    "names": names,
}


def openapi() -> dict[str, Any]:
    """The OpenAPI document that a service answers at /openapi.json, without a run."""
    from api.http.app import app_of
    from api.run.settings import Settings

    app: Any = app_of(nullcontext(None), Settings.model_construct())  # type: ignore[arg-type]
    return dict(app.openapi())


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
    yield f"```text\n{' '.join(usage)}\n```\n"
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
    yield from _table(("argument or flag", "value", "default", "meaning"), rows)


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


def _parameters(given: list[dict[str, Any]]) -> list[str]:
    if not given:
        return []
    rows = [
        (f"`{one['name']}`", one["in"], _kind_of(one["schema"]), _default_of(one["schema"], one.get("required", False)))
        for one in given
    ]
    return _table(("parameter", "in", "type", "default"), rows)


def _kind_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#body-{name.lower()})"
    if "anyOf" in schema:
        return ", ".join(_kind_of(one) for one in schema["anyOf"] if one.get("type") != "null") + ", or null"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", ""))
    if kind == "array":
        return f"list of {_kind_of(schema.get('items', {}))}{_bounds(schema, 'minItems', 'maxItems')}"
    if "format" in schema:
        kind = str(schema["format"])
    return kind + _bounds(schema, "minimum", "maximum") + _bounds(schema, "minLength", "maxLength")


def _bounds(schema: dict[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if low is None and high is None:
        return ""
    if low is None:
        return f", at most {high}"
    return f", at least {low}" if high is None else f", {low} to {high}"


def _default_of(schema: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    return "" if schema.get("default") is None else f"`{json.dumps(schema['default'])}`"


def _setting_default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "unset" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | set | frozenset):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _plain(one: Any) -> str:
    from dataclasses import MISSING

    if one.default is not MISSING:
        return "unset" if one.default is None else _toml(one.default)
    return _toml(one.default_factory())


def _json(value: Any) -> list[str]:
    return ["```json", *json.dumps(value, indent=2).splitlines(), "```", ""]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |")
    return [*lines, ""]
