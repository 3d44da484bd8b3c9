"""Who may administer: whoever has the key, and nobody else, from wherever and by whatever name a call comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from api.http.host_names import HostNames
from api.run.keys import admin_key
from api.run.settings import ServeSettings, load_settings
from api.service.service import HomeService, open_service
from bart.errors import DataError

ClientOf = Callable[..., Client]
OPEN = {"/v1/home", "/v1/rank", "/v1/feedback", "/v1/sessions", "/v1/onboarding", "/health", "/ready", "/metrics"}
CALLS = {
    "from this machine": {},
    "from elsewhere": {"client": ("203.0.113.9", 1)},
    "by this machine's name": {"headers": {"host": "localhost:8000"}},
    "by a name without a colon's port": {"headers": {"host": "[::1"}},
    "by an empty name": {"headers": {"host": ""}},
    "by a name of somebody": {"headers": {"host": "shop.example"}},
    "through a proxy that says so": {"headers": {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"}},
    "with an empty key": {"headers": {"x-api-key": ""}},
    "with a wrong key": {"headers": {"x-api-key": "guess"}},
    "with a key of bytes": {"headers": {"x-api-key": b"\xff\xfe"}},
}


@pytest.fixture(scope="module")
def service(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeService]:
    import shutil

    run = Path(shutil.copytree(built_run, tmp_path_factory.mktemp("access") / "run", symlinks=True))
    keys = {"app": {"sha256": sha256(b"app key").hexdigest(), "scopes": ["page", "feedback"]}}
    with open_service(run, load_settings({"serve": {"keys": keys}})) as found:
        yield found


WISHES = "/v1/listeners/user_id/preferences"  # an application answers for its listeners


def administration(client: Client) -> list[tuple[str, str]]:
    """Method and path of every call that asks for a key always: all but those of wishes for administrators alone."""
    document = client.app.openapi()  # type: ignore[attr-defined]
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, calls in document["paths"].items()
        for method in calls
        if path not in OPEN
    ]


@pytest.mark.parametrize("how", CALLS)
def test_without_the_key_nobody_administers_from_anywhere(service: HomeService, client_of: ClientOf, how: str) -> None:
    before = service.control.read(), service.control.history()
    with client_of(service, **{"headers": {}, **CALLS[how]}) as client:
        routes = administration(client)
        assert len(routes) >= 20
        for method, path in routes:
            assert client.request(method, path, json={}).status_code in (401, 403), (method, path)
        for change in ({"seed": 1}, {"at": "2026-01-01T08:00:00Z"}):
            assert client.post("/v1/home", json={"user_id": "u", **change}).status_code in (401, 403)
        assert client.post("/v1/home?debug=true", json={"user_id": "u"}).status_code in (401, 403)
    assert (service.control.read(), service.control.history()) == before


def test_a_key_of_pages_administers_nothing(service: HomeService, client_of: ClientOf) -> None:
    with client_of(service, headers={"x-api-key": "app key"}) as client:
        for method, path in administration(client):
            assert client.request(method, path, json={}).status_code == (200 if path == WISHES else 403), (method, path)
        assert client.post("/v1/home", json={"user_id": "u"}).status_code == 200


def test_the_key_administers_from_anywhere(service: HomeService, client_of: ClientOf) -> None:
    key = {"x-api-key": admin_key(service.run.paths.root, service.settings.serve)}
    with client_of(service, headers={**key, "x-forwarded-for": "10.1.2.3"}, client=("203.0.113.9", 1)) as client:
        assert client.get("/v1/control").status_code == 200


def test_the_key_of_a_run_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = admin_key(tmp_path, ServeSettings())
    assert len(key) >= 32
    assert admin_key(tmp_path, ServeSettings()) == key
    assert [(file.name, file.stat().st_mode & 0o777) for file in tmp_path.iterdir()] == [("admin.key", 0o600)]
    (tmp_path / "admin.key").chmod(0o644)
    with pytest.raises(DataError, match="can be read by others; expected mode 0600"):
        admin_key(tmp_path, ServeSettings())


def test_no_key_is_made_where_one_is_configured(tmp_path: Path) -> None:
    keys = {"ops": {"sha256": "0" * 64, "scopes": ["admin"]}}
    assert admin_key(tmp_path, load_settings({"serve": {"admin_key": "mine"}}).serve) == "mine"
    assert admin_key(tmp_path, load_settings({"serve": {"keys": keys}}).serve) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "short", "sixteen letters \u00e9"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "admin.key").write_text(text)
    (tmp_path / "admin.key").chmod(0o600)
    with pytest.raises(DataError, match="holds no key"):
        admin_key(tmp_path, ServeSettings())


def answered(serve: ServeSettings, *hosts: bytes, path: str = "/v1/control") -> int:
    """The status of a request with these Host headers; 200 where it gets through."""
    told: list[int] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        told.append(200)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    headers = [(b"host", host) for host in hosts]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(HostNames(inner, serve)(scope, None, send))  # type: ignore[arg-type]
    return told[0]


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:8000", b"127.0.0.1:1", b"[::1]:8000", b"127.8.9.1"])
def test_names_of_this_machine_are_always_taken(host: bytes) -> None:
    assert answered(ServeSettings(), host) == 200
    assert answered(ServeSettings(host="0.0.0.0", hosts=("bart.example",)), host) == 200


@pytest.mark.parametrize(
    "hosts",
    [(), (b"",), (b"evil.example",), (b"localhost.evil.example",), (b"evil.example@localhost",), (b"[::1",), (b"::1",),
     (b"localhost:port",), (b"localhost", b"evil.example"), (b"localhost, evil.example",), (b"\xff",), (b"[evil]",)],
)  # fmt: skip
def test_another_name_none_or_two_are_refused(hosts: tuple[bytes, ...]) -> None:
    assert answered(ServeSettings(), *hosts) == 403
    assert answered(ServeSettings(host="0.0.0.0", hosts=("bart.example",)), *hosts) == 403
    assert answered(ServeSettings(), *hosts, path="/ready") == 200


def test_configured_names_are_taken_and_without_any_a_service_for_others_takes_all() -> None:
    named = ServeSettings(hosts=("bart.example", "[2001:db8::1]"))
    assert answered(named, b"Bart.Example:443") == answered(named, b"[2001:db8::1]:8000") == 200
    assert answered(ServeSettings(host="0.0.0.0"), b"anything.example") == 200
