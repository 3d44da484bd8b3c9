"""Connections of one process, so many and no more: what half-arrives must not keep others from being served.

A connection waits while it holds no request that has arrived as a whole, and while its client does not take what is
answered. One that waits too long, or sends too long a head, is closed; where there are too many connections, the one
that has waited longest gives way to a new one.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.run.settings import LimitSettings

CONNECTIONS = "connections"  # in the state that the application's lifespan hands to its server
LOOK_S = 0.5
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connections:
    """The connections of a process. refused: told which limit one was over. Used in one event loop."""

    def __init__(self, limits: LimitSettings, refused: Callable[[str], None]) -> None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        bounded = descriptors != resource.RLIM_INFINITY
        self.most = max(min(limits.connections, descriptors // 2), 8) if bounded else limits.connections
        self.most_head = limits.header_kb << 10
        self._request_s, self._refused = limits.request_s, refused
        self._open: set[LimitedProtocol] = set()
        self._waiting: dict[LimitedProtocol, float] = {}  # since when, the longest first
        self._looking = False

    def opened(self, one: LimitedProtocol) -> None:
        """A connection was made."""
        if len(self._open) >= self.most:
            self._close(next(iter(self._waiting), one), "connections")
        self._open.add(one)
        self.waits(one)

    def waits(self, one: LimitedProtocol) -> None:
        """It waits from now on, for a request or for its client to read."""
        loop = asyncio.get_running_loop()
        self._waiting.pop(one, None)
        self._waiting[one] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_S, self._look)

    def works(self, one: LimitedProtocol) -> None:
        """A request has arrived as a whole."""
        self._waiting.pop(one, None)

    def closed(self, one: LimitedProtocol) -> None:
        """It is gone."""
        self._open.discard(one)
        self._waiting.pop(one, None)

    def head_too_long(self, one: LimitedProtocol) -> None:
        """Closes a connection whose request has no end of its head."""
        one.transport.write(_TOO_LONG)
        self._close(one, "header")

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - self._request_s
        for one in [one for one, since in self._waiting.items() if since < late]:
            self._close(one, "slow")
        self._looking = bool(self._waiting)
        if self._looking:
            loop.call_later(LOOK_S, self._look)

    def _close(self, one: LimitedProtocol, limit: str) -> None:
        self._refused(limit)
        self.closed(one)
        if limit == "header":
            one.transport.close()
        else:
            one.transport.abort()


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which tells `Connections` of what becomes of it."""

    _limits: Connections | None = None
    _head = 0
    _answering: Any = None
    _unread = False  # more was answered than its client and the system took

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._limits = self.app_state.get(CONNECTIONS)
        if self._limits is not None:
            self._limits.opened(self)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limits is not None:
            self._limits.closed(self)
        if self._answering is not None:  # uvicorn tells the request that came last, which may wait behind it
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._limits is not None and self._head > self._limits.most_head and not self.transport.is_closing():
            self._limits.head_too_long(self)

    def on_headers_complete(self) -> None:
        self._head = -(1 << 62)  # what follows is its body
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0
        self._begins()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = True
        if self._limits is not None:
            self._limits.waits(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = False
        self._begins()

    def _begins(self) -> None:
        """Tells that it works, where it has something to work on and a client who reads."""
        if self._limits is None or self._unread:
            return
        if self.cycle is None or self.cycle.response_complete:  # a request that was answered before it had arrived
            self._limits.waits(self)
        else:
            self._limits.works(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._limits is not None and not self.transport.is_closing():
            self._limits.waits(self)
