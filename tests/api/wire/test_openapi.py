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
from benchmarks.served.document import Document


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
        ("GET /v1/items", "/v1/items?q=item&type=track", {}),
        ("GET /v1/items", "/v1/items?type=song", {}),
        ("GET /v1/items/{item_id}", "/v1/items/item-07", {}),
        ("GET /v1/items/{item_id}", "/v1/items/none", {}),
        ("GET /v1/listeners", "/v1/listeners?prefix=listener-0&limit=3", {}),
        ("GET /v1/listeners", "/v1/listeners?limit=0", {}),
        ("GET /v1/listeners/{user_id}/profile", "/v1/listeners/listener-03/profile", {}),
        ("GET /v1/listeners/{user_id}/profile", "/v1/listeners/nobody/profile", {}),
        ("GET /v1/listeners/{user_id}", "/v1/listeners/nobody", {}),
        ("GET /v1/listeners/{user_id}", "/v1/listeners/listener-03", {}),
        ("DELETE /v1/takedowns/{item_id}", "/v1/takedowns/none", {}),
        ("GET /v1/decisions/{request_id}/why", "/v1/decisions/none/why?row=-1&column=0", {}),
        ("GET /health", "/health", {}),
    ]
    with open_service(small_run, load_settings()) as service, client_of(service) as client:
        for route, path, given in calls:
            answer = client.request(route.split()[0], path, **given)
            assert against(document, route, answer) == ""


def against(document: dict[str, Any], route: str, answer: Any) -> str:
    """What of an answer to a call is not as the document says."""
    known = Document(document)
    operation = next(one for one in known.operations if f"{one.method} {one.path}" == route)
    return known.against(operation, answer.status_code, answer.headers["content-type"], answer.content)


def test_a_listener_without_a_state_is_answered_as_the_document_says(
    small_run: Path, client_of: Callable[..., Any], document: dict[str, Any]
) -> None:
    with open_service(small_run, load_settings()) as service, client_of(service) as client:
        assert client.post("/v1/home", json={"user_id": "never heard of"}).is_success
        answer = client.get("/v1/listeners/never heard of")
    assert answer.json()["state"] is None
    assert against(document, "GET /v1/listeners/{user_id}", answer) == ""


def test_what_the_document_does_not_say_is_told(document: dict[str, Any]) -> None:
    known = Document(document)
    health = next(one for one in known.operations if one.path == "/health")
    assert known.against(health, 200, "application/json", b'{"status":"ok","batch_id":"a","model_id":"b"}') == ""
    assert "not declared" in known.against(health, 418, "application/json", b"{}")
    assert "text/plain" in known.against(health, 200, "text/plain", b"ok")
    assert "model_id" in known.against(health, 200, "application/json", b'{"status":"ok","batch_id":"a"}')
    assert known.against(None, 200, "application/json", b"{}") != ""


def test_a_shape_asks_for_fields_and_takes_more() -> None:
    made = shape({"a": [1], "b": None, "parameters": {"x": 1}})
    assert made["required"] == ["a", "b"]
    assert made["properties"]["a"] == {"type": "array", "items": {"type": ["number", "null"]}}
    assert made["properties"]["parameters"] == {"type": "object"}
