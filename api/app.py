"""The HTTP service: thin routes over `HomeService`, errors as RFC 9457 problem documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from api.deps import Service
from api.schemas import FeedbackRequest, HomeRequest, Problem
from api.service import HomeService
from bart.errors import LogError

WEB = Path(__file__).parent / "web"
# No request leaves the page's own origin, and nothing but our own files runs.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(service: HomeService) -> FastAPI:
    """The application for one opened run."""
    app = FastAPI(
        title="bart",
        version="0.1.0",
        summary="Home pages decided with exact propensities",
        responses={422: {"model": Problem}, 503: {"model": Problem}},
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(LogError, _log_error)

    @app.post("/v1/home", summary="Decide a home page")
    def home(request: HomeRequest, service: Service) -> Response:
        return _json(service.home(request))

    @app.post("/v1/feedback", status_code=202, summary="Report what was seen and heard")
    def feedback(request: FeedbackRequest, service: Service) -> Response:
        result = service.feedback(request)
        rejected = [{"event_id": r.event_id, "reason": r.reason} for r in result.rejected]
        return _json({"accepted": len(request.events) - len(rejected), "rejected": rejected}, 202)

    @app.get("/v1/listeners", summary="Known listeners, for the page's switcher")
    def listeners(service: Service) -> Response:
        return _json({"listeners": service.listeners()})

    @app.get("/health", summary="Whether the process answers")
    def health(service: Service) -> Response:
        run = service.run
        return _json({"status": "ok", "batch_id": run.bundle.batch_id, "model_id": run.bundle.model_id})

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(WEB / "index.html", media_type="text/html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=WEB / "static"), name="static")
    return app


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def _problem(status: int, title: str, detail: str) -> Response:
    body = Problem(title=title, status=status, detail=detail).model_dump_json()
    return Response(body, status_code=status, media_type="application/problem+json")


def _invalid(_: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    place = ".".join(str(part) for part in found["loc"] if part != "body") or "body"
    return _problem(422, "The request is not what was expected", f"{place}: {found['msg']}")


def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _problem(500, "The service failed", "see the log of the service")
    return _problem(error.status_code, str(error.detail), str(error.detail))


def _log_error(_: Request, error: Exception) -> Response:
    return _problem(503, "The decision log cannot be written", str(error))
