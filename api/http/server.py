"""Serving a run over HTTP until it is stopped."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from bart.errors import DataError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.run.settings import Settings
    from api.service.service import HomeService

DRAIN_S = 10  # for requests that are being answered when a stop is asked for
HEALTHCHECK_S = 30  # a worker that does not answer its supervisor for so long hangs; opening a large run takes seconds
PARENT_S = 0.5  # how often a worker looks whether its supervisor is there
STARTUP_FAILURE = 3  # how a worker exits that could not start
WORKER = "BART_WORKER"
METRICS = "PROMETHEUS_MULTIPROC_DIR"
YOUNG_OBJECTS = 20_000  # that are made before the garbage collector looks for what holds itself
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "sshfs")


def serve_run(root: Path, settings: Settings) -> None:
    """Opens the run and answers until SIGTERM or Ctrl-C; what was begun is finished and the log is closed in order.

    With several workers a supervisor starts as many processes, which share the socket, the log and the stores, and
    starts another where one dies. Raises BundleError for a run that cannot be opened, DataError where the port is
    taken.
    """
    import uvicorn

    asked = settings.serve
    # The port first: it is the cheaper of the two to find unusable. Nobody is accepted before the run is open.
    with bound_socket(asked.host, asked.port) as listening:
        warn_of_network_files(root)
        if asked.workers > 1:
            _serve_with_workers(root, settings, listening)
            return
        from api.http.app import create_app
        from api.http.connections import LimitedProtocol
        from api.service.service import open_service

        with settled(open_service(root, settings)) as service:
            app = create_app(service)
            _announce_when_ready(root, settings, listening)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http=LimitedProtocol,
                    ws="none",
                    log_level="warning",
                    access_log=False,
                    timeout_graceful_shutdown=DRAIN_S,
                )
            )
            with _signals_end_the_server_only():
                server.run(sockets=[listening])


def worker_app() -> FastAPI:
    """The application of one worker process; its run and settings come from the supervisor by the environment."""
    from api.http.app import app_of
    from api.run.settings import Settings
    from api.service.service import open_service

    given = json.loads(os.environ[WORKER])
    threading.Thread(target=_end_with, args=(given["supervisor"],), name="bart-parent", daemon=True).start()
    settings = Settings.of(given["settings"])
    return app_of(settled(open_service(Path(given["run"]), settings)), settings)


def _end_with(parent: int) -> None:
    """Ends this process in order when its supervisor is gone: nobody would start another in its place, and it would
    keep the port from the next server."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve_with_workers(root: Path, settings: Settings, listening: socket.socket) -> None:
    import uvicorn

    from api.background.supervisor import Supervisor
    from api.http.connections import LimitedProtocol
    from api.run.keys import admin_key
    from api.run.runs import RunPaths
    from bart.bundle import open_bundle
    from bart.errors import BundleError

    open_bundle(RunPaths(root).bundle)  # a mistake is told once, and not by every worker
    with tempfile.TemporaryDirectory(prefix="bart-metrics-") as metrics:
        os.environ[METRICS] = metrics  # each worker counts into a file of its own there, and any can sum them
        given = {**settings.as_dict(), "store": settings.store.as_dict()}
        os.environ[WORKER] = json.dumps({"run": str(root.resolve()), "settings": given, "supervisor": os.getpid()})
        config = uvicorn.Config(
            "api.http.server:worker_app",
            factory=True,
            http=LimitedProtocol,
            ws="none",
            workers=settings.serve.workers,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_S,
            timeout_worker_healthcheck=HEALTHCHECK_S,
        )
        admin_key(root, settings.serve)  # the same for all, and a mistake is told once
        _announce_when_ready(root, settings, listening)
        supervisor = Supervisor(config, [listening])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise BundleError(f"{root}: a worker could not open the run; what it found is told above")


def _announce_when_ready(root: Path, settings: Settings, listening: socket.socket) -> None:
    """Tells the address from another thread, once somebody answers there."""

    def wait() -> None:
        host, port = listening.getsockname()[:2]
        while True:
            connection = HTTPConnection(host, port, timeout=HEALTHCHECK_S)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except (OSError, HTTPException):  # not yet
                time.sleep(0.05)
            finally:
                connection.close()
        _announce(root, settings)

    threading.Thread(target=wait, name="bart-announce", daemon=True).start()


def _announce(root: Path, settings: Settings) -> None:
    """One line: the address, with the key that was made for the run in its fragment, which no request carries. A key
    that was configured is not told: its owner knows it."""
    from rich.console import Console

    from api.http.app import shows_page
    from api.run.keys import ADMIN_KEY_FILE, admin_key, has_administrator

    asked = settings.serve
    address = f"[{asked.host}]" if ":" in asked.host else asked.host
    link = f"http://{address}:{asked.port}/"
    made = not has_administrator(asked)
    if shows_page(settings):
        line = f"home page at {link}{f'#key={admin_key(root, asked)}' if made else ''}"
    else:
        line = f"service at {link}" + (f"; the administrator's key stands in {root / ADMIN_KEY_FILE}" if made else "")
    Console(highlight=False, soft_wrap=True).print(f"{line}  (stop with Ctrl-C)", markup=False)


@contextmanager
def settled(opening: AbstractContextManager[HomeService]) -> Iterator[HomeService]:
    """The opened service, with all that it holds out of the garbage collector's sight: looking through tables that stay
    as long as the process does would hold up a request for a tenth of a second, now and then. It looks less often, too:
    what a request makes goes by itself when the request ends, but for what an error leaves."""
    with opening as service:
        gc.collect()
        gc.freeze()
        before = gc.get_threshold()
        gc.set_threshold(YOUNG_OBJECTS, *before[1:])
        try:
            yield service
        finally:
            gc.set_threshold(*before)


def warn_of_network_files(root: Path) -> None:
    """Says so where the log would stand on a network file system, whose locks SQLite cannot trust."""
    from rich.console import Console

    kind = file_system(root)
    if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse."):
        text = f"warning: {root} is on a network file system ({kind}) ; its locks cannot be trusted, use a local disk"
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that holds a path, such as ext4; empty where that cannot be told."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    place, kind = str(path.resolve()), ""
    longest = -1
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        mounted = mounted.replace("\\040", " ")
        inside = place == mounted or place.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= longest:  # the later one of two hides the earlier
            longest, kind = len(mounted), found
    return kind


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
