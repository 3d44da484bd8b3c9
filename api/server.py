"""Serving a run over HTTP until it is stopped."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.settings import Settings


def serve_run(root: Path, settings: Settings) -> None:
    """Opens the run and answers until a signal comes; the log is closed in order.

    Raises BundleError for a run that cannot be opened, OSError where the port is taken.
    """
    import socket

    import uvicorn
    from rich.console import Console

    from api.app import create_app
    from api.runs import RunPaths, exploration_of, open_run, rules_of
    from api.service import HomeService
    from bart.decision_log import DecisionLog
    from bart.errors import DataError

    asked = settings.serve
    exploration, rules = exploration_of(settings), rules_of(settings)
    open_run(root, exploration, rules).store.close()  # a run that cannot serve is refused before the port is taken
    with DecisionLog(
        RunPaths(root).log,
        synchronous="FULL" if asked.durable else "NORMAL",
        feedback_window=timedelta(hours=settings.reward.window_h),
    ) as log:
        run = open_run(root, exploration, rules, log)
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((asked.host, asked.port))
        except OSError as error:
            listening.close()
            raise DataError(f"port {asked.port} of {asked.host} cannot be used: {error.strerror}") from error
        app = create_app(HomeService(run, log, settings))
        Console(highlight=False).print(f"home page at http://{asked.host}:{asked.port}/  (stop with Ctrl-C)")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
        run.store.close()
