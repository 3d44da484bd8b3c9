"""The routes that take a body, as a table that answers before FastAPI looks at a request: its router, its handling of
bodies and its dependencies would cost a good part of what deciding a page does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI, Request, Response
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from api.http.access import Scope
from api.http.deps import read_body
from api.http.host_names import is_loopback
from api.service.service import HomeService
from api.wire.facts import note
from api.wire.problems import ProblemError, told_of
from api.wire.schemas import FeedbackRequest, HomeRequest, RankRequest, SessionRequest, VisitFields, Wire

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Post:
    """One route. answer: of the application's state, the service and the body, the JSON to answer."""

    path: str
    body: type[Wire]
    summary: str
    answer: Callable[..., Awaitable[bytes]]
    status: int = 200
    scope: Scope = "page"


def _in_thread(work: Callable[..., bytes]) -> Callable[..., Awaitable[bytes]]:
    """The answer that a function of service and body makes in a thread, where it may wait for the disk."""

    async def answer(state: State, service: HomeService, body: Wire, **options: Any) -> bytes:
        made: bytes = await state.workers.run(partial(work, service, body, **options))
        return made

    return answer


async def _home(state: State, service: HomeService, body: HomeRequest, **options: Any) -> bytes:
    return await service.home_soon(body, state.recorder, state.workers.run, **options)


def _feedback(service: HomeService, body: FeedbackRequest) -> bytes:
    return orjson.dumps(service.feedback(body))


def _session(service: HomeService, body: SessionRequest) -> bytes:
    return orjson.dumps(service.session(body))


POSTS = (
    Post("/v1/home", HomeRequest, "Decide a home page", _home),
    Post("/v1/feedback", FeedbackRequest, "Report what was seen and heard", _in_thread(_feedback), 202, "feedback"),
    Post("/v1/rank", RankRequest, "Decide a page of shelves that the caller brings", _in_thread(HomeService.rank)),
    Post(
        "/v1/sessions",
        SessionRequest,
        "Report a listening session, running or over",
        _in_thread(_session),
        202,
        "feedback",
    ),
)


def add_posts(app: FastAPI) -> None:
    """Adds the routes of the table, as innermost of the middleware that is there by then."""
    endpoints = {post.path: _endpoint(post) for post in POSTS}
    for path, endpoint in endpoints.items():
        app.add_route(path, endpoint, methods=["POST"])  # for the methods that these paths do not take
    app.add_middleware(_Posts, endpoints=endpoints)


class _Posts:
    """Answers what is posted to the routes of the table, and leaves everything else to the application."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint]) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._endpoints.get(scope["path"]) if posted else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except Exception as error:
            told = told_of(request, error)
            if told is None:
                raise
            response = told
        await response(scope, receive, send)


def _endpoint(post: Post) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        state = request.app.state
        note(request.scope, route=post.path)
        state.access.check(request, post.scope)
        body = await read_body(request, post.body)
        # One service from here on, while another may take its place; not before the body, which may come slowly.
        service: HomeService = state.service
        service.files.check()
        if isinstance(body, (VisitFields, SessionRequest)):
            note(request.scope, user_id=body.user_id)
        if isinstance(body, VisitFields) and body.by_hand:
            state.access.allow(request, "admin")
        options = {}
        if request.scope["query_string"] and _asks_debug(request):
            _may_debug(request, service, post)
            options["debug"] = True
        answer = await post.answer(state, service, body, **options)
        return Response(answer, status_code=post.status, media_type="application/json")

    return endpoint


def _asks_debug(request: Request) -> bool:
    """Raises ProblemError for a value that is neither true nor false."""
    given = request.query_params.get("debug", "false")
    if given not in ("true", "false"):
        raise ProblemError(422, "The request is not what was expected", "debug: expected true or false")
    return given == "true"


def _may_debug(request: Request, service: HomeService, post: Post) -> None:
    """Raises ProblemError unless this is a page, asked for by an administrator, where debugging is on."""
    if not issubclass(post.body, VisitFields):
        raise ProblemError(422, "The request is not what was expected", "debug: expected with a page only")
    asked = service.settings.serve
    if not (is_loopback(asked.host) if asked.debug is None else asked.debug):
        raise ProblemError(403, "Debugging is off", "expected serve.debug = true where the service is open to others")
    request.app.state.access.allow(request, "admin")


_DEBUG = {
    "name": "debug",
    "in": "query",
    "description": "administrators only: add scores and propensities to the page",
    "schema": {"type": "boolean", "default": False},
}


def describe_posts(document: dict[str, Any]) -> None:
    """Adds the routes to an OpenAPI document."""
    for post in POSTS:
        document["paths"][post.path] = {
            "post": {
                "summary": post.summary,
                "operationId": post.path.strip("/").replace("/", "_"),
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{post.body.__name__}"}}},
                },
                **({"parameters": [_DEBUG]} if issubclass(post.body, VisitFields) else {}),
                "responses": {str(post.status): {"description": "Done", "content": {"application/json": {}}}},
            }
        }
