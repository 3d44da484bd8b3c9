"""Pages are decided in the event loop and recorded apart from it: the disk may be slow, nobody else waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

import api.service.recorder
from api.http.app import create_app
from api.run.settings import load_settings
from api.service.recorder import Recorder
from api.service.service import HomeService, open_service
from bart.errors import LogError
from bart.log.care.verify import verify
from bart.log.record.record import encode
from bart.types import Context, Decision

PAGE = {"page": {"rows": 3, "columns": 4}}


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings(PAGE)) as found:
        yield found


@asynccontextmanager
async def client(service: HomeService) -> AsyncIterator[AsyncClient]:
    app = create_app(service)
    transport = ASGITransport(app, client=("127.0.0.1", 1))
    async with app.router.lifespan_context(app), AsyncClient(transport=transport, base_url="http://127.0.0.1") as made:
        yield made


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The log, held by another process until the block ends."""
    other = sqlite3.connect(run / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def decided(service: HomeService, request_id: str) -> Decision:
    context = Context(datetime(2026, 3, 1, 8, tzinfo=timezone.utc))
    listener = service.listening.listener("listener-03", context)
    return service.run.ranker.decide(request_id, listener, context, 3, 4, 7)


async def waiting(recorder: Any, n: int) -> None:
    while recorder._waiting < n:
        await asyncio.sleep(0.005)


def test_while_the_log_is_held_others_are_answered_and_the_pages_come_when_it_is_free(
    service: HomeService, small_run: Path
) -> None:
    async def scenario() -> list[Any]:
        async with client(service) as asking:
            with held(small_run):
                users = [f"listener-{number:02d}" for number in range(12)]
                pages = [asyncio.create_task(asking.post("/v1/home", json={"user_id": user})) for user in users]
                await waiting(asking._transport.app.state.recorder, 12)  # type: ignore[attr-defined]
                assert (await asking.get("/health")).status_code == 200
                assert not any(page.done() for page in pages)
                assert len(service.log) == 0
            return list(await asyncio.gather(*pages))

    answers = asyncio.run(scenario())
    assert [answer.status_code for answer in answers] == [200] * 12
    assert all(answer.json()["request_id"] in service.log for answer in answers)
    assert len(service.log) == 12
    assert verify(small_run / "log.sqlite").ok


def test_a_page_whose_client_went_away_is_recorded_and_disturbs_nobody(service: HomeService, small_run: Path) -> None:
    async def scenario() -> int:
        async with client(service) as asking:
            recorder = asking._transport.app.state.recorder  # type: ignore[attr-defined]
            with held(small_run):
                gone, stays = (asyncio.create_task(asking.post("/v1/home", json={"user_id": user})) for user in "ab")
                await waiting(recorder, 2)
                gone.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gone
                assert recorder._waiting == 2  # its decision still waits
            status = (await stays).status_code
            assert recorder._waiting == 0
            return int(status)

    assert asyncio.run(scenario()) == 200
    assert len(service.log) == 2


def test_what_waits_when_the_service_stops_is_recorded_first(service: HomeService, small_run: Path) -> None:
    async def scenario() -> None:
        recorder = Recorder(service.log)
        with held(small_run):
            tasks = [asyncio.create_task(recorder.append(decided(service, f"r{number}"))) for number in range(5)]
            await waiting(recorder, 5)
            stopping = asyncio.create_task(asyncio.to_thread(recorder.close))
            await asyncio.sleep(0.05)
            assert not stopping.done()
        await stopping
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert len(service.log) == 5


def test_where_too_many_wait_the_next_is_told_so_at_once(
    service: HomeService, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.service.recorder, "MOST_WAITING", 2)

    async def scenario() -> tuple[Any, list[Any]]:
        async with client(service) as asking:
            with held(small_run):
                pages = [asyncio.create_task(asking.post("/v1/home", json={"user_id": user})) for user in "ab"]
                await waiting(asking._transport.app.state.recorder, 2)  # type: ignore[attr-defined]
                refused = await asking.post("/v1/home", json={"user_id": "c"})
            return refused, list(await asyncio.gather(*pages))

    refused, pages = asyncio.run(scenario())
    assert (refused.status_code, refused.json()["title"]) == (503, "The service is busy")
    assert [page.status_code for page in pages] == [200, 200]
    assert len(service.log) == 2


@pytest.mark.parametrize("durable", [False, True])
def test_a_page_is_recorded_at_once_unless_it_is_to_be_synced(small_run: Path, durable: bool) -> None:
    settings = load_settings({**PAGE, "serve": {"durable": durable}})
    with open_service(small_run, settings) as service:

        async def scenario() -> list[bool]:
            recorder = Recorder(service.log)
            done = []
            for number in range(3):
                task = asyncio.create_task(recorder.append(decided(service, f"r{number}")))
                await asyncio.sleep(0)  # the task runs once
                done.append(task.done())
                await task
            recorder.close()
            return done

        assert asyncio.run(scenario()) == [not durable] * 3
        assert len(service.log) == 3
    assert verify(small_run / "log.sqlite").ok


def test_the_write_ahead_log_stays_short_without_any_other_writer(service: HomeService, small_run: Path) -> None:
    async def scenario() -> None:
        recorder = Recorder(service.log)
        one = decided(service, "r")
        for number in range(3000):
            await recorder.append(replace(one, request_id=f"r{number}"))
        recorder.close()

    asyncio.run(scenario())
    assert len(service.log) == 3000
    assert (small_run / "log.sqlite-wal").stat().st_size < 40e6
    assert (small_run / "log.sqlite").stat().st_size > 2e6  # a good part is written back


def test_while_the_write_ahead_log_is_long_nothing_is_recorded_at_once(
    service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bart.log.decision_log._LONG_WAL_BYTES", 300_000)
    one, log = decided(service, "r"), service.log
    done = [log.append_at_once(encode(replace(one, request_id=f"r{number}"))) for number in range(100)]
    kept = done.index(False)
    assert kept > 5
    assert not any(done[kept:])
    log.append(replace(one, request_id="waited"))
    log.compact()  # the file starts anew
    assert log.append_at_once(encode(replace(one, request_id="after")))
    assert len(log) == kept + 2


def test_a_key_that_comes_many_times_at_once_is_one_page(service: HomeService, small_run: Path) -> None:
    async def scenario() -> list[Any]:
        ask = {"user_id": "listener-03", "idempotency_key": "tap"}
        async with client(service) as asking:
            with held(small_run):
                pages = [asyncio.create_task(asking.post("/v1/home", json=ask)) for _ in range(6)]
                await waiting(asking._transport.app.state.recorder, 6)  # type: ignore[attr-defined]
            return [page.json() for page in await asyncio.gather(*pages)]

    pages = asyncio.run(scenario())
    assert all(page == pages[0] for page in pages)
    assert len(pages[0]["shelves"]) == 3
    assert len(service.log) == 1


def test_each_page_has_its_own_error_and_the_others_are_kept(service: HomeService) -> None:
    async def scenario() -> list[Any]:
        recorder = Recorder(service.log)
        first = decided(service, "r1")
        other = replace(first, seed=first.seed + 1)
        appended = (recorder.append(one) for one in (first, other, decided(service, "r2")))
        found = await asyncio.gather(*appended, return_exceptions=True)
        recorder.close()
        return list(found)

    one, two, three = asyncio.run(scenario())
    assert (one, three) == (None, None)
    assert isinstance(two, LogError)
    assert "with another decision" in str(two)
    assert len(service.log) == 2


def test_a_failure_of_the_log_reaches_every_page_that_waits(
    service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no such device")

    async def scenario() -> list[Any]:
        recorder = Recorder(service.log)
        monkeypatch.setattr(type(service.log), "append_at_once", lambda *_: False)
        monkeypatch.setattr(type(service.log), "append_each", broken)
        appended = [recorder.append(decided(service, name)) for name in ("r1", "r2")]
        found = await asyncio.gather(*appended, return_exceptions=True)
        monkeypatch.undo()
        await recorder.append(decided(service, "r3"))  # the thread goes on
        recorder.close()
        return list(found)

    for error in asyncio.run(scenario()):
        assert isinstance(error, LogError)
        assert "no such device" in str(error)
    assert [decision.request_id for decision in service.log.decisions()] == ["r3"]


def test_picks_and_the_page_after_them_are_one_request(service: HomeService) -> None:
    async def scenario() -> Any:
        async with client(service) as asking:
            ask = {"user_id": "new", "onboarding": {"genres": ["soul"]}}
            return (await asking.post("/v1/home", json=ask)).json()

    assert asyncio.run(scenario())["shelves"]
    known = service.run.store.get("new")
    assert known is not None
    assert len(known.favourite) > 0
