"""The routes of administrators: what is kept of a listener, items, bundles, switches."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from api.http.deps import Admin, Service, Threads, read_body
from api.run.clock import utc_now
from api.run.versions import Versions
from api.service.service import HomeService
from api.upkeep.item_updates import ItemBody, delete_item, put_item
from api.upkeep.listener_admin import erase_listener, listener_document
from api.wire.problems import ProblemError
from api.wire.schemas import ControlRequest, ModelRequest, Wire
from bart.errors import BundleError


def _id(text: str, name: str) -> str:
    """An id from a path. Raises ProblemError for what can be none."""
    if not 1 <= len(text) <= 256 or any(ord(letter) < 32 for letter in text):
        raise ProblemError(
            422, "The request is not what was expected", f"{name}: expected 1 to 256 printable characters"
        )
    return text


def _body(model: type[Wire]) -> dict[str, Any]:
    """What the OpenAPI document says of a body that the route reads itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def add_admin(app: FastAPI) -> None:
    """Adds the routes; every one asks for an administrator."""

    @app.get("/v1/listeners/{user_id:path}", summary="What is kept of one listener", dependencies=[Admin])
    async def listener(user_id: str, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(listener_document, service, _id(user_id, "user_id")))
        if found is None:
            raise ProblemError(404, "Not found", f"no listener {user_id!r:.80} is known")
        return _json(found)

    @app.delete("/v1/listeners/{user_id:path}", summary="Erase a listener, with a receipt", dependencies=[Admin])
    async def erase(user_id: str, service: Service, threads: Threads) -> Response:
        return _json(await threads.run(partial(erase_listener, service, _id(user_id, "user_id"), utc_now())))

    @app.put(
        "/v1/items/{item_id:path}",
        summary="Add or change an item",
        dependencies=[Admin],
        status_code=202,
        openapi_extra=_body(ItemBody),
    )
    async def put(item_id: str, request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ItemBody)
        return _json(await threads.run(partial(put_item, service, _id(item_id, "item_id"), body, utc_now())), 202)

    @app.delete("/v1/items/{item_id:path}", summary="Take an item down", dependencies=[Admin])
    async def take_down(item_id: str, service: Service, threads: Threads) -> Response:
        return _json(await threads.run(partial(delete_item, service, _id(item_id, "item_id"), utc_now())))

    @app.get("/v1/models", summary="The bundles of the run", dependencies=[Admin])
    async def models(service: Service, threads: Threads) -> Response:
        return _json(await threads.run(partial(_models, service)))

    @app.post(
        "/v1/models",
        summary="Activate a bundle by name, or roll back",
        dependencies=[Admin],
        openapi_extra=_body(ModelRequest),
    )
    async def model(request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ModelRequest)
        return _json(await threads.run(partial(_change_model, service, body)))

    @app.get("/v1/control", summary="The switches and their history", dependencies=[Admin])
    async def control(service: Service, threads: Threads) -> Response:
        return _json(await threads.run(partial(control_document, service)))

    @app.post("/v1/control", summary="Throw a switch", dependencies=[Admin], openapi_extra=_body(ControlRequest))
    async def switch(request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ControlRequest)
        await threads.run(partial(service.control.switch, body.switch, body.state, utc_now(), body.why))
        return _json(await threads.run(partial(control_document, service)))


def control_document(service: HomeService) -> dict[str, Any]:
    """The switches as they are stored, how many items are taken down, and what was done."""
    controls = service.control.read()
    return {
        "explore": "on" if controls.explore else "off",
        "learning": "on" if controls.learning else "off",
        "fallback": "on" if controls.fallback else "off",
        "taken_down": len(controls.taken_down),
        "history": service.control.history(),
    }


def _models(service: HomeService) -> dict[str, Any]:
    versions = Versions(service.run.paths.root)
    return {"active": versions.active(), "before": versions.before(), "bundles": versions.list()}


def _change_model(service: HomeService, body: ModelRequest) -> dict[str, Any]:
    """Raises ProblemError (409) where the bundle is unknown, altered or refused by its gate."""
    versions = Versions(service.run.paths.root)
    try:
        done = versions.rollback(body.why) if body.rollback else versions.activate(str(body.activate), body.why)
    except BundleError as error:
        raise ProblemError(409, "The bundle cannot be activated", str(error)) from None
    service.control.note(f"{done.kind} {done.name}", utc_now(), body.why)
    return {"active": done.name, "previous": done.previous}


def _json(document: Any, status: int = 200) -> Response:
    body = orjson.dumps(document, default=list)
    return Response(body, status_code=status, media_type="application/json")
