"""Whatever comes in, the answer is a page or a problem document of the 400s, and the log stays whole."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from httpx import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from api.run.settings import load_settings
from api.service.service import open_service
from bart.log.care.verify import verify
from benchmarks.served.document import Document

ClientOf: TypeAlias = Callable[..., Client]

VALID: dict[str, dict[str, Any]] = {
    "/v1/home": {
        "user_id": "listener-01",
        "device": "mobile",
        "surface": "radio",
        "country": "SE",
        "tz": "Europe/Stockholm",
        "explicit_allowed": False,
        "rows": 3,
        "columns": 4,
        "idempotency_key": "k",
        "seed": 3,
        "at": "2026-02-03T04:05:06Z",
        "onboarding": {"items": ["item-01"], "artists": ["Artist 1"], "genres": ["folk"]},
    },
    "/v1/rank": {
        "user_id": "listener-01",
        "shelves": [
            {"title": "A", "rule": "a", "explanation": "why", "items": ["item-01", "item-02"], "scores": [0.5, 0.25]},
            {"title": "B", "items": ["item-02", "item-03"], "scores": [1, -3.5]},
        ],
    },
    "/v1/feedback": {
        "request_id": "r",
        "events": [
            {"event_id": "1", "displayed": True, "occurred_at": "2026-02-03T04:05:06+05:30"},
            {"event_id": "2", "row": 0, "column": 0, "seen": True, "listened_s": 3.5, "skipped": True, "saved": False},
        ],
    },
    "/v1/sessions": {
        "user_id": "listener-01",
        "session_id": "s",
        "final": False,
        "device": "speaker",
        "tz": "UTC",
        "started_at": "2026-02-03T04:05:06Z",
        "plays": [
            {"item_id": "item-01", "started_at": "2026-02-03T04:05:06Z", "listened_s": 30, "skipped": False},
            {"item_id": "never heard of"},
        ],
    },
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "\x00", "x" * 5000, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "Etc/GMT+12"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in places(inner, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.fixture(scope="module")
def served(
    built_run: Path, tmp_path_factory: pytest.TempPathFactory, client_of: ClientOf
) -> Iterator[tuple[Client, Path]]:
    import shutil

    run = Path(shutil.copytree(built_run, tmp_path_factory.mktemp("fuzz") / "run"))
    with (
        open_service(run, load_settings({"page": {"rows": 3, "columns": 4}})) as service,
        client_of(service, raise_server_exceptions=False) as client,
    ):
        yield client, run


def is_answered(client: Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (path, body, answer.text)
    kind = "application/json" if answer.is_success else "application/problem+json"
    assert answer.headers["content-type"] == kind


@pytest.mark.parametrize("path", VALID)
def test_the_valid_requests_are_valid(served: tuple[Client, Path], path: str) -> None:
    body = {**VALID[path], "user_id": "somebody new"} if "user_id" in VALID[path] else VALID[path]
    assert served[0].post(path, json=body).is_success


@settings(max_examples=300, derandomize=True)
@given(data=st.data())
def test_one_odd_value_anywhere_is_no_failure(served: tuple[Client, Path], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(VALID)))
    place = data.draw(st.sampled_from(places(VALID[path])))
    body = json.dumps(changed(VALID[path], place, data.draw(ODD)))
    is_answered(served[0], path, body.encode())


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_bytes_that_are_cut_or_altered_are_no_failure(served: tuple[Client, Path], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(VALID)))
    body = bytearray(json.dumps(VALID[path]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    is_answered(served[0], path, bytes(body[: data.draw(st.integers(0, len(body)))]))


def test_requests_made_from_the_document_are_answered_as_it_says(served: tuple[Client, Path]) -> None:
    client, _ = served
    document, rng = Document(client.get("/openapi.json").json()), random.Random(1)
    page = client.post("/v1/home", json={"user_id": "listener-02"}).json()
    document.known = {"user_id": ["listener-02"], "request_id": [page["request_id"]], "item_id": ["item-01"]}
    begins_a_process = {"/v1/simulation", "/v1/operate/verification"}
    for operation in (one for one in document.operations if one.method != "POST" or one.path not in begins_a_process):
        for _ in range(8):
            path, body = document.request(operation, rng)
            answer = client.request(operation.method, path, json=body)
            media_type = answer.headers["content-type"].partition(";")[0]
            assert document.against(operation, answer.status_code, media_type, answer.content) == "", (path, body)
            assert answer.status_code < 500


def test_the_log_is_whole_after_all_that(served: tuple[Client, Path]) -> None:
    assert served[0].post("/v1/home", json={"user_id": "listener-02"}).is_success
    found = verify(served[1] / "log.sqlite")
    assert found.problem_count == 0
    assert found.records > 0
