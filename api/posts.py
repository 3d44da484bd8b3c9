"""The routes that take a body, as a table: plain Starlette endpoints, since FastAPI's own handling of bodies and
dependencies costs more than deciding which cards to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from api.deps import Workers, read_body, require_admin
from api.schemas import FeedbackRequest, HomeRequest, RankRequest, SessionRequest, VisitFields, Wire
from api.service import HomeService, now


@dataclass(frozen=True, slots=True)
class Post:
    """One route. work: makes the JSON of the answer, in a thread of its own."""

    path: str
    body: type[Wire]
    summary: str
    work: Callable[[HomeService, Any], bytes]
    status: int = 200


def _feedback(service: HomeService, body: FeedbackRequest) -> bytes:
    return orjson.dumps(service.feedback(body))


def _session(service: HomeService, body: SessionRequest) -> bytes:
    return orjson.dumps(service.listening.report(body, now()))


POSTS = (
    Post("/v1/home", HomeRequest, "Decide a home page", HomeService.home),
    Post("/v1/feedback", FeedbackRequest, "Report what was seen and heard", _feedback, 202),
    Post("/v1/rank", RankRequest, "Decide a page of shelves that the caller brings", HomeService.rank),
    Post("/v1/sessions", SessionRequest, "Report a listening session, running or over", _session, 202),
)


def add_posts(app: FastAPI) -> None:
    """Adds the routes of the table."""
    for post in POSTS:
        app.add_route(post.path, _endpoint(post), methods=["POST"])


def _endpoint(post: Post) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        service: HomeService = request.app.state.service
        workers: Workers = request.app.state.workers
        body = await read_body(request, post.body)
        if isinstance(body, VisitFields) and body.forced:
            require_admin(request, service.settings.serve.admin_key)
        answer = await workers.run(partial(post.work, service, body))
        return Response(answer, status_code=post.status, media_type="application/json")

    return endpoint


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
                "responses": {str(post.status): {"description": "Done", "content": {"application/json": {}}}},
            }
        }
