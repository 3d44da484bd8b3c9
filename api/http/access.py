"""Who may call what, and how often: API keys with scopes, and a rate limit a caller.

Keys are kept as SHA-256 digests, so that a settings file gives none away, and are compared in constant time. Without
any key pages and feedback are open, and administrators are those who call from this machine.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Literal

from fastapi import Request

from api.http.loopback import is_loopback
from api.run.settings import ServeSettings
from api.wire.facts import note
from api.wire.problems import ProblemError

Scope = Literal["page", "feedback", "admin"]
MOST_CALLERS = 10_000  # whose rate is remembered; beyond that all begin anew
ADMIN_KEY = "admin_key"


class Access:
    """The keys and limits of one process. clock: seconds, for tests."""

    def __init__(self, settings: ServeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = [(name, bytes.fromhex(key.sha256), frozenset(key.scopes)) for name, key in settings.keys.items()]
        if settings.admin_key:
            digest = sha256(settings.admin_key.encode()).digest()
            self._keys.append((ADMIN_KEY, digest, frozenset({"page", "feedback", "admin"})))
        self._asks_all = bool(settings.keys)
        self._rate, self._burst = settings.rate, max(settings.burst, 1.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, request: Request, scope: Scope) -> None:
        """Counts a request. Raises ProblemError: as `allow` does, and 429 where the caller comes too often."""
        name = self.allow(request, scope)
        note(request.scope, caller=name)
        if self._rate:
            self._spend(name)

    def allow(self, request: Request, scope: Scope) -> str:
        """Name of the caller, who may do this. Raises ProblemError: 401 without the right key, 403 from elsewhere."""
        given = request.headers.get("x-api-key")
        if given is not None and self._keys:
            digest = sha256(given.encode()).digest()
            found = [(name, scopes) for name, known, scopes in self._keys if hmac.compare_digest(known, digest)]
            if found and scope in found[0][1]:
                return found[0][0]
            if found:
                raise ProblemError(403, "The key is not for this", f"expected a key with the scope {scope}")
        if scope == "admin":
            if self._keys:
                raise ProblemError(401, "Not an administrator", "expected the administrator's key as X-API-Key")
            _from_this_machine(request)
        elif self._asks_all:
            raise ProblemError(401, "Not known", f"expected a key with the scope {scope} as X-API-Key")
        return request.client.host if request.client else ""

    def _spend(self, name: str) -> None:
        """A bucket of `burst` tokens a caller, refilled at `rate` a second."""
        at = self._clock()
        with self._lock:
            if len(self._left) >= MOST_CALLERS:
                self._left.clear()
            left, since = self._left.get(name, (self._burst, at))
            left = min(self._burst, left + (at - since) * self._rate)
            if left < 1:
                wait = (1 - left) / self._rate
                self._left[name] = (left, at)
                detail = f"expected {self._rate:g} requests a second at most"
                raise ProblemError(429, "Too many requests", detail, {"Retry-After": f"{max(1, round(wait))}"})
            self._left[name] = (left - 1, at)


def _from_this_machine(request: Request) -> None:
    """Raises ProblemError unless the call is from this machine, by a name of this machine (not a page of another origin
    whose name was pointed here), and not through a proxy."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    host = request.url.hostname or ""
    if forwarded or not (request.client and is_loopback(request.client.host) and is_loopback(host)):
        detail = "administrators call from this machine, or set serve.admin_key and send it as X-API-Key"
        raise ProblemError(403, "Not an administrator", detail)
