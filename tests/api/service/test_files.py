"""A service that cannot keep what it would acknowledge says so at once, by the file's name."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.run.settings import load_settings
from api.service.files import EVERY_S
from api.service.service import HomeService, open_service
from bart.log.care.verify import verify

FILES = ("log.sqlite", "listeners.sqlite", "sessions.sqlite", "control.sqlite")


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings({"page": {"rows": 4, "columns": 5}})) as opened:
        yield opened


def asked(client: Any) -> dict[str, Any]:
    """Answers to what writes, and whether the service is ready."""
    session = {"user_id": "listener-01", "session_id": "s", "final": False, "plays": [{"item_id": "item-01"}]}
    event = {"event_id": "e", "row": 0, "column": 0, "seen": True}
    bodies = {
        "/v1/home": {"user_id": "listener-01"},
        "/v1/feedback": {"request_id": "unknown", "events": [event]},
        "/v1/sessions": session,
    }
    return {"/ready": client.get("/ready"), **{path: client.post(path, json=body) for path, body in bodies.items()}}


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_removed_or_replaced_while_it_serves_is_noticed(
    name: str, replaced: bool, service: HomeService, client_of: Callable[..., Any]
) -> None:
    file = service.run.paths.root / name
    with client_of(service) as client:
        assert {answer.status_code for answer in asked(client).values()} <= {200, 202}
        os.rename(file, file.with_name("away"))
        if replaced:
            shutil.copy(file.with_name("away"), file)
        time.sleep(2 * EVERY_S)
        for path, answer in asked(client).items():
            assert answer.status_code == 503, path
            assert name in answer.json()["detail"], path
        assert client.get("/health").status_code == 200
        os.replace(file.with_name("away"), file)
        time.sleep(2 * EVERY_S)
        assert {answer.status_code for answer in asked(client).values()} <= {200, 202}
    assert verify(service.run.paths.log).ok


def test_a_log_that_cannot_be_written_makes_the_service_unready_and_names_itself(
    service: HomeService, client_of: Callable[..., Any]
) -> None:
    with client_of(service) as client:
        service.log._connection.execute("PRAGMA query_only = ON")  # as on a disk that is read-only
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "log.sqlite" in answer.json()["detail"]
        service.log._connection.execute("PRAGMA query_only = OFF")
        assert client.get("/ready").status_code == 200


@contextmanager
def no_room(file: Path) -> Iterator[None]:
    """No file of this process grows beyond the size that one has now: the system refuses, as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_makes_the_service_unready_until_there_is_room(
    service: HomeService, client_of: Callable[..., Any]
) -> None:
    with client_of(service) as client:
        for _ in range(100):  # larger than any other file that is written meanwhile
            assert client.post("/v1/home", json={"user_id": "listener-01"}).status_code == 200
        with no_room(service.run.paths.log.with_name("log.sqlite-wal")):
            for answer in (client.get("/ready"), client.post("/v1/home", json={"user_id": "listener-01"})):
                assert answer.status_code == 503
                assert "log.sqlite" in answer.json()["detail"]
            assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.post("/v1/home", json={"user_id": "listener-01"}).status_code == 200
    assert verify(service.run.paths.log).ok


SESSION = {"user_id": "listener-01", "session_id": "s", "final": False, "plays": [{"item_id": "item-01"}]}
WRITES: dict[str, tuple[str, str, Any]] = {
    "log.sqlite": ("POST", "/v1/home", {"user_id": "listener-01"}),
    "sessions.sqlite": ("POST", "/v1/sessions", SESSION),
    "listeners.sqlite": ("POST", "/v1/home", {"user_id": "new", "onboarding": {"items": ["item-01"]}}),
    "control.sqlite": ("POST", "/v1/control", {"switch": "explore", "state": "off"}),
    "an item": ("PUT", "/v1/items/new", {"title": "New"}),
    "a takedown": ("DELETE", "/v1/items/item-01", None),
    "a check": ("POST", "/v1/operate/verification", {}),
    "a simulation": ("POST", "/v1/simulation", {}),
}


@pytest.mark.parametrize("what", WRITES)
def test_whatever_is_to_be_written_on_a_full_disk_is_a_503_that_names_the_file(
    what: str, service: HomeService, client_of: Callable[..., Any], tmp_path: Path
) -> None:
    method, path, body = WRITES[what]
    (tmp_path / "empty").touch()
    with client_of(service) as client:
        with no_room(tmp_path / "empty"):
            answer = client.request(method, path, json=body)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        if what.endswith(".sqlite"):
            assert what in answer.json()["detail"]
        assert client.request(method, path, json=body).status_code in (200, 202)
