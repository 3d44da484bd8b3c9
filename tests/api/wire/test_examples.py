"""The OpenAPI document has an example for every route, and they are what the service takes and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import api.wire.schemas as wire
from api.background.simulation import SimulationRequest
from api.run.settings import load_settings
from api.service.service import open_service
from api.upkeep.item_tables import ItemBody
from api.wire.examples import ANSWERS, OTHERS

ClientOf = Callable[..., Any]
SIMILAR = "GET /v1/listeners/{user_id}/similar"  # of a run with a user encoder: tests/api/users
RUNNING = ("/v1/operate", "/v1/simulation")  # documents of the web page, whose fields it alone reads


@pytest.fixture(scope="module")
def document(built_run: Path, client_of: ClientOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import shutil

    run = Path(shutil.copytree(built_run, tmp_path_factory.mktemp("examples") / "run", symlinks=True))
    with open_service(run, load_settings()) as service, client_of(service) as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def test_every_route_has_an_example_of_its_answer(document: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for path, found in document["paths"].items() for method in found}
    assert set(ANSWERS) | set(OTHERS) <= routes
    for route in routes:
        method, path = route.split(" ")
        if path.startswith(RUNNING):
            continue
        answers = document["paths"][path][method.lower()]["responses"]
        content = next(answer["content"] for status, answer in answers.items() if status.startswith("2"))
        assert all("example" in one for one in content.values()), route


def test_every_body_has_an_example_that_is_taken(document: dict[str, Any]) -> None:
    models: dict[str, Any] = {**vars(wire), "ItemBody": ItemBody, "SimulationRequest": SimulationRequest}
    bodies = 0
    for found in document["paths"].values():
        for operation in found.values():
            if "requestBody" not in operation:
                continue
            bodies += 1
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            examples = document["components"]["schemas"][name]["examples"]
            assert examples
            for example in examples:
                models[name].model_validate(example, strict=False)
    assert bodies >= 8


def shape(value: Any) -> Any:
    """Names of fields, at every depth; of a list its first entry stands for all."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in sorted(value.items())}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape(value[0])]
    return None


def test_examples_have_the_fields_of_real_answers(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, load_settings()) as service, client_of(service) as client:
        item = service.run.items.item_id[0]

        def answer(route: str, path: str = "", **options: Any) -> Any:
            method, pattern = route.split(" ")
            found = client.request(method, path or pattern, **options)
            assert found.status_code < 300, (route, found.text)
            told = found.json()
            return told, shape(told), shape(ANSWERS[route])

        page, told, expected = answer("POST /v1/home", json={"user_id": "listener-03"})
        # Parameters of a shelf are those of its rule.
        told["shelves"][0]["parameters"] = expected["shelves"][0]["parameters"] = None
        assert told == expected
        shelves = [{"title": "Mine", "items": [item, "nothing"]}]
        _, told, expected = answer("POST /v1/rank", json={"user_id": "listener-03", "shelves": shelves})
        assert told == expected
        events = [{"event_id": "1", "row": 40, "column": 0}]
        asked = {"request_id": page["request_id"], "events": events}
        _, told, expected = answer("POST /v1/feedback", json=asked)
        assert told == expected
        request_id = page["request_id"]
        simple: dict[str, tuple[str, dict[str, Any]]] = {
            "GET /v1/decisions/{request_id}": (f"/v1/decisions/{request_id}", {}),
            "GET /v1/decisions/{request_id}/why": (f"/v1/decisions/{request_id}/why?row=0&column=0", {}),
            "POST /v1/sessions": (
                "/v1/sessions",
                {"json": {"user_id": "u", "session_id": "s", "final": False, "plays": [{"item_id": item}]}},
            ),
            "GET /v1/items": ("", {}),
            "GET /v1/items/{item_id}": (f"/v1/items/{page['shelves'][0]['cards'][0]['item_id']}", {}),
            "GET /v1/listeners": ("", {}),
            "GET /v1/listeners/{user_id}/profile": ("/v1/listeners/listener-03/profile", {}),
            "GET /v1/listeners/{user_id}": ("/v1/listeners/listener-03", {}),
            "GET /v1/listeners/{user_id}/preferences": ("/v1/listeners/listener-03/preferences", {}),
            "PUT /v1/listeners/{user_id}/preferences": (
                "/v1/listeners/listener-03/preferences",
                {"json": {"blocked_artists": ["Artist 1"]}},
            ),
            "PUT /v1/items/{item_id}": ("/v1/items/new", {"json": {"title": "New"}}),
            "DELETE /v1/items/{item_id}": (f"/v1/items/{item}", {}),
            "DELETE /v1/takedowns/{item_id}": (f"/v1/takedowns/{item}", {}),
            "GET /v1/models": ("", {}),
            "POST /v1/control": ("/v1/control", {"json": {"switch": "explore", "state": "on"}}),
            "GET /v1/control": ("", {}),
            "GET /v1/onboarding": ("", {}),
            "GET /health": ("", {}),
            "GET /ready": ("", {}),
            "DELETE /v1/listeners/{user_id}": ("/v1/listeners/listener-03", {}),
        }
        for route, (path, options) in simple.items():
            _, told, expected = answer(route, path, **options)
            for document in (told, expected):  # groups of features are the model's own
                document.pop("contributions", None)
                for held in ("holders", "members"):  # of containers, which this run does not have
                    document.pop(held, None)
                document.get("held_by", {}).pop("dropped_by", None) if document.get("held_by") else None
                for shelf in (*(document.get("page") or ()), *(document.get("greedy") or ())):
                    shelf["cards"][0].pop("contributions", None)
            assert told == expected, route
        others = {"POST /v1/home", "POST /v1/rank", "POST /v1/feedback", "POST /v1/models", SIMILAR}
        assert set(simple) | others == set(ANSWERS)
