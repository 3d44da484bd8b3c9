"""The HTTP service: calls and bodies, from its OpenAPI document."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from typing import Any

from generators.tables import example, table


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
                out += [f"Takes [{name}](#{name.lower()}).", ""]
            for status, answer in call["responses"].items():
                shown = answer.get("content", {}).get("application/json", {}).get("example")
                if status != "default" and shown is not None:
                    out += [f"Answers {status}:", "", *example(shown, "an answer")]
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
        out += [f"### {name}", "", schema.get("description", ""), ""]
        required = set(schema.get("required", ()))
        rows = [
            (f"`{key}`", _kind_of(value), _default_of(value, key in required), value.get("description", ""))
            for key, value in schema.get("properties", {}).items()
        ]
        out += table(("field", "type", "default", "meaning"), rows)
        for shown in schema.get("examples", [])[:1]:
            out += example(shown, "a body")
    return "\n".join(out)


def openapi() -> dict[str, Any]:
    """The OpenAPI document that a service answers at /openapi.json, without a run."""
    from api.http.app import app_of
    from api.run.settings import Settings

    app: Any = app_of(nullcontext(None), Settings())  # type: ignore[arg-type]
    return dict(app.openapi())


def _parameters(given: list[dict[str, Any]]) -> list[str]:
    if not given:
        return []
    rows = [
        (f"`{one['name']}`", one["in"], _kind_of(one["schema"]), _default_of(one["schema"], one.get("required", False)))
        for one in given
    ]
    return table(("parameter", "in", "type", "default"), rows)


def _kind_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
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
