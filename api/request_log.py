"""One line of JSON a request, on standard error: what was asked, by whom, how it went, how long it took.

Bodies, keys and query strings are never written. User ids are hashed with the run's own key unless the settings say
otherwise: lines of one user can be told apart and joined with nothing outside the run.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from hashlib import blake2b
from typing import TextIO

import orjson


class RequestLog:
    """Writes lines. key: of the run. hash_users: whether ids are hidden."""

    def __init__(self, key: bytes, hash_users: bool = True, to: TextIO | None = None) -> None:
        self._key, self._hash_users, self._to = key, hash_users, to

    def write(
        self, route: str, status: int, started_s: float, caller: str, user_id: str | None, error: str = ""
    ) -> None:
        """started_s: of time.perf_counter(). error: title of the problem, where there was one."""
        line: dict[str, object] = {
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "route": route,
            "status": status,
            "ms": round((time.perf_counter() - started_s) * 1e3, 3),
            "caller": caller,
        }
        if user_id is not None:
            line["user"] = self._name(user_id)
        if error:
            line["error"] = error
        print(orjson.dumps(line).decode(), file=self._to or sys.stderr, flush=True)

    def _name(self, user_id: str) -> str:
        if not self._hash_users:
            return user_id
        return blake2b(user_id.encode(), key=self._key, digest_size=8).hexdigest()
