"""The routes of administrators: what is kept of a listener, items, bundles, switches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response

from api.http.deps import Admin, Service, Threads, Workers, answer, body_of, path_id, read_body
from api.run.clock import utc_now
from api.run.versions import Versions
from api.service.service import HomeService
from api.upkeep.item_tables import ItemBody
from api.upkeep.item_updates import delete_item, put_item
from api.upkeep.listener_admin import erase_listener, listener_document
from api.upkeep.presence import Held, taken_up
from api.wire.problems import ProblemError
from api.wire.schemas import ControlRequest, ModelRequest
from bart.errors import BartError

SWITCH_WITHIN_S = 5.0  # promised of switches and takedowns
BUNDLE_WITHIN_S = 60.0  # a large bundle takes seconds to open


def add_admin(app: FastAPI) -> None:
    """Adds the routes; every one asks for an administrator."""

    @app.get("/v1/listeners/{user_id:path}", summary="What is kept of one listener", dependencies=[Admin])
    async def listener(user_id: str, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(listener_document, service, path_id(user_id, "user_id")))
        if found is None:
            raise ProblemError(404, "Not found", f"no listener {user_id!r:.80} is known")
        return answer(found)

    @app.delete("/v1/listeners/{user_id:path}", summary="Erase a listener, with a receipt", dependencies=[Admin])
    async def erase(user_id: str, service: Service, threads: Threads) -> Response:
        return answer(await threads.run(partial(erase_listener, service, path_id(user_id, "user_id"), utc_now())))

    @app.put(
        "/v1/items/{item_id:path}",
        summary="Add or change an item",
        dependencies=[Admin],
        status_code=202,
        openapi_extra=body_of(ItemBody),
    )
    async def put(item_id: str, request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ItemBody)
        return answer(await threads.run(partial(put_item, service, path_id(item_id, "item_id"), body, utc_now())), 202)

    @app.delete("/v1/items/{item_id:path}", summary="Take an item down", dependencies=[Admin])
    async def take_down(item_id: str, request: Request, service: Service, threads: Threads) -> Response:
        done = await threads.run(partial(delete_item, service, path_id(item_id, "item_id"), utc_now()))
        return answer({**done, "workers": await switched(request, service, threads)})

    @app.get("/v1/models", summary="The bundles of the run", dependencies=[Admin])
    async def models(service: Service, threads: Threads) -> Response:
        return answer(await threads.run(partial(_models, service)))

    @app.post(
        "/v1/models",
        summary="Activate a bundle by name, or roll back",
        dependencies=[Admin],
        openapi_extra=body_of(ModelRequest),
    )
    async def model(request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ModelRequest)
        done = await threads.run(partial(_change_model, service, body))
        holds = partial(_serves, name=done["active"])
        return answer({**done, "workers": await everywhere(request, service, holds, BUNDLE_WITHIN_S)})

    @app.get("/v1/control", summary="The switches and their history", dependencies=[Admin])
    async def control(service: Service, threads: Threads) -> Response:
        return answer(await threads.run(partial(control_document, service)))

    @app.post("/v1/control", summary="Throw a switch", dependencies=[Admin], openapi_extra=body_of(ControlRequest))
    async def switch(request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, ControlRequest)
        await threads.run(partial(service.control.switch, body.switch, body.state, utc_now(), body.why))
        workers = await switched(request, service, threads)
        return answer({**await threads.run(partial(control_document, service)), "workers": workers})


async def switched(request: Request, service: HomeService, threads: Workers) -> dict[str, int]:
    """How many workers heed the latest change of switches and takedowns. Raises ProblemError (504) as `everywhere`."""
    changes = await threads.run(service.control.changes)
    return await everywhere(request, service, lambda held: held.changes >= changes, SWITCH_WITHIN_S)


async def everywhere(
    request: Request, service: HomeService, holds: Callable[[Held], bool], within_s: float
) -> dict[str, int]:
    """How many workers serve, and how many took a change up: all. Raises ProblemError (504) where one is late."""
    request.app.state.watcher.loop.wake()
    serving, done = await taken_up(service.run.paths.root, holds, within_s)
    if done < max(serving, 1):
        detail = f"it is stored; {done} of {serving} workers took it up within {within_s:g} s; see /ready and the log"
        raise ProblemError(504, "Not taken up everywhere", detail)
    return {"serving": serving, "took_up": done}


def _serves(held: Held, name: str) -> bool:
    return held.bundle == name


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
    return {
        "active": versions.active(),
        "before": versions.before(),
        "bundles": versions.list(),
        "damaged": versions.damaged(),
    }


def _change_model(service: HomeService, body: ModelRequest) -> dict[str, Any]:
    """Raises ProblemError (409) where the bundle is unknown, altered, refused by its gate, or cannot serve: it is
    opened first, as each worker will."""
    versions = Versions(service.run.paths.root)
    try:
        name = versions.before() if body.rollback else str(body.activate)
        if name is not None:
            service.try_bundle(versions.path(name))
        done = versions.rollback(body.why) if body.rollback else versions.activate(str(body.activate), body.why)
    except Exception as error:  # whatever it would make of a worker
        told = str(error) if isinstance(error, BartError) else f"it cannot serve: {type(error).__name__}: {error}"
        raise ProblemError(409, "The bundle cannot be activated", told) from error
    service.control.note(f"{done.kind} {done.name}", utc_now(), body.why)
    return {"active": done.name, "previous": done.previous}
