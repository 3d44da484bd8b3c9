"""What routes ask for: the service, a checked body, an administrator, a thread to work in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from api.http.access import Access
from api.service.recorder import MOST_WAITING
from api.service.service import HomeService
from api.wire.problems import ProblemError, busy, invalid
from api.wire.schemas import Wire

MAX_BODY_BYTES = 1 << 20
THREADS = 8  # enough to share a commit, few enough not to fight over the interpreter

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


async def _service(request: Request) -> HomeService:
    service: HomeService = request.app.state.service
    return service


# Dependencies are async: FastAPI sends others through a thread, which costs more than they do.
Service = Annotated[HomeService, Depends(_service)]


class Workers:
    """Threads in which requests are worked on, so that a slow disk does not keep others from being answered."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="bart")
        self._waiting = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of the work. Raises ProblemError (503) where too much waits already."""
        if self._waiting >= MOST_WAITING:
            raise busy(self._waiting)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Waits for what is being worked on."""
        self._pool.shutdown()


async def _workers(request: Request) -> Workers:
    workers: Workers = request.app.state.workers
    return workers


Threads = Annotated[Workers, Depends(_workers)]


async def read_body(request: Request, model: type[Body]) -> Body:
    """The body, checked. Raises ProblemError: 413, 415, 400 or 422.

    Only JSON by its content type: a page of another origin cannot send that without asking the service first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(415, "The body is not JSON", f"content-type is {kind!r}; expected application/json")
    size = 0
    parts = []
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise ProblemError(413, "The body is too large", f"expected {MAX_BODY_BYTES:,} bytes at most")
            parts.append(part)
    except ClientDisconnect:  # nobody hears this; the log of the service should not tell of a failure of its own
        raise ProblemError(400, "The client went away", "expected the whole body") from None
    try:
        return model.model_validate_json(b"".join(parts))
    except ValidationError as error:
        raise invalid(error) from None


async def _admin(request: Request) -> None:
    access: Access = request.app.state.access
    access.check(request, "admin")


Admin = Depends(_admin)


async def _open(request: Request) -> None:
    access: Access = request.app.state.access
    access.check_open(request)


Open = Depends(_open)


async def _keyed(request: Request) -> None:
    access: Access = request.app.state.access
    access.check(request, "feedback", always=True)


Keyed = Depends(_keyed)


def path_id(text: str, name: str) -> str:
    """An id from a path. Raises ProblemError for what can be none."""
    if not 1 <= len(text) <= 256 or any(ord(letter) < 32 for letter in text):
        raise ProblemError(
            422, "The request is not what was expected", f"{name}: expected 1 to 256 printable characters"
        )
    return text


def answer(document: Any, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(orjson.dumps(document, default=list), status_code=status, media_type="application/json")


def body_of(model: type[Wire]) -> dict[str, Any]:
    """What the OpenAPI document says of a body that the route reads itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
