"""The routes behind the operator's page: figures of the latest pages, the report, and the check of the whole log."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from api.background.jobs import Job
from api.http.admin import switched
from api.http.deps import Admin, Service, Threads, answer
from api.run.clock import stamp, utc_now
from api.service.service import HomeService
from api.upkeep.learning import calibrated
from api.upkeep.operating_figures import figures, watch
from api.wire.problems import ProblemError

FRESH_S = 15.0  # the log is read that often at most
MOST_TAKEN_DOWN = 200  # ids told
# The report holds figures as inline SVG, styled inline, and no script: it is shown in a frame that may do nothing.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"


def newest_report(root: Path) -> Path:
    """The report that was written last into the run or a folder of it; RUN/report.html where there is none."""
    aside = (root / "bundle", root / "bundles", root / "jobs")
    found = [
        path
        for path in (root / "report.html", *root.glob("[!.]*/report.html"))
        if path.is_file() and path.parent not in aside
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=root / "report.html")


class Operating:
    """The figures of one process, kept for `FRESH_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._found: dict[str, Any] = {}
        self._of: tuple[str, str] | None = None

    def figures(self, service: HomeService) -> dict[str, Any]:
        """Of the latest pages; read once for all who ask at the same time."""
        of = (service.run.bundle.batch_id, service.settings.reward.name)
        with self._lock:
            if self._of != of or time.monotonic() - self._read_at >= FRESH_S:
                found = figures(watch(service.log, service.run.items, service.settings.reward.name))
                self._found = {"read_at": stamp(), **found}
                self._read_at, self._of = time.monotonic(), of
            return self._found


def add_operate(app: FastAPI) -> None:
    """Adds the routes; every one asks for an administrator."""
    operating = Operating()

    @app.get("/v1/operate", summary="Figures of the latest pages, over time and by arm", dependencies=[Admin])
    async def operate(service: Service, threads: Threads) -> Response:
        return answer(await threads.run(partial(_document, operating, service)))

    @app.get("/v1/operate/report", summary="The latest evaluation report", dependencies=[Admin])
    async def report(service: Service, threads: Threads) -> Response:
        try:
            body = await threads.run(lambda: newest_report(service.run.paths.root).read_bytes())
        except FileNotFoundError:
            raise ProblemError(404, "Not found", "this run has no report yet; bart evaluate RUN writes one") from None
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(body, media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/v1/operate/verification", summary="The check of the whole log", dependencies=[Admin])
    async def verification(request: Request, threads: Threads) -> Response:
        return answer(await threads.run(_job(request).state))

    @app.post("/v1/operate/verification", summary="Check the whole log", dependencies=[Admin], status_code=202)
    async def verify(request: Request, service: Service, threads: Threads) -> Response:
        _only_json(request)
        asked = {"log": str(service.run.paths.log.resolve()), "asked_at": stamp()}
        if not await threads.run(partial(_job(request).start, asked)):
            raise ProblemError(409, "It is being checked", "the log is being checked already; wait for that")
        return answer(await threads.run(_job(request).state), 202)

    @app.delete("/v1/takedowns/{item_id:path}", summary="Take a takedown back", dependencies=[Admin])
    async def put_back(item_id: str, request: Request, service: Service, threads: Threads) -> Response:
        if not await threads.run(partial(service.control.put_back, [item_id], utc_now(), "put back by hand")):
            raise ProblemError(404, "Not found", f"{item_id!r:.80} is not taken down")
        workers = await switched(request, service, threads)
        return answer({"item_id": item_id, "status": "put back", "workers": workers})


def _document(operating: Operating, service: HomeService) -> dict[str, Any]:
    controls = service.control.read()
    report = newest_report(service.run.paths.root)
    written = datetime.fromtimestamp(report.stat().st_mtime, tz=timezone.utc) if report.is_file() else None
    return {
        **operating.figures(service),
        "reward": service.settings.reward.name,
        "batch_id": service.run.bundle.batch_id,
        "model_id": service.run.bundle.model_id,
        "calibrated": calibrated(service.run.bundle),
        "report_at": None if written is None else written.isoformat(timespec="seconds"),
        "taken_down": sorted(controls.taken_down)[:MOST_TAKEN_DOWN],
    }


def _job(request: Request) -> Job:
    job: Job = request.app.state.jobs["verify"]
    return job


def _only_json(request: Request) -> None:
    """A page of another origin cannot send this content type without asking the service first."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(415, "The body is not JSON", "expected content-type application/json")
