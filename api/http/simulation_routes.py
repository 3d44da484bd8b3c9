"""The routes behind the simulation page: start one, follow it by server-sent events, cancel it, fetch its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from api.background.jobs import Job
from api.background.simulation import SimulationRequest
from api.http.deps import Admin, Threads, Workers, answer, read_body
from api.wire.problems import ProblemError

LOOK_S = 0.2
STREAM_S = 8.0  # of one stream; the client asks again from where it was, so that no stop of the service waits for it
RESULTS = {
    "loop.json": "application/json",
    "loop.svg": "image/svg+xml",
    "loop.parquet": "application/vnd.apache.parquet",
}
# Matplotlib styles its drawings inline.
SVG_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"


def add_simulation(app: FastAPI) -> None:
    """Adds the routes; every one asks for an administrator."""

    @app.get("/v1/simulation", summary="The simulation that runs, or the last one", dependencies=[Admin])
    async def state(request: Request, threads: Threads) -> Response:
        return answer(await threads.run(_job(request).state))

    @app.post(
        "/v1/simulation",
        summary="Start a simulation, one at a time",
        dependencies=[Admin],
        status_code=202,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SimulationRequest"}}},
            }
        },
    )
    async def start(request: Request, threads: Threads) -> Response:
        body = await read_body(request, SimulationRequest)
        if not await threads.run(partial(_job(request).start, body.model_dump())):
            raise ProblemError(409, "A simulation runs already", "one runs at a time; wait for it, or cancel it")
        return answer(await threads.run(_job(request).state), 202)

    @app.delete("/v1/simulation", summary="Cancel the simulation that runs", dependencies=[Admin])
    async def cancel(request: Request, threads: Threads) -> Response:
        if not await threads.run(_job(request).cancel):
            raise ProblemError(409, "No simulation runs", "there is nothing to cancel")
        return answer(await threads.run(_job(request).state))

    @app.get("/v1/simulation/events", summary="What the simulation tells, as it does", dependencies=[Admin])
    async def events(request: Request, threads: Threads, since: Annotated[int, Query(ge=0)] = 0) -> Response:
        return StreamingResponse(_stream(_job(request), threads, since), media_type="text/event-stream")

    @app.get("/v1/simulation/{name}", summary="A file of the last simulation", dependencies=[Admin])
    async def result(name: str, request: Request) -> Response:
        path = _job(request).result / name
        if name not in RESULTS or not path.is_file():
            raise ProblemError(404, "Not found", f"there is no {name!r:.40}; expected {', '.join(RESULTS)} of one done")
        return FileResponse(path, media_type=RESULTS[name], headers={"Content-Security-Policy": SVG_POLICY})


async def _stream(job: Job, threads: Workers, since: int) -> AsyncIterator[bytes]:
    """Events from number `since` on, each with its number as id; ends with the job, or after `STREAM_S`."""
    until = time.monotonic() + STREAM_S
    while True:
        state = await threads.run(job.state)
        for number, event in enumerate(state["events"][since:], start=since):
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, event["kind"].encode(), orjson.dumps(event))
        since = max(since, len(state["events"]))
        if not state["running"]:
            ended = state["ended"] or {"kind": "idle"}
            yield b"event: end\ndata: %s\n\n" % orjson.dumps(ended)
            return
        if time.monotonic() >= until:
            return
        await asyncio.sleep(LOOK_S)


def _job(request: Request) -> Job:
    job: Job = request.app.state.jobs["simulation"]
    return job
