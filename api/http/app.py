"""The HTTP service: thin routes over `HomeService`, errors as RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.background.jobs import Job
from api.background.simulation import SimulationRequest
from api.http.access import Access
from api.http.admin import add_admin
from api.http.browse import add_browse
from api.http.connections import CONNECTIONS, Connections
from api.http.deps import Admin, Keyed, Open, Service, Threads, Workers, answer
from api.http.host_names import HostNames, is_loopback
from api.http.operate import add_operate
from api.http.pages import add_pages
from api.http.posts import add_posts, describe_posts
from api.http.preferences import add_preferences
from api.http.request_log import RequestLog
from api.http.simulation_routes import add_simulation
from api.metrics.metrics import CONTENT_TYPE
from api.run.keys import admin_key
from api.run.loops import stale
from api.run.settings import Settings
from api.service.recorder import Recorder
from api.service.service import HomeService
from api.upkeep.housekeeping import Housekeeper
from api.upkeep.item_tables import ItemBody
from api.upkeep.learning import OnlineLearning
from api.upkeep.watch import Watcher
from api.wire.covers import source_policy
from api.wire.examples import add_examples
from api.wire.openapi import describe
from api.wire.problems import MEDIA_TYPE, ProblemError, add_problem_handlers
from api.wire.schemas import schema_components

# No request leaves the page's own origin but for covers of configured hosts, and nothing but our own files runs.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src {images}; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


Place = Annotated[int, Query(ge=0, lt=1000)]


def create_app(service: HomeService) -> FastAPI:
    """The application for one opened run."""
    app = app_of(nullcontext(service), service.settings)
    app.state.service = service
    return app


def app_of(opening: AbstractContextManager[HomeService], settings: Settings) -> FastAPI:
    """The application for a run that is opened when the application starts, and closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with opening as service:
            app.state.service = service
            key, refused = admin_key(service.run.paths.root, settings.serve), service.metrics.refused
            app.state.access = Access(settings.serve, key, limits=settings.limits, refused=refused)
            app.state.workers, app.state.recorder = Workers(), Recorder(service.log)
            app.state.jobs = {kind: Job(service.run.paths.root, kind) for kind in ("simulation", "verify")}
            watcher, housekeeper = Watcher(app.state), Housekeeper(app.state)
            learning = OnlineLearning(app.state)
            app.state.watcher = watcher
            app.state.hearts = [watcher.loop.heart, housekeeper.loop.heart, app.state.recorder.heart, *service.hearts]
            if learning.due(service):
                app.state.hearts.append(learning.loop.heart)
            for heart in app.state.hearts:
                heart.told = service.metrics.heard
            watcher.start()
            learning.start()
            housekeeper.start()
            connections = Connections(settings.limits, refused)
            try:
                yield {CONNECTIONS: connections}
            finally:
                for job in app.state.jobs.values():
                    job.close()
                housekeeper.stop()
                learning.stop()
                watcher.stop()
                # Before the log is closed: what was begun is recorded.
                app.state.workers.close()
                app.state.recorder.close()

    app = FastAPI(
        title="bart",
        version=version("bart-home"),
        summary="Home pages decided with exact propensities",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # another path is another path
        lifespan=lifespan,
    )
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    add_posts(app)
    app.add_middleware(HostNames, settings=settings.serve)
    app.add_middleware(_SafeHeaders, image_hosts=settings.serve.image_hosts)
    if settings.serve.request_log:
        app.add_middleware(RequestLog, hash_users=settings.serve.hash_users)
    add_problem_handlers(app)
    _add_routes(app)
    if shows_page(settings):
        add_pages(app, settings)
    return app


def shows_page(settings: Settings) -> bool:
    """Whether the web page is served: for this machine alone, unless it is switched on."""
    asked = settings.serve
    return is_loopback(asked.host) if asked.web is None else asked.web


def _add_routes(app: FastAPI) -> None:
    add_preferences(app)
    add_browse(app)
    add_admin(app)
    add_operate(app)
    add_simulation(app)

    @app.get("/v1/decisions/{request_id}", summary="One decision, told in full", dependencies=[Admin])
    async def decision(request_id: str, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(service.decision, request_id))
        if found is None:
            raise ProblemError(404, "Not found", f"no decision of request {request_id!r:.80} is in the log")
        return answer(found)

    @app.get("/v1/decisions/{request_id}/why", summary="Why a card stands where it stands", dependencies=[Admin])
    async def why(request_id: str, row: Place, column: Place, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(service.why, request_id, row, column))
        if found is None:
            raise ProblemError(404, "Not found", f"no card of request {request_id!r:.80} stands in that place")
        return answer(found)

    @app.get("/v1/onboarding", summary="Artists and genres to pick from", dependencies=[Open])
    async def onboarding(service: Service, threads: Threads) -> Response:
        return answer(await threads.run(service.listening.choices))

    @app.get("/health", summary="Whether the process answers", dependencies=[Open])
    async def health(service: Service) -> Response:
        return answer(service.health())

    @app.get("/ready", summary="Whether pages can be decided now", dependencies=[Open])
    async def ready(request: Request, service: Service, threads: Threads) -> Response:
        late = stale(request.app.state.hearts)
        if late:
            raise ProblemError(503, "Not ready", f"what is done beside requests has stopped: {late}; see the log")
        return answer(await threads.run(service.ready))

    @app.get("/metrics", summary="Metrics for Prometheus", dependencies=[Open])
    async def metrics(service: Service, threads: Threads) -> Response:
        return Response(await threads.run(service.metrics.text), headers={"content-type": CONTENT_TYPE})


class _SafeHeaders:
    """Adds the headers that keep browsers from doing more than they should, to every answer."""

    def __init__(self, app: ASGIApp, image_hosts: Collection[str] = ()) -> None:
        self._app = app
        told = {name: value.format(images=source_policy(image_hosts)) for name, value in HEADERS.items()}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                own = {name for name, _ in given}  # a report brings a stricter policy of its own
                message["headers"] = [*given, *(header for header in self._headers if header[0] not in own)]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the bodies that routes read themselves and the one shape of errors."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        describe_posts(found)
        found.setdefault("components", {}).setdefault("schemas", {}).update(
            schema_components(ItemBody, SimulationRequest)
        )
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        error = {"description": "What is wrong (RFC 9457)", "content": content}
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = error
        add_examples(found)
        routes = [
            one for one in app.routes if isinstance(one, APIRoute) and not {Admin, Keyed}.isdisjoint(one.dependencies)
        ]
        describe(found, {(method, one.path_format) for one in routes for method in one.methods or ()}, content)
        app.openapi_schema = found
    return app.openapi_schema
