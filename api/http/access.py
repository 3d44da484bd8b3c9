"""Who may call what, and how often: API keys with scopes, and a rate limit a caller.

Keys are kept as SHA-256 digests, so that a settings file gives none away, and are compared in constant time. Without
any configured key pages and feedback are open. Administration asks for a key always: no address, name or header of a
request stands for one, since a proxy on the same machine gives its own to everybody.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Literal

from fastapi import Request

from api.run.settings import LimitSettings, ServeSettings
from api.wire.facts import note
from api.wire.problems import ProblemError

Scope = Literal["page", "feedback", "admin"]
MOST_CALLERS = 10_000  # whose rate is remembered; beyond that all begin anew
ADMIN_KEY = "admin_key"


class Access:
    """The keys and limits of one process. admin_key: of the administrator, configured or made for the run; empty where
    the settings hold its digest alone. clock: seconds, for tests. refused: told which limit a request was over."""

    def __init__(
        self,
        settings: ServeSettings,
        admin_key: str,
        clock: Callable[[], float] = time.monotonic,
        limits: LimitSettings | None = None,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        limits = limits or LimitSettings()
        self._keys = [(name, bytes.fromhex(key.sha256), frozenset(key.scopes)) for name, key in settings.keys.items()]
        if admin_key:
            digest = sha256(admin_key.encode()).digest()
            self._keys.append((ADMIN_KEY, digest, frozenset({"page", "feedback", "admin"})))
        self._asks_all = bool(settings.keys)
        self._callers = Rate(settings.rate, max(settings.burst, 1.0), clock)
        self._open = Rate(limits.open_rate, 2 * limits.open_rate, clock)
        self._wrong = Rate(limits.wrong_keys, 4 * limits.wrong_keys, clock)
        self._refused = refused

    def check(self, request: Request, scope: Scope, *, always: bool = False) -> None:
        """Counts a request. Raises ProblemError: as `allow` does, and 429 where the caller comes too often."""
        name = self.allow(request, scope, always=always)
        note(request.scope, caller=name)
        self._spend(self._callers, "rate", name)

    def check_open(self, request: Request) -> None:
        """Counts a request to a route that asks for no key. Raises ProblemError (429) as `check`."""
        self._spend(self._open, "open", _address(request))

    def allow(self, request: Request, scope: Scope, *, always: bool = False) -> str:
        """Name of the caller, who may do this. always: asks for a key also where none is configured. Raises
        ProblemError: 401 without a known key, 403 with one that is for other things."""
        given = request.headers.get("x-api-key")
        if given is not None:
            digest = sha256(given.encode()).digest()
            found = [(name, scopes) for name, known, scopes in self._keys if hmac.compare_digest(known, digest)]
            if found and scope in found[0][1]:
                return found[0][0]
            if found:
                raise ProblemError(403, "The key is not for this", f"expected a key with the scope {scope}")
            wait_s = self._wrong.spend(_address(request))
            if wait_s:  # still a 401: whoever guesses learns no more than before, and waits
                self._refused("keys")
                retry = {"Retry-After": f"{max(1, round(wait_s))}"}
                raise ProblemError(401, "Too many wrong keys", "expected a key that is known as X-API-Key", retry)
        if scope == "admin":
            raise ProblemError(401, "Not an administrator", "expected the administrator's key as X-API-Key")
        if self._asks_all or always:
            raise ProblemError(401, "Not known", f"expected a key with the scope {scope} as X-API-Key")
        return _address(request)

    def _spend(self, rate: Rate, limit: str, name: str) -> None:
        wait_s = rate.spend(name)
        if wait_s:
            self._refused(limit)
            detail = f"expected {rate.a_second:g} requests a second at most"
            raise ProblemError(429, "Too many requests", detail, {"Retry-After": f"{max(1, round(wait_s))}"})


class Rate:
    """A bucket of `burst` tokens a caller, refilled at `a_second`; 0: any rate. Threads may share it."""

    def __init__(self, a_second: float, burst: float, clock: Callable[[], float]) -> None:
        self.a_second, self._burst, self._clock = a_second, max(burst, 1.0), clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, name: str) -> float:
        """Takes a token; where there is none, the seconds until there is."""
        if not self.a_second:
            return 0.0
        at = self._clock()
        with self._lock:
            if len(self._left) >= MOST_CALLERS:
                self._left.clear()
            left, since = self._left.get(name, (self._burst, at))
            left = min(self._burst, left + (at - since) * self.a_second)
            self._left[name] = (left - 1 if left >= 1 else left, at)
            return (1 - left) / self.a_second if left < 1 else 0.0


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
