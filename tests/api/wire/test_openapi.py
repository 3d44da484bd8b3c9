"""The OpenAPI document tells what callers meet: keys, statuses, bounds, and the shape of every answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from api.http.app import app_of
from api.run.settings import Settings, load_settings
from api.service.service import open_service
from api.wire.openapi import OF, shape


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = app_of(nullcontext(None), Settings()).openapi()  # type: ignore[arg-type]
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{m.upper()} {path}": one for path, ones in document["paths"].items() for m, one in ones.items()}


def test_every_operation_tells_its_statuses_and_whether_it_takes_a_key(document: dict[str, Any]) -> None:
    found = operations(document)
    assert set(OF) <= set(found)
    for route, one in found.items():
        assert {"403", "429", "503"} <= set(one["responses"]), route
        if "requestBody" in one:
            assert {"400", "413", "415", "422"} <= set(one["responses"]), route
        admin = one.get("security") == [{"key": []}]
        assert ("401" in one["responses"]) == ("security" in one), route
        assert admin == (route.split()[1] not in document_open()), route
    assert document["components"]["securitySchemes"]["key"]["name"] == "X-API-Key"


def document_open() -> set[str]:
    return {"/v1/home", "/v1/rank", "/v1/feedback", "/v1/sessions", "/v1/onboarding", "/health", "/ready", "/metrics"}


def test_bounds_of_paths_and_queries_are_told(document: dict[str, Any]) -> None:
    for route, one in operations(document).items():
        for parameter in one.get("parameters", []):
            schema = parameter["schema"]
            if schema["type"] == "integer":
                assert "minimum" in schema, (route, parameter["name"])
            elif schema["type"] == "string":
                assert "minLength" in schema or "enum" in schema, (route, parameter["name"])


def test_what_is_answered_is_what_the_document_says(
    small_run: Path, client_of: Callable[..., Any], document: dict[str, Any]
) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST /v1/home", "/v1/home", {"json": {"user_id": "listener-03"}}),
        ("POST /v1/home", "/v1/home", {"json": {"user_id": ""}}),
        ("POST /v1/home", "/v1/home", {"content": b"{", "headers": {"content-type": "application/json"}}),
        ("POST /v1/home", "/v1/home", {"content": b"{}"}),
        ("POST /v1/home", "/v1/home", {"json": {"user_id": "u" * 2_000_000}}),
        ("POST /v1/models", "/v1/models", {"json": {"activate": "20200101T000000Z-01234567"}}),
        ("GET /v1/models", "/v1/models", {}),
        ("GET /v1/control", "/v1/control", {}),
        ("GET /v1/control", "/v1/control", {"headers": {"x-api-key": "wrong"}}),
        ("GET /v1/listeners/{user_id}", "/v1/listeners/nobody", {}),
        ("GET /v1/listeners/{user_id}", "/v1/listeners/listener-03", {}),
        ("DELETE /v1/takedowns/{item_id}", "/v1/takedowns/none", {}),
        ("GET /v1/decisions/{request_id}/why", "/v1/decisions/none/why?row=-1&column=0", {}),
        ("GET /health", "/health", {}),
    ]
    known = operations(document)
    with open_service(small_run, load_settings()) as service, client_of(service) as client:
        for route, path, given in calls:
            answer = client.request(route.split()[0], path, **given)
            told = known[route]["responses"][str(answer.status_code)]
            assert fits(answer.json(), told["content"][answer.headers["content-type"]]["schema"], document), route


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether a value is what a schema of `shape` says, or of a component by its fields."""
    if "$ref" in schema:
        component = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return set(component.get("required", ())) <= set(value) <= set(component["properties"])
    kinds = schema.get("type", [])
    if kinds == "object":
        inner = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(one, inner[name], document) for name, one in value.items() if name in inner
        )
    if kinds == "array":
        return isinstance(value, list) and all(fits(one, schema["items"], document) for one in value)
    types = {"boolean": bool, "string": str, "number": (int, float), "null": type(None)}
    return not kinds or any(isinstance(value, types[kind]) for kind in kinds)  # type: ignore[arg-type]


def test_a_shape_asks_for_fields_and_takes_more() -> None:
    made = shape({"a": [1], "b": None, "parameters": {"x": 1}})
    assert made["required"] == ["a", "b"]
    assert made["properties"]["a"] == {"type": "array", "items": {"type": ["number", "null"]}}
    assert made["properties"]["parameters"] == {"type": "object"}
