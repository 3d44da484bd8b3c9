"""The routes that take a body, as a table: plain Starlette endpoints, since FastAPI's own handling of bodies and
dependencies costs more than deciding which cards to show."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from api.access import Scope
from api.deps import read_body
from api.loopback import is_loopback
from api.problems import ProblemError
from api.request_log import RequestLog
from api.schemas import FeedbackRequest, HomeRequest, RankRequest, SessionRequest, VisitFields, Wire
from api.service import HomeService, now


@dataclass(frozen=True, slots=True)
class Post:
    """One route. work: makes the JSON of the answer, in a thread of its own."""

    path: str
    body: type[Wire]
    summary: str
    work: Callable[..., bytes]
    status: int = 200
    scope: Scope = "page"


def _feedback(service: HomeService, body: FeedbackRequest) -> bytes:
    return orjson.dumps(service.feedback(body))


def _session(service: HomeService, body: SessionRequest) -> bytes:
    return orjson.dumps(service.listening.report(body, now()))


POSTS = (
    Post("/v1/home", HomeRequest, "Decide a home page", HomeService.home),
    Post("/v1/feedback", FeedbackRequest, "Report what was seen and heard", _feedback, 202, "feedback"),
    Post("/v1/rank", RankRequest, "Decide a page of shelves that the caller brings", HomeService.rank),
    Post("/v1/sessions", SessionRequest, "Report a listening session, running or over", _session, 202, "feedback"),
)


def add_posts(app: FastAPI) -> None:
    """Adds the routes of the table."""
    for post in POSTS:
        app.add_route(post.path, _endpoint(post), methods=["POST"])


def _endpoint(post: Post) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        state = request.app.state
        service: HomeService = state.service
        written = service.settings.serve.request_log
        started_s = time.perf_counter() if written else 0.0
        body, caller = None, ""
        try:
            caller = state.access.check(request, post.scope)
            body = await read_body(request, post.body)
            if isinstance(body, VisitFields) and body.by_hand:
                state.access.check(request, "admin")
            work = partial(post.work, service, body)
            if request.scope["query_string"] and _asks_debug(request):
                _may_debug(request, service, post)
                work = partial(work, debug=True)
            answer = await state.workers.run(work)
        except Exception as error:
            if written:
                told = error if isinstance(error, ProblemError) else None
                status, title = (told.status, told.title) if told else (500, type(error).__name__)
                _log(service).write(post.path, status, started_s, caller, getattr(body, "user_id", None), title)
            raise
        if written:
            _log(service).write(post.path, post.status, started_s, caller, getattr(body, "user_id", None))
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
    request.app.state.access.check(request, "admin")


def _log(service: HomeService) -> RequestLog:
    return RequestLog(service.key, service.settings.serve.hash_users)


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
