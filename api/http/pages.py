"""The pages that people look at: files of HTML, filled in once with the parts that they share and what the browser
cannot know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from string import Template

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from api.run.settings import Settings
from api.wire.covers import FOLDER, KINDS, file_name
from api.wire.facts import note
from api.wire.problems import ProblemError

WEB = Path(__file__).parents[1] / "web"
# The report that the operator's page shows styles its figures inline; it is in a frame that may do nothing.
INLINE_STYLES = {
    "/operate": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
}
PAGES = {
    "/": "index.html",
    "/operate": "operate.html",
    "/operate/items": "items.html",
    "/operate/listeners": "listeners.html",
    "/simulate": "simulate.html",
}
MOST_COLUMNS = 100
COVER_S = 3600  # for which a browser keeps a cover without asking again


def add_pages(app: FastAPI, settings: Settings) -> None:
    """Adds the pages and the files that they are made of."""
    shown = settings.page.columns
    # Twice the columns are asked for and half of them shown at first: what "more" reveals was drawn by the policy as
    # well, with a propensity of its own.
    known = {"columns": str(shown), "asked": str(min(2 * shown, MOST_COLUMNS))}
    parts = {file.stem: file.read_text() for file in (WEB / "parts").glob("*.html")}
    for path, name in PAGES.items():
        links = {part: _marked(parts[part], path) for part in ("pages", "operate")}
        text = Template((WEB / name).read_text()).substitute(parts | links | known)
        app.add_route(path, _page(path, text), include_in_schema=False)
    app.add_route(f"/{FOLDER}/{{name:path}}", _cover, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=WEB / "static"), name="static")


def _marked(links: str, path: str) -> str:
    """Links of which the one to this page says so, or where there is none the one to what the page belongs to."""
    for place, how in ((path, "page"), (path.rpartition("/")[0], "true")):
        link = f'href="{place}"'
        if link in links:
            return links.replace(link, f'{link} aria-current="{how}"')
    return links


async def _cover(request: Request) -> Response:
    """A cover of the run's own folder; a link that leaves it leads nowhere."""
    note(request.scope, route=f"/{FOLDER}")
    folder = (request.app.state.service.run.paths.root / FOLDER).resolve()
    name = file_name(request.path_params["name"])
    file = folder / (name or "")
    if name is None or not file.is_file() or not file.resolve().is_relative_to(folder):
        raise ProblemError(404, "Not found", "no cover of this name is in the run's folder of covers")
    headers = {"Cache-Control": f"max-age={COVER_S}"}
    return FileResponse(file, media_type=KINDS[file.suffix.lower()], headers=headers)


def _page(path: str, text: str) -> Callable[[Request], Awaitable[Response]]:
    headers = {"Cache-Control": "no-cache"}
    if path in INLINE_STYLES:
        headers["Content-Security-Policy"] = INLINE_STYLES[path]

    async def page(request: Request) -> Response:
        note(request.scope, route=path)
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    return page
