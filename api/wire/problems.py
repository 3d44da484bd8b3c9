"""Errors as the client sees them: RFC 9457 problem documents, one shape for all."""

from __future__ import annotations

import errno
import logging
import re
import sqlite3
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api.wire.facts import note
from api.wire.schemas import Problem
from bart.errors import BartError, BundleError, LogError, StoreError

logger = logging.getLogger("bart.api")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = "1"
_FILE = re.compile(r"[\w-]+\.(sqlite|jsonl|json)\b")
# What a disk or the system says when it is full, broken or read-only, or has no descriptors left: it may pass.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class ProblemError(Exception):
    """A request that cannot be answered, and what to tell the client."""

    def __init__(self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers = status, title, detail, dict(headers or {})


def problem(
    request: Request, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The response for one problem."""
    note(request.scope, error=title)
    body = Problem(title=title, status=status, detail=detail).model_dump_json()
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def invalid(error: ValidationError) -> ProblemError:
    """What is wrong with a body that is not what its schema says: the first place, and how many there are."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return ProblemError(400, "The body is not JSON", found[0]["msg"])
    place = ".".join(str(part) for part in found[0]["loc"]) or "body"
    text = found[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ProblemError(422, "The request is not what was expected", f"{place}: {text}{more}")


def busy(waiting: int) -> ProblemError:
    """What is told where so many requests wait that one more would wait longer than its client does."""
    detail = f"{waiting} requests are waiting; try again"
    return ProblemError(503, "The service is busy", detail, {"Retry-After": RETRY_AFTER_S})


def add_problem_handlers(app: FastAPI) -> None:
    """Turns every error of the application into a problem document."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _unexpected)


def told_of(request: Request, error: Exception) -> Response | None:
    """The problem document for an error; None for one that nobody expects."""
    handler = next((_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS), None)
    return None if handler is None or not _is_expected(error) else handler(request, error)


def _is_expected(error: Exception) -> bool:
    return isinstance(error, BartError) or not isinstance(error, OSError) or error.errno in _PASSING


def _asked(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        return _unexpected(request, error)
    return problem(request, error.status, error.title, error.detail, error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _unexpected(request, error)
    title = str(error.detail)
    detail = f"{request.method} {request.url.path}: {title.lower()}"
    return problem(request, error.status_code, title, detail, error.headers)


def _parameter_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _unexpected(request, error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or "request"  # after where it stands: query, path
    return problem(request, 422, "The request is not what was expected", f"{place}: {first['msg']}")


def _store_error(request: Request, error: Exception) -> Response:
    # The text may name folders of this machine: it goes to the log of the service, and only the file to the client.
    logger.error("a store cannot be read or written: %s", error)
    named = _FILE.search(str(error))
    what = named[0] if named else "a file of the service"
    detail = f"{what} cannot be read or written at the moment; nothing was recorded, try again"
    return problem(request, 503, "The service cannot record", detail, {"Retry-After": RETRY_AFTER_S})


def _system_error(request: Request, error: Exception) -> Response:
    if not _is_expected(error):
        raise error
    return _store_error(request, error)


def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return problem(request, 500, "The service failed", "see the log of the service")


_HANDLERS: dict[type, Callable[[Request, Exception], Response]] = {
    ProblemError: _asked,
    HTTPException: _http_error,
    RequestValidationError: _parameter_error,
    LogError: _store_error,
    StoreError: _store_error,
    BundleError: _store_error,
    sqlite3.Error: _store_error,
    OSError: _system_error,
}
