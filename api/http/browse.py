"""The routes by which an administrator looks items and listeners up, by pages that go on behind the last one shown."""

from __future__ import annotations

import threading
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response

from api.browse.exposure import Exposure
from api.browse.item import in_short, item_document
from api.browse.listener import listener_profile
from api.browse.search import ItemSearch
from api.http.deps import Admin, Service, Threads, answer, path_id
from api.service.service import HomeService
from api.users.alike import Alike
from api.wire.problems import ProblemError
from bart.types import ITEM_TYPES, ItemTable

Beginning = Annotated[str, Query(min_length=0, max_length=256, description="of the id")]
Limit = Annotated[int, Query(ge=1, le=500, description="how many at once")]
Kind = Annotated[str, Query(min_length=0, pattern=f"^({'|'.join(ITEM_TYPES)})?$", description="type; empty: all")]


class Browsing:
    """What one process keeps to look things up: the words of the batch that serves, and the latest pages."""

    def __init__(self) -> None:
        self.exposure = Exposure()
        self._lock = threading.Lock()
        self._search: tuple[ItemTable, ItemSearch] | None = None

    def search(self, items: ItemTable) -> ItemSearch:
        """Of these items; made at the first question, once for all who ask."""
        with self._lock:
            if self._search is None or self._search[0] is not items:
                self._search = None  # the old one goes before the new one comes
                self._search = (items, ItemSearch(items))
            return self._search[1]

    def items(self, service: HomeService, text: str, kind: str, after: int, limit: int) -> dict[str, Any]:
        """Items whose words begin with those of a text."""
        items = service.run.items
        found = self.search(items).find(text, ITEM_TYPES.index(kind) if kind else None, after, limit)
        taken_down = service.control.read().taken_down
        return {
            "items": in_short(items, found.row, taken_down, service.writer.covers),
            "next": found.next,
            "found": found.count,
        }

    def item(self, service: HomeService, item_id: str) -> dict[str, Any] | None:
        """All that is known of one item."""
        return item_document(service, item_id, self.exposure.window(service))


def add_browse(app: FastAPI) -> None:
    """Adds the routes, before those that would take theirs for an id; every one asks for an administrator."""
    browsing, alike = Browsing(), Alike()

    @app.get("/v1/items", summary="Items by the words of title, artists and id", dependencies=[Admin])
    async def items(
        service: Service,
        threads: Threads,
        q: Annotated[str, Query(min_length=0, max_length=256, description="beginnings of words; empty: all")] = "",
        type: Kind = "",
        after: Annotated[int, Query(ge=-1, le=1 << 31, description="`next` of the page before")] = -1,
        limit: Limit = 50,
    ) -> Response:
        return answer(await threads.run(partial(browsing.items, service, q, type, after, limit)))

    @app.get("/v1/items/{item_id:path}", summary="What is known of one item", dependencies=[Admin])
    async def item(item_id: str, service: Service, threads: Threads) -> Response:
        found = await threads.run(partial(browsing.item, service, path_id(item_id, "item_id")))
        if found is None:
            raise ProblemError(404, "Not found", f"no item {item_id!r:.80} is in this batch")
        return answer(found)

    @app.get("/v1/listeners", summary="Known listeners, by the beginning of their ids", dependencies=[Admin])
    async def listeners(
        service: Service,
        threads: Threads,
        prefix: Beginning = "",
        after: Annotated[str, Query(min_length=0, max_length=256, description="`next` of the page before")] = "",
        limit: Limit = 200,
    ) -> Response:
        found = await threads.run(partial(service.listeners, limit + 1, prefix, after))
        return answer({"listeners": found[:limit], "next": found[limit - 1] if len(found) > limit else None})

    @app.get(
        "/v1/listeners/{user_id:path}/similar", summary="Listeners most alike, by user vector", dependencies=[Admin]
    )
    async def similar(
        user_id: str,
        service: Service,
        threads: Threads,
        limit: Annotated[int, Query(ge=1, le=500, description="how many")] = 20,
    ) -> Response:
        return answer(await threads.run(partial(alike.of, service, path_id(user_id, "user_id"), limit)))

    @app.get("/v1/listeners/{user_id:path}/profile", summary="History, taste, vectors, pages", dependencies=[Admin])
    async def profile(
        user_id: str,
        service: Service,
        threads: Threads,
        after: Annotated[int, Query(ge=0, le=1 << 31, description="items of the history told before")] = 0,
    ) -> Response:
        found = await threads.run(partial(listener_profile, service, path_id(user_id, "user_id"), after))
        if found is None:
            raise ProblemError(404, "Not found", f"nothing is known of a listener {user_id!r:.80}")
        return answer(found)
