"""What one process takes and refuses: connections, heads, half requests, wrong keys, open routes, reports."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse

from api.http.connections import Connections
from api.run.settings import load_settings
from api.service.service import open_service

ClientOf = Callable[..., Any]


def limited(**limits: Any) -> Any:
    return load_settings({"page": {"rows": 3, "columns": 4}, "limits": limits})


@contextmanager
def serving(run: Path, **limits: Any) -> Iterator[tuple[Any, int]]:
    """The application's state, and the port of its server."""
    import uvicorn

    from api.http.app import create_app
    from api.http.connections import LimitedProtocol

    with socket.socket() as listening, open_service(run, limited(**limits)) as service:
        listening.bind(("127.0.0.1", 0))
        app = create_app(service)
        app.add_route("/large", lambda _: StreamingResponse(iter([b"x" * 65536] * 500)))
        server = uvicorn.Server(uvicorn.Config(app, http=LimitedProtocol, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield app.state, int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


HEAD = b"POST /v1/home HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 40\r\n"


def is_closed(link: socket.socket) -> bool:
    link.settimeout(30)
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", HEAD[:30], HEAD, HEAD + b"\r\n", HEAD + b'\r\n{"user_id"'])
def test_half_requests_are_closed_after_their_time(small_run: Path, sent: bytes) -> None:
    with serving(small_run, request_s=0.2) as (state, port), socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(sent)
        assert is_closed(link)
        assert 'bart_refused_total{limit="slow"} 1.0' in state.service.metrics.text().decode()


def test_more_half_requests_than_connections_keep_nobody_out(small_run: Path) -> None:
    with serving(small_run, connections=10, request_s=60) as (state, port), ExitStack() as links:
        half = [links.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(30)]
        for link in half:
            link.sendall(HEAD)
        for _ in range(3):
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/home", json={"user_id": "u"})
            assert answer.status_code == 200
        assert all(is_closed(link) for link in half[:20])  # those that waited longest gave way
        text = state.service.metrics.text().decode()
    count = float(text.split('bart_refused_total{limit="connections"} ')[1].split("\n")[0])
    assert count >= 20


def test_clients_that_do_not_read_what_is_answered_are_closed_and_keep_nobody_out(small_run: Path) -> None:
    asking = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(small_run, connections=8, request_s=0.5) as (state, port), ExitStack() as links:
        for _ in range(8):
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            links.enter_context(link).connect(("127.0.0.1", port))
            link.sendall(asking * 100)  # some megabytes are answered
        for _ in range(3):
            assert httpx.post(f"http://127.0.0.1:{port}/v1/home", json={"user_id": "u"}).status_code == 200
        until = time.monotonic() + 30
        while 'limit="slow"' not in (text := state.service.metrics.text().decode()) and time.monotonic() < until:
            time.sleep(0.1)
        assert 'bart_refused_total{limit="slow"}' in text


def test_clients_that_stop_reading_in_the_midst_of_an_answer_are_closed_without_an_error(
    small_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An answer in several parts waits for its client between them, and so does the next one of a pipeline."""
    with serving(small_run, connections=20, request_s=0.5) as (state, port), ExitStack() as links:
        for _ in range(20):
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            links.enter_context(link).connect(("127.0.0.1", port))
            link.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
        until = time.monotonic() + 30
        while (
            'bart_refused_total{limit="slow"} 20.0' not in (text := state.service.metrics.text().decode())
            and time.monotonic() < until
        ):
            time.sleep(0.1)
        assert 'bart_refused_total{limit="slow"} 20.0' in text
        assert httpx.post(f"http://127.0.0.1:{port}/v1/home", json={"user_id": "u"}).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_descriptors_without_a_limit_leave_the_limit_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Connections(limited(connections=700).limits, lambda _: None).most == 700


def test_a_head_without_an_end_is_refused(small_run: Path) -> None:
    with serving(small_run, header_kb=4) as (_, port), socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: b\r\n" * 1000)
        assert link.recv(100).startswith(b"HTTP/1.1 431 ")
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/home", json={"user_id": "x" * 100_000})  # a body may be longer
        assert answer.status_code == 422


def test_a_connection_serves_many_requests_one_after_another(small_run: Path) -> None:
    with (
        serving(small_run, request_s=0.5) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for body in ({"user_id": "u"}, {"user_id": ""}, {"user_id": "y" * 2_000_000}, {"user_id": "u"}):
            answer = client.post("/v1/home", json=body)
            assert answer.status_code in (200, 413, 422)
        assert answer.status_code == 200


def test_wrong_keys_have_a_rate_and_the_right_one_goes_on_working(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, limited(wrong_keys=0.001)) as service, client_of(service) as client:
        told = [client.get("/v1/control", headers={"x-api-key": f"guess {n}"}) for n in range(3)]
        assert [one.status_code for one in told] == [401, 401, 401]
        assert "retry-after" not in told[0].headers
        assert int(told[-1].headers["retry-after"]) > 0
        assert client.get("/v1/control").status_code == 200
        assert 'bart_refused_total{limit="keys"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize("path", ["/v1/onboarding", "/health", "/ready", "/metrics"])
def test_open_routes_have_a_rate(small_run: Path, client_of: ClientOf, path: str) -> None:
    with open_service(small_run, limited(open_rate=1.5)) as service, client_of(service) as client:
        told = [client.get(path).status_code for _ in range(8)]
        assert told[:3] == [200] * 3
        assert 429 in told
        assert client.post("/v1/home", json={"user_id": "u"}).status_code == 200


def events(*names: str) -> list[dict[str, Any]]:
    return [{"event_id": name, "row": 0, "column": 0, "seen": True} for name in names]


def test_reports_of_one_page_end_at_a_number_and_repetitions_do_not_count(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, limited(reports=3)) as service, client_of(service) as client:
        page = client.post("/v1/home", json={"user_id": "listener-03"}).json()["request_id"]

        def report(*names: str) -> dict[str, Any]:
            told = client.post("/v1/feedback", json={"request_id": page, "events": events(*names)})
            assert told.status_code == 202
            return dict(told.json())

        assert report("1", "2", "3")["accepted"] == 3
        told = report("4", "2", "5")
        assert told["repeated"] == 1
        assert [(one["index"], one["event_id"]) for one in told["rejected"]] == [(0, "4"), (2, "5")]
        assert "expected at most 3" in told["rejected"][0]["reason"]
        assert report("1", "3")["repeated"] == 2
        assert 'bart_refused_total{limit="reports"} 2.0' in client.get("/metrics").text


def test_what_waits_for_unknown_pages_has_a_limit(
    small_run: Path, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.report_limits.LOOK_S", 0.0)
    with open_service(small_run, limited(quarantine=4)) as service, client_of(service) as client:
        told = [
            client.post("/v1/feedback", json={"request_id": f"page {n}", "events": events("1", "2")}).json()
            for n in range(3)
        ]
        assert [one["quarantined"] for one in told] == [2, 2, 0]
        assert len(told[2]["rejected"]) == 2
        again = client.post("/v1/feedback", json={"request_id": "page 0", "events": events("1")}).json()
        assert (again["repeated"], again["rejected"]) == (1, [])
