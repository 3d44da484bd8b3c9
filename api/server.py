"""Serving a run over HTTP until it is stopped."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bart.errors import DataError

if TYPE_CHECKING:
    from api.settings import Settings

DRAIN_S = 10  # for requests that are being answered when a stop is asked for


def serve_run(root: Path, settings: Settings) -> None:
    """Opens the run and answers until SIGTERM or Ctrl-C; what was begun is finished and the log is closed in order.

    Raises BundleError for a run that cannot be opened, DataError where the port is taken.
    """
    import uvicorn
    from rich.console import Console

    from api.app import create_app, shows_page
    from api.service import open_service

    asked = settings.serve
    # The port first: it is the cheaper of the two to find unusable. Nobody is accepted before the run is open.
    with bound_socket(asked.host, asked.port) as listening, open_service(root, settings) as service:
        app = create_app(service)
        what = "home page" if shows_page(service) else "service"
        address = f"[{asked.host}]" if ":" in asked.host else asked.host
        Console(highlight=False).print(f"{what} at http://{address}:{asked.port}/  (stop with Ctrl-C)")
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_S)
        )
        with _signals_end_the_server_only():
            server.run(sockets=[listening])


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that holds the port. Raises DataError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise DataError(f"host {host!r} is not an address of this machine: {error.strerror or error}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise DataError(f"port {port} of {host} cannot be used: {error.strerror}") from error
        yield listening
    finally:
        listening.close()


@contextmanager
def _signals_end_the_server_only() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more when it has stopped; that would end us before the log is
    closed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
