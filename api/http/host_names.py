"""By which names the service may be called: the raw Host header against the configured ones.

A page of another origin can point a name of its own at this machine (DNS rebinding) and then call as if it were ours;
the name that it calls by gives it away. No right is concluded from a name or an address: that takes a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.run.settings import ServeSettings
from api.wire.problems import problem

PROBES = ("/health", "/ready", "/metrics")
_HOST = re.compile(rb"(?P<name>[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class HostNames:
    """Refuses requests by other names with 403. Names of this machine are always among those that are taken; where none
    is configured and the service listens for others, every name is. Probes ask by address or without a name."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._any = not settings.hosts and not is_loopback(settings.host)
        self._names = {name.lower().strip("[]") for name in settings.hosts}
        self._known: set[bytes] = set()  # headers that were found right: clients say the same one again and again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._any or scope["type"] != "http" or self._takes(scope["headers"]) or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        detail = "the Host header names another service; serve.hosts lists the names of this one"
        await problem(Request(scope), 403, "Not called by its name", detail)(scope, receive, send)

    def _takes(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            return False
        if given[0] in self._known:
            return True
        found = _HOST.fullmatch(given[0])
        if found is None:
            return False
        name = found["name"].decode().lower().strip("[]")
        if not (name in self._names or is_loopback(name)):
            return False
        if len(self._known) < 64:
            self._known.add(given[0])
        return True
