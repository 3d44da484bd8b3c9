"""The HTTP service: what it answers, what it refuses, and what stands in the log afterwards."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from httpx import Client, Response

from api.run.keys import run_key
from api.run.settings import load_settings
from api.service.service import HomeService, open_service
from api.wire.schemas import HomeRequest
from bart.errors import BundleError, LogError
from bart.log.care.erasure import erase_user
from bart.log.care.verify import verify

ROWS, COLUMNS = 4, 5
ClientOf: TypeAlias = Callable[..., Client]


def settings(**serve: Any) -> Any:
    return load_settings({"page": {"rows": ROWS, "columns": COLUMNS}, "serve": serve})


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, settings()) as found:
        yield found


@pytest.fixture
def client(service: HomeService, client_of: ClientOf) -> Iterator[Client]:
    with client_of(service) as found:
        yield found


def is_problem(answer: Response, status: int) -> str:
    """The detail of a problem document of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    return str(body["detail"])


# --------------------------------------------------------------------------------------------------------------- pages


def test_a_page_has_shelves_that_explain_themselves_and_cards_with_string_ids(client: Client) -> None:
    answer = client.post("/v1/home", json={"user_id": "listener-03", "tz": "Europe/Stockholm"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert set(page) == {"request_id", "batch_id", "shelves"}
    assert isinstance(page["request_id"], str)
    assert 0 < len(page["shelves"]) <= ROWS
    for shelf in page["shelves"]:
        assert set(shelf) == {"title", "key", "parameters", "explanation", "cards"}
        assert shelf["title"]
        assert 0 < len(shelf["cards"]) <= COLUMNS
        for card in shelf["cards"]:
            assert set(card) == {"item_id", "title", "type", "artists"}
            assert card["item_id"].startswith("item-")
            assert card["title"] == f"Song {int(card['item_id'][5:])}"
            assert card["type"] == "track"
            assert card["artists"] == [f"Artist {int(card['item_id'][5:]) % 10}"]
    ids = [card["item_id"] for shelf in page["shelves"] for card in shelf["cards"]]
    assert len(set(ids)) == len(ids)


def test_the_asked_size_is_the_size_of_the_page(client: Client) -> None:
    page = client.post("/v1/home", json={"user_id": "listener-03", "rows": 2, "columns": 3}).json()
    assert [len(shelf["cards"]) for shelf in page["shelves"]] == [3, 3]


def test_an_unknown_listener_gets_a_cold_start_page(client: Client, service: HomeService) -> None:
    page = client.post("/v1/home", json={"user_id": "nobody ☃"}).json()
    assert sum(len(shelf["cards"]) for shelf in page["shelves"]) > COLUMNS
    assert service.run.store.get("nobody ☃") is None  # a visit commits nothing


def test_the_page_is_in_the_log_as_it_was_answered_and_the_log_verifies(
    client: Client, service: HomeService, small_run: Path
) -> None:
    for number in range(12):
        page = client.post("/v1/home", json={"user_id": f"listener-{number:02d}", "device": "speaker"}).json()
        decision = service.log.get(page["request_id"])
        assert decision is not None
        assert decision.user_id == f"listener-{number:02d}"
        assert decision.context.device == "speaker"
        assert decision.batch_id == page["batch_id"]
        assert not decision.forced
        shown = [[decision.item_id[card] for card in row if card >= 0] for row in decision.page.card.tolist()]
        assert shown == [[card["item_id"] for card in shelf["cards"]] for shelf in page["shelves"]]
        assert np.isfinite(decision.page.shelf_propensity).all()
    found = verify(small_run / "log.sqlite")
    assert found.ok
    assert found.verified == 12


def test_the_local_clock_of_the_listener_is_recorded(client: Client, service: HomeService) -> None:
    page = client.post("/v1/home", json={"user_id": "listener-01", "tz": "Asia/Kolkata"}).json()
    decision = service.log.get(page["request_id"])
    assert decision is not None
    assert decision.context.utc_offset_min == 330


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"device": "a b"}, "device"),
        ({"device": "d" * 65}, "device"),
        ({"surface": ""}, "surface"),
        ({"country": "Sweden"}, "country"),
        ({"tz": "Middle/Earth"}, "tz"),
        ({"tz": "../../etc/passwd"}, "tz"),
        ({"rows": 0}, "rows"),
        ({"rows": 51}, "rows"),
        ({"columns": 101}, "columns"),
        ({"rows": "6"}, "rows"),
        ({"rows": 2.5}, "rows"),
        ({"explicit_allowed": "yes"}, "explicit_allowed"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**62}, "seed"),
        ({"at": "2024-05-01T08:00:00"}, "at"),
        ({"at": "0001-01-01T00:00:00+23:00"}, "at"),
        ({"onboarding": {}}, "onboarding"),
        ({"onboarding": {"items": ["i"] * 51}}, "onboarding.items"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_every_field_has_its_limits(client: Client, change: dict[str, Any], place: str) -> None:
    detail = is_problem(client.post("/v1/home", json={"user_id": "listener-01", **change}), 422)
    assert detail.startswith(place + ":")


def test_a_body_that_is_not_json_or_not_said_to_be_is_refused(client: Client) -> None:
    kind = {"content-type": "application/json"}
    is_problem(client.post("/v1/home", content=b'{"user_id": ', headers=kind), 400)
    is_problem(client.post("/v1/home", content=b'{"user_id": "\\ud800"}', headers=kind), 400)
    is_problem(client.post("/v1/home", content=b"\xff\xfe", headers=kind), 400)
    is_problem(client.post("/v1/home", content=b"[]", headers=kind), 422)
    is_problem(client.post("/v1/home", headers=kind), 400)
    good = b'{"user_id": "listener-01"}'
    is_problem(client.post("/v1/home", content=good, headers={"content-type": "text/plain"}), 415)
    assert client.post("/v1/home", content=good, headers={"content-type": "application/json; charset=utf-8"}).is_success


def test_a_body_over_a_megabyte_is_refused(client: Client) -> None:
    detail = is_problem(client.post("/v1/home", json={"user_id": "x" * 2_000_000}), 413)
    assert "1,048,576" in detail


def test_unknown_paths_and_methods_are_problems_too(client: Client) -> None:
    is_problem(client.get("/v2/home"), 404)
    answer = client.get("/v1/home")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


# ---------------------------------------------------------------------------------------------------------- same again


def test_a_retry_with_the_same_key_gets_the_same_page_logged_once(client: Client, service: HomeService) -> None:
    ask = {"user_id": "listener-05", "idempotency_key": "tap-1"}
    first = client.post("/v1/home", json=ask).json()
    assert client.post("/v1/home", json=ask).json() == first
    assert len(service.log) == 1
    assert client.post("/v1/home", json={**ask, "idempotency_key": "tap-2"}).json() != first
    other = client.post("/v1/home", json={**ask, "user_id": "listener-06"}).json()
    assert other["request_id"] != first["request_id"]
    assert len(service.log) == 3


def test_the_same_page_comes_after_a_restart(small_run: Path, client_of: ClientOf) -> None:
    ask = {"user_id": "listener-05", "idempotency_key": "tap-1"}
    pages = []
    for _ in range(2):
        with open_service(small_run, settings()) as service, client_of(service) as client:
            pages.append(client.post("/v1/home", json=ask).json())
            assert len(service.log) == 1
    assert pages[0] == pages[1]


def test_two_retries_at_once_get_one_page(
    service: HomeService, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    with client_of(service) as client:
        ask = {"user_id": "listener-05", "idempotency_key": "tap-1"}
        first = client.post("/v1/home", json=ask).json()
        get, asked = type(service.log).get, []

        def blind_once(log: Any, request_id: str) -> Any:
            asked.append(request_id)
            return None if len(asked) == 1 else get(log, request_id)  # as if the other were not in the log yet

        monkeypatch.setattr(type(service.log), "get", blind_once)
        assert json.loads(service.home(HomeRequest(**ask))) == first
    assert len(service.log) == 1


def test_a_key_cannot_be_used_for_another_request(client: Client) -> None:
    ask = {"user_id": "listener-05", "idempotency_key": "tap-1"}
    client.post("/v1/home", json=ask)
    changes: list[dict[str, Any]] = [
        {"device": "speaker"}, {"rows": 2}, {"surface": "radio"}, {"country": "SE"}, {"tz": "Asia/Kolkata"},
        {"locale": "sv-SE"}, {"explicit_allowed": False}, {"columns": 3}, {"shadow": True}, {"seed": 4},
        {"at": "2026-01-01T08:00:00Z"}, {"onboarding": {"genres": ["folk"]}},
    ]  # fmt: skip
    for change in changes:
        assert "idempotency_key" in is_problem(client.post("/v1/home", json={**ask, **change}), 422), change
    shelves = [{"title": "Mine", "items": ["item-01", "item-02"]}]
    assert "idempotency_key" in is_problem(client.post("/v1/rank", json={**ask, "shelves": shelves}), 422)
    assert client.post("/v1/home", json=ask).is_success


def test_given_candidates_are_part_of_the_request_that_a_key_is_for(client: Client) -> None:
    shelf = {"title": "Mine", "items": ["item-01", "item-02"], "scores": [0.5, 0.25]}
    ask = {"user_id": "listener-05", "idempotency_key": "tap-1", "rows": 1, "columns": 2}
    first = client.post("/v1/rank", json={**ask, "shelves": [shelf]}).json()
    assert client.post("/v1/rank", json={**ask, "shelves": [shelf]}).json() == first
    for change in ({"items": ["item-01", "item-03"]}, {"scores": [0.5, 0.3]}, {"title": "Yours"}, {"rule": "other"}):
        answer = client.post("/v1/rank", json={**ask, "shelves": [{**shelf, **change}]})
        assert "idempotency_key" in is_problem(answer, 422), change


def test_keys_of_one_listener_draw_apart_and_nobody_foretells_their_seeds(client: Client, service: HomeService) -> None:
    pages = [
        client.post("/v1/home", json={"user_id": "listener-05", "idempotency_key": f"tap-{n}"}).json() for n in range(4)
    ]
    seeds = {decision.seed for decision in service.log.decisions()}
    assert len(seeds) == len({page["request_id"] for page in pages}) == 4


def test_the_key_of_an_erased_page_is_used_up(client: Client, service: HomeService) -> None:
    ask = {"user_id": "listener-05", "idempotency_key": "tap-1"}
    client.post("/v1/home", json=ask)
    erase_user(service.log, "listener-05", datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert "erased" in is_problem(client.post("/v1/home", json=ask), 409)
    assert client.post("/v1/home", json={**ask, "idempotency_key": "tap-2"}).is_success


def test_the_key_of_a_run_is_secret_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    key = run_key(path)
    assert len(key) == 32
    assert run_key(path) == key
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir()] == ["service.key"]


# ------------------------------------------------------------------------------------------------------------ feedback


def test_feedback_is_merged_whatever_its_order_and_number(client: Client, service: HomeService) -> None:
    request_id = client.post("/v1/home", json={"user_id": "listener-05"}).json()["request_id"]
    heard = {"event_id": "2", "row": 0, "column": 1, "seen": True, "listened_s": 44.5, "skipped": False}
    events = [heard, {"event_id": "1", "displayed": True, "occurred_at": "2026-01-01T12:00:00Z"}]
    answer = client.post("/v1/feedback", json={"request_id": request_id, "events": events})
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": 2, "repeated": 0, "conflicting": 0, "late": 0, "quarantined": 0, "rejected": [],
    }  # fmt: skip
    again = client.post("/v1/feedback", json={"request_id": request_id, "events": events[1:]}).json()
    assert again["repeated"] == 1
    joined = service.log.joined(request_id)
    assert joined is not None
    assert joined.displayed
    assert joined.seen.sum() == 1
    assert joined.listened_s[0, 1] == 44.5


def test_events_that_do_not_fit_are_named_and_do_not_hold_up_the_others(client: Client) -> None:
    request_id = client.post("/v1/home", json={"user_id": "listener-05"}).json()["request_id"]
    events = [
        {"event_id": "good", "row": 0, "column": 0, "seen": True},
        {"event_id": "off the page", "row": 40, "column": 0, "seen": True},
        {"event_id": "contradicts itself", "row": 0, "column": 1, "seen": False, "listened_s": 3.0},
    ]
    answer = client.post("/v1/feedback", json={"request_id": request_id, "events": events}).json()
    assert answer["accepted"] == 1
    assert [(one["index"], one["event_id"]) for one in answer["rejected"]] == [
        (1, "off the page"),
        (2, "contradicts itself"),
    ]
    assert "no card at row 40" in answer["rejected"][0]["reason"]


def test_feedback_for_an_unknown_page_is_kept_apart(client: Client, service: HomeService) -> None:
    report = {"request_id": "never heard of", "events": [{"event_id": "1", "displayed": True}]}
    answer = client.post("/v1/feedback", json=report)
    assert answer.status_code == 202
    assert answer.json()["quarantined"] == 1
    assert service.log.stats().quarantined == 1


@pytest.mark.parametrize(
    ("event", "place"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "1", "row": 50, "column": 0}, "row"),
        ({"event_id": "1", "listened_s": -1}, "listened_s"),
        ({"event_id": "1", "listened_s": 86_401}, "listened_s"),
        ({"event_id": "1", "seen": 1}, "seen"),
        ({"event_id": "1", "occurred_at": "yesterday"}, "occurred_at"),
        ({"event_id": "1", "occurred_at": "9999-12-31T23:59:59-23:00"}, "occurred_at"),
        ({"event_id": "1", "mood": "good"}, "mood"),
    ],
)
def test_feedback_has_its_limits(client: Client, event: dict[str, Any], place: str) -> None:
    detail = is_problem(client.post("/v1/feedback", json={"request_id": "r", "events": [event]}), 422)
    assert detail.startswith(f"events.0.{place}:")


def test_a_batch_of_feedback_is_neither_empty_nor_endless(client: Client) -> None:
    is_problem(client.post("/v1/feedback", json={"request_id": "r", "events": []}), 422)
    many = [{"event_id": str(i), "displayed": True} for i in range(501)]
    is_problem(client.post("/v1/feedback", json={"request_id": "r", "events": many}), 422)


# --------------------------------------------------------------------------------------------------------------- state


def test_health_and_readiness_name_what_serves(client: Client, service: HomeService) -> None:
    expected = {
        "status": "ok",
        "batch_id": service.run.bundle.batch_id,
        "model_id": service.run.bundle.model_id,
    }
    assert client.get("/health").json() == expected
    assert client.get("/ready").json() == expected


def test_a_store_that_cannot_be_written_is_a_503_that_names_no_file(
    service: HomeService, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    def locked(*_: Any) -> None:
        raise LogError("/secret/place cannot be written") from sqlite3.OperationalError("database is locked")

    with client_of(service) as client:
        monkeypatch.setattr(type(service.log), "append_at_once", lambda *_: False)
        monkeypatch.setattr(type(service.log), "append_each", locked)
        answer = client.post("/v1/home", json={"user_id": "listener-01"})
        assert "secret" not in is_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
        monkeypatch.undo()
        assert client.post("/v1/home", json={"user_id": "listener-01"}).is_success
    assert len(service.log) == 1


def test_a_log_that_another_process_holds_is_a_503_and_recovers(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    monkeypatch.setattr("api.service.service.BUSY_TIMEOUT_S", 0.05)
    with open_service(small_run, settings()) as service, client_of(service) as client:
        other = sqlite3.connect(small_run / "log.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        is_problem(client.post("/v1/home", json={"user_id": "listener-01"}), 503)
        assert client.get("/health").is_success
        other.execute("ROLLBACK")
        other.close()
        assert client.post("/v1/home", json={"user_id": "listener-01"}).is_success
        assert len(service.log) == 1


def test_an_unexpected_failure_tells_the_client_nothing(
    service: HomeService, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(service.writer), "page", broken)
    with client_of(service, raise_server_exceptions=False) as client:
        assert "secret" not in is_problem(client.post("/v1/home", json={"user_id": "listener-01"}), 500)


def test_a_missing_run_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"), open_service(tmp_path / "none", settings()):
        pass
    assert not (tmp_path / "none").exists()


def test_opening_a_run_decides_a_page_that_is_not_logged(service: HomeService) -> None:
    assert len(service.log) == 0
    assert service.writer._card  # a page was written


# ------------------------------------------------------------------------------------------------------ administrators


def test_seed_and_time_make_the_same_page_again_and_mark_it(client: Client, service: HomeService) -> None:
    ask = {"user_id": "listener-02", "seed": 11, "at": "2026-01-01T08:00:00Z"}
    one, two = (client.post("/v1/home", json=ask).json() for _ in range(2))
    assert one["shelves"] == two["shelves"]
    assert one["request_id"] != two["request_id"]
    decision = service.log.get(one["request_id"])
    assert decision is not None
    assert decision.forced
    assert decision.seed == 11
    assert decision.context.hour == 8


def test_with_a_key_only_the_key_counts(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings(admin_key="correct horse")) as service, client_of(service) as client:
        is_problem(client.get("/v1/listeners"), 401)
        is_problem(client.get("/v1/listeners", headers={"x-api-key": "wrong"}), 401)
        is_problem(client.post("/v1/home", json={"user_id": "listener-02", "seed": 1}), 401)
        found = client.get("/v1/listeners", headers={"x-api-key": "correct horse"}).json()["listeners"]
        assert found[:2] == ["listener-00", "listener-01"]


# ----------------------------------------------------------------------------------------------------------- documents


def test_the_page_lets_nothing_in_from_elsewhere(client: Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    for path in ("/", "/static/app.js", "/static/style.css"):
        found = client.get(path)
        assert found.is_success
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in found.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in found.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", ['href="/" aria-current="page"']),
        ("/operate", ['href="/operate" aria-current="page"'] * 2),
        ("/operate/items", ['href="/operate" aria-current="true"', 'href="/operate/items" aria-current="page"']),
        (
            "/operate/listeners",
            ['href="/operate" aria-current="true"', 'href="/operate/listeners" aria-current="page"'],
        ),
        ("/simulate", ['href="/simulate" aria-current="page"']),
    ],
)
def test_the_links_of_each_page_say_where_one_is(client: Client, path: str, said: list[str]) -> None:
    assert re.findall(r'href="[^"]*" aria-current="[^"]*"', client.get(path).text) == said


def test_the_page_is_off_beyond_this_machine_unless_switched_on(small_run: Path, client_of: ClientOf) -> None:
    for serve, status in (({"host": "0.0.0.0"}, 404), ({"host": "0.0.0.0", "web": True}, 200), ({"web": False}, 404)):
        with open_service(small_run, settings(**serve)) as service, client_of(service) as client:
            assert client.get("/").status_code == status


def test_openapi_describes_every_route_with_bodies_examples_and_errors(client: Client) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert "$defs" not in json.dumps(document["components"]["schemas"][name])
    for path in ("/v1/home", "/v1/feedback", "/v1/sessions"):
        post = document["paths"][path]["post"]
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert document["components"]["schemas"][name]["examples"]
        assert "application/problem+json" in post["responses"]["default"]["content"]
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(document["components"]["schemas"])


def test_a_card_that_is_seen_on_six_pages_without_a_stream_rests(client: Client, service: HomeService) -> None:
    user = service.listeners()[-1]
    seen: dict[str, int] = {}
    for time in range(30):
        page = client.post("/v1/home", json={"user_id": user}).json()
        cards = {c["item_id"]: (r, k) for r, s in enumerate(page["shelves"]) for k, c in enumerate(s["cards"])}
        resting = {item for item, times in seen.items() if times >= 6}
        assert not resting & set(cards)
        if resting:
            return
        for item, (row, column) in cards.items():
            report = {"event_id": f"rest{time}{item}", "row": row, "column": column, "seen": True, "listened_s": 4.0}
            for _ in range(2):  # a repetition is not counted
                answer = client.post("/v1/feedback", json={"request_id": page["request_id"], "events": [report]})
                assert answer.status_code == 202
            seen[item] = seen.get(item, 0) + 1
    pytest.fail("no card was seen six times in thirty pages")
