"""Pages with their numbers, for administrators; and the small print of requests: locales, parameters, retries."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.run.settings import load_settings
from api.run.versions import Versions
from api.service.service import open_service

ClientOf = Callable[..., Any]
KEY = {"x-api-key": "admin key"}


def settings(**serve: Any) -> Any:
    return load_settings({"page": {"rows": 4, "columns": 5}, "serve": serve})


def test_the_numbers_on_a_debugged_page_are_those_of_its_record(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings()) as service, client_of(service) as client:
        page = client.post("/v1/home?debug=true", json={"user_id": "listener-03"}).json()
        decision = client.get(f"/v1/decisions/{page['request_id']}").json()
    assert set(page) == {"request_id", "batch_id", "shelves", "debug"}
    product = 1.0
    for shelf, logged in zip(page["shelves"], decision["page"], strict=True):
        assert shelf["propensity"] == logged["propensity"]
        product *= shelf["propensity"]
        for card, told in zip(shelf["cards"], logged["cards"], strict=True):
            numbers = ("item_id", "score", "raw_score", "propensity", "pinned")
            assert {name: card[name] for name in numbers} == {name: told[name] for name in numbers}
            product *= card["propensity"]
    assert page["debug"]["propensity"] == decision["page_propensity"]
    assert math.isclose(product, page["debug"]["propensity"], rel_tol=1e-9)
    for name in ("model_id", "arm", "forced", "policy", "rules_version", "shelf_epsilon", "card_epsilon"):
        assert page["debug"][name] == decision[name]


def test_debugging_changes_neither_the_draw_nor_the_record(small_run: Path, client_of: ClientOf) -> None:
    asked = {"user_id": "listener-03", "idempotency_key": "k"}
    with open_service(small_run, settings()) as service, client_of(service) as client:
        plain = client.post("/v1/home", json=asked).json()
        told = client.post("/v1/home?debug=true", json=asked).json()
        again = client.post("/v1/home?debug=false", json=asked).json()
        decision = service.log.get(plain["request_id"])
        assert len(service.log) == 1
    assert again == plain
    assert [[card["item_id"] for card in shelf["cards"]] for shelf in told["shelves"]] == [
        [card["item_id"] for card in shelf["cards"]] for shelf in plain["shelves"]
    ]
    assert decision is not None
    assert not decision.forced


def test_shelves_that_the_caller_brings_can_be_debugged_too(small_run: Path, client_of: ClientOf) -> None:
    shelf = {"title": "Mine", "items": ["item-001", "item-002"], "scores": [0.25, 0.5]}
    with open_service(small_run, settings()) as service, client_of(service) as client:
        items = service.run.items.item_id[:2].tolist()
        page = client.post(
            "/v1/rank?debug=true",
            json={"user_id": "u", "rows": 1, "columns": 2, "shelves": [{**shelf, "items": items}]},
        ).json()
    assert {card["item_id"]: card["score"] for card in page["shelves"][0]["cards"]} == dict(
        zip(items, (0.25, 0.5), strict=True)
    )


def test_only_an_administrator_debugs(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings(admin_key="admin key")) as service, client_of(service) as client:
        for headers, status in ((KEY, 200), ({}, 401), ({"x-api-key": "another"}, 401)):
            answer = client.post("/v1/home?debug=true", json={"user_id": "u"}, headers=headers)
            assert answer.status_code == status
        assert len(service.log) == 1


def test_debugging_is_off_beyond_this_machine_unless_switched_on(small_run: Path, client_of: ClientOf) -> None:
    for serve, status in (({}, 200), ({"debug": False}, 403), ({"host": "0.0.0.0"}, 403)):
        asked = settings(admin_key="admin key", **serve)
        with open_service(small_run, asked) as service, client_of(service) as client:
            assert client.post("/v1/home?debug=true", json={"user_id": "u"}, headers=KEY).status_code == status
    asked = settings(admin_key="admin key", host="0.0.0.0", debug=True)
    with open_service(small_run, asked) as service, client_of(service) as client:
        assert client.post("/v1/home?debug=true", json={"user_id": "u"}, headers=KEY).status_code == 200


def test_debug_is_true_or_false_and_of_pages(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings()) as service, client_of(service) as client:
        answer = client.post("/v1/home?debug=maybe", json={"user_id": "u"})
        assert (answer.status_code, answer.json()["detail"]) == (422, "debug: expected true or false")
        events = {"request_id": "r", "events": [{"event_id": "1"}]}
        answer = client.post("/v1/feedback?debug=true", json=events)
        assert (answer.status_code, answer.json()["detail"]) == (422, "debug: expected with a page only")
        assert len(service.log) == 0


@pytest.mark.parametrize(
    ("locale", "status"), [("sv-SE", 200), ("zh_Hant_TW", 200), ("", 200), ("s", 422), ("x" * 40, 422)]
)
def test_a_locale_is_taken_where_it_can_be_one(small_run: Path, client_of: ClientOf, locale: str, status: int) -> None:
    with open_service(small_run, settings()) as service, client_of(service) as client:
        assert client.post("/v1/home", json={"user_id": "u", "locale": locale}).status_code == status


def test_a_parameter_that_does_not_fit_is_a_problem_document(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings()) as service, client_of(service) as client:
        answer = client.get("/v1/decisions/x/why?row=first&column=0")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith("row: ")


def test_feedback_sent_again_without_a_time_is_the_same_feedback(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, settings()) as service, client_of(service) as client:
        page = client.post("/v1/home", json={"user_id": "listener-03"}).json()["request_id"]
        for request_id, first in ((page, "accepted"), ("not-known-yet", "quarantined")):
            asked = {"request_id": request_id, "events": [{"event_id": "1", "row": 0, "column": 0, "seen": True}]}
            told = [client.post("/v1/feedback", json=asked).json() for _ in range(3)]
            assert [one[first] for one in told] == [1, 0, 0]
            assert [one["repeated"] for one in told] == [0, 1, 1]
            assert [one["conflicting"] for one in told] == [0, 0, 0]
            other = {"event_id": "1", "row": 0, "column": 0, "seen": True, "saved": True}
            changed = client.post("/v1/feedback", json={**asked, "events": [other]}).json()
            assert changed["conflicting" if first == "accepted" else "quarantined"] == 1


def test_a_decision_is_told_with_contributions_after_another_model_of_its_batch_serves(
    demo_run: Path, tmp_path: Path, client_of: ClientOf
) -> None:
    run = Path(shutil.copytree(demo_run, tmp_path / "run", symlinks=True))
    versions = Versions(run)
    listed = versions.list()
    now, before = versions.active(), next(one for one in listed if not one.active)
    with open_service(run, settings()) as service, client_of(service) as client:
        page = client.post("/v1/home", json={"user_id": service.listeners()[0]}).json()["request_id"]
        told = client.get(f"/v1/decisions/{page}").json()
    versions.activate(before.name, "another model")
    with open_service(run, settings()) as service, client_of(service) as client:
        assert service.run.bundle.path.resolve().name != now
        assert client.get(f"/v1/decisions/{page}").json() == told
        assert client.post("/v1/home", json={"user_id": "u"}).status_code == 200
    assert all("contributions" in card for shelf in told["page"] for card in shelf["cards"])
