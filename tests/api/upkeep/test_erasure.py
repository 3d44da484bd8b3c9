"""An erasure through the service: nothing of the listener is left in any file, and nothing comes after it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from api.run.runs import RunPaths
from api.run.settings import load_settings
from api.service.recorder import Recorder
from api.service.service import HomeService, open_service
from api.upkeep.listener_admin import erase_listener, is_genuine
from api.wire.problems import ProblemError
from api.wire.schemas import FeedbackItem, FeedbackRequest, HomeRequest, Onboarding, Play, SessionRequest
from bart.errors import ErasedError, LogError
from bart.log.care.export import export_log
from bart.log.record.record import encode
from bart.log.store.compact import DUE
from bart.log.store.store import get_meta
from bart.types import Context

USER = "listener-05"
SETTINGS = {"page": {"rows": 4, "columns": 5}}


def now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings(SETTINGS)) as opened:
        yield opened


def use(service: HomeService, times: int = 3) -> None:
    """Visits, feedback and sessions of the listener, and of another one."""
    import json

    for number in range(times):
        for user in (USER, "listener-06"):
            page = json.loads(service.home(HomeRequest(user_id=user)))
            event = FeedbackItem(event_id=f"event of {user}", row=0, column=0, seen=True)
            service.feedback(FeedbackRequest(request_id=page["request_id"], events=[event]))
            for final in (False, True):
                plays = [Play(item_id="item-01", listened_s=150.0)]
                told = SessionRequest(user_id=user, session_id=f"{user} {number}", final=final, plays=plays)
                service.listening.report(told, now())


def files_with(folder: Path, text: str) -> list[str]:
    """Names of all files below a folder that hold a text, write-ahead logs too."""
    found = (f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return sorted(str(f.relative_to(folder)) for f in found if text.encode() in f.read_bytes())


@contextmanager
def holding(log: Path) -> Iterator[int]:
    """Another process that reads the log and was stopped in the middle of it; its id."""
    code = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        "rows = c.execute('SELECT record FROM decision')\n"
        "next(rows)\n"
        "print('reads', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_no_file_holds_a_byte_of_an_erased_listener_while_the_service_goes_on(service: HomeService) -> None:
    run = service.run.paths.root
    use(service)
    export_log(service.log, service.run.paths.log_export, now=now() + timedelta(days=3))
    held = {"log.sqlite", "listeners.sqlite", "sessions.sqlite", "events.parquet"}
    assert {name.removesuffix("-wal") for name in files_with(run, USER)} >= held - {"events.parquet"}
    receipt = erase_listener(service, USER, now() + timedelta(days=3))
    assert receipt["compacted"]
    assert (receipt["pages"], receipt["events"], receipt["exported"], receipt["sessions"]) == (3, 3, 3, 3)
    assert is_genuine(receipt, service.key)
    left = files_with(run, USER)
    assert [name for name in left if name != "events.parquet"] == []  # what the bundle was built from is the user's own
    assert files_with(run, "listener-06")


def test_who_asks_again_because_an_answer_was_lost_is_told_what_was_removed(service: HomeService) -> None:
    use(service, 1)
    first = erase_listener(service, USER, now())
    again = erase_listener(service, USER, now())
    told = ("pages", "events", "states", "sessions")
    assert [first[name] for name in told] == [1, 1, 1, 1] == [again[name] for name in told]
    assert erase_listener(service, USER, now() + timedelta(hours=2))["pages"] == 0
    assert erase_listener(service, "nobody", now())["pages"] == 0


def test_a_reader_in_the_way_gets_a_receipt_others_write_on_and_the_bytes_go_later(service: HomeService) -> None:
    use(service)
    log = service.run.paths.log
    with holding(log):
        began = time.monotonic()
        receipt = erase_listener(service, USER, now())
        assert time.monotonic() - began < 20  # a wait for the reader of thirty seconds would end here
        assert (receipt["compacted"], receipt["pages"]) == (False, 3)
        service.home(HomeRequest(user_id="listener-06"))  # not refused, and not kept waiting
        with pytest.raises(LogError, match="read by another process"):
            service.log.compact_where_due()
        with service.log.reading() as connection:
            assert get_meta(connection, DUE) == 1
    service.log.compact_where_due()
    with service.log.reading() as connection:
        assert get_meta(connection, DUE) == 0
    assert not [name for name in files_with(log.parent, USER) if name.startswith("log.sqlite")]


def test_a_page_that_waits_to_be_recorded_while_its_listener_is_erased_is_refused(service: HomeService) -> None:
    async def scene() -> None:
        recorder = Recorder(service.log)
        try:
            context, erased_at = Context(now()), now() + timedelta(seconds=1)
            listener = service.run.store.listener(USER, context)
            page = service.run.ranker.decide("a waiting page", listener, context, 4, 5, 1)
            erase_listener(service, USER, erased_at)  # between the decision and its commit
            with pytest.raises(ErasedError, match="was decided before its user was erased"):
                await recorder.append(page)
            with pytest.raises(LogError):
                service.log.append(page)
            (error,) = service.log.append_each([encode(page)])
            assert isinstance(error, ErasedError)
            after = replace(page, request_id="afterwards", context=Context(erased_at + timedelta(seconds=1)))
            await recorder.append(after)  # who comes back is a stranger, and welcome
        finally:
            recorder.close()

    asyncio.run(scene())
    assert service.log.get("a waiting page") is None
    assert service.log.get("afterwards") is not None


def test_what_waits_of_a_listener_while_the_listener_is_erased_is_in_no_store_afterwards(
    service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session, picks and a seen card, each at the moment at which it is written."""
    import json

    def erasing_before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def erase_first(*given: Any, **named: Any) -> Any:
            monkeypatch.undo()
            erase_listener(service, USER, now())
            return original(*given, **named)

        monkeypatch.setattr(owner, name, erase_first)

    played = SessionRequest(user_id=USER, session_id="s", final=True, plays=[Play(item_id="item-01", listened_s=99.0)])
    for final, owner, name in (
        (False, service.listening.sessions, "put"),
        (True, service.listening.sessions, "claim"),
        (True, service.run.store, "catch_up"),
        (True, service.listening.sessions, "settle"),
    ):
        erasing_before(owner, name)
        with pytest.raises(ProblemError, match="on its way"):
            service.session(played.model_copy(update={"final": final}))
        assert left_of(service) == 0, name
    picked = HomeRequest(user_id=USER, onboarding=Onboarding(items=["item-01"]))
    for owner, name in ((service.run.store, "onboard"), (service.log, "append")):
        erasing_before(owner, name)
        with pytest.raises(ErasedError):
            service.home(picked)
        assert left_of(service) == 0, name
    page = json.loads(service.home(HomeRequest(user_id=USER)))
    erasing_before(service.run.store, "saw")
    event = FeedbackItem(event_id="seen", row=0, column=0, seen=True)
    service.feedback(FeedbackRequest(request_id=page["request_id"], events=[event]))
    assert left_of(service) == 0
    assert service.session(played)["status"] == "committed"  # who comes back is welcome
    assert left_of(service) == 2


def left_of(service: HomeService) -> int:
    """Rows of the listener in all stores."""
    root = service.run.paths.root
    tables = (("listeners.sqlite", "listeners"), ("listeners.sqlite", "exposures"), ("sessions.sqlite", "session"))
    count = 0
    for file, table in (*tables, ("log.sqlite", "decision")):
        with closing(sqlite3.connect(root / file)) as connection:
            count += connection.execute(f"SELECT count(*) FROM {table} WHERE user_id = ?", (USER,)).fetchone()[0]
    return count


def test_an_erasure_over_http_answers_with_a_receipt_although_the_file_cannot_be_rebuilt(
    service: HomeService, client_of: Callable[..., Any]
) -> None:
    use(service, 1)
    with client_of(service) as client, holding(RunPaths(service.run.paths.root).log):
        answer = client.delete(f"/v1/listeners/{USER}")
        assert answer.status_code == 200
        assert answer.json()["pages"] == 1
        assert answer.json()["compacted"] is False


def test_free_pages_and_write_ahead_logs_of_stores_are_overwritten(service: HomeService) -> None:
    use(service)
    erase_listener(service, USER, now())
    for name in ("listeners.sqlite", "sessions.sqlite"):
        connection = sqlite3.connect(service.run.paths.root / name)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        wal = service.run.paths.root / f"{name}-wal"
        assert not wal.exists() or USER.encode() not in wal.read_bytes()


def test_a_page_for_a_time_before_an_erasure_is_refused_for_good(service: HomeService, client_of: Any) -> None:
    before = now()
    erase_listener(service, "listener-01", now())
    with client_of(service) as client:
        answer = client.post("/v1/home", json={"user_id": "listener-01", "at": before.isoformat()})
        assert answer.status_code == 409
        assert client.post("/v1/home", json={"user_id": "listener-01"}).status_code == 200
