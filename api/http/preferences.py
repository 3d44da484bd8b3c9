"""The routes of a listener's own wishes: for who answers for listeners, with a key always."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request, Response

from api.http.deps import Keyed, Service, Threads, answer, body_of, path_id, read_body
from api.run.clock import utc_now
from api.upkeep.preferences import preferences_document, put_preferences
from api.wire.schemas import PreferencesRequest


def add_preferences(app: FastAPI) -> None:
    """Adds the routes, before those of administrators, whose paths would take theirs for an id."""

    @app.get("/v1/listeners/{user_id:path}/preferences", summary="What a listener asks for", dependencies=[Keyed])
    async def get(user_id: str, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(preferences_document, service, path_id(user_id, "user_id")))
        return answer(found)

    @app.put(
        "/v1/listeners/{user_id:path}/preferences",
        summary="Change what a listener asks for",
        dependencies=[Keyed],
        openapi_extra=body_of(PreferencesRequest),
    )
    async def put(user_id: str, request: Request, service: Service, threads: Threads) -> Response:
        body = await read_body(request, PreferencesRequest)
        done = await threads.run(partial(put_preferences, service, path_id(user_id, "user_id"), body, utc_now()))
        return answer(done)
