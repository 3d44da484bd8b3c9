"""One line of JSON a request, on standard error: what was asked, by whom, how it went, how long it took.

A route is told by its pattern: paths hold ids. Bodies, keys and query strings are never written. User ids are hashed
with the run's own key unless the settings say otherwise: lines of one user can be told apart and joined with nothing
outside the run.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.wire.facts import FACTS

UNKNOWN = "none"  # no route has this path and method


class RequestLog:
    """Writes a line for each request to an application. hash_users: whether ids are hidden."""

    def __init__(self, app: ASGIApp, hash_users: bool) -> None:
        self._app, self._hash_users = app, hash_users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        facts: dict[str, str] = {}
        scope[FACTS] = facts
        status = 500  # where nothing was answered, the layer around this one answers that

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        except Exception as error:
            facts["error"] = type(error).__name__
            raise
        finally:
            self._write(scope, status, 1e3 * (time.perf_counter() - started_s), facts)

    def _write(self, scope: Scope, status: int, took_ms: float, facts: dict[str, str]) -> None:
        line: dict[str, Any] = {
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "method": scope["method"],
            "route": facts.get("route") or getattr(scope.get("route"), "path", scope.get("root_path") or UNKNOWN),
            "status": status,
            "ms": round(took_ms, 3),
            "caller": facts.get("caller", ""),
        }
        user_id = facts.get("user_id") or scope.get("path_params", {}).get("user_id")
        if user_id:
            line["user"] = self._name(user_id, scope["app"].state.service.key)
        if "error" in facts:
            line["error"] = facts["error"]
        print(orjson.dumps(line).decode(), file=sys.stderr, flush=True)

    def _name(self, user_id: str, key: bytes) -> str:
        if not self._hash_users:
            return user_id
        return blake2b(user_id.encode(errors="surrogatepass"), key=key, digest_size=8).hexdigest()
