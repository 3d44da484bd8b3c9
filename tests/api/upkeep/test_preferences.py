"""What listeners ask for holds on every surface, at once, over builds, and leaves nothing behind where it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx import Client

from api.jobs.rank_all import rank_all
from api.run.progress import Quiet
from api.run.runs import RunPaths, open_run
from api.run.settings import load_settings
from api.service.service import HomeService, open_service
from api.upkeep.listener_admin import is_genuine
from bart.log.care.export import export_log
from bart.types.wishes import UNNAMED, Wishes

USER = "listener-05"
SETTINGS = {"page": {"rows": 4, "columns": 5}, "exploration": {"epsilon": 1.0}}
PATH = f"/v1/listeners/{USER}/preferences"
ClientOf = Callable[..., Client]


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings(SETTINGS)) as found:
        yield found


@pytest.fixture
def client(service: HomeService, client_of: ClientOf) -> Iterator[Client]:
    with client_of(service) as found:
        yield found


def put(client: Client, **body: Any) -> Any:
    answer = client.put(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cards(page: Any) -> list[Any]:
    return [card for shelf in page["shelves"] for card in shelf["cards"]]


def home(client: Client, **more: Any) -> Any:
    answer = client.post("/v1/home", json={"user_id": USER, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rank(client: Client, items: list[str], **more: Any) -> Any:
    shelves = [{"title": "Mine", "rule": "mine", "items": items}]
    answer = client.post("/v1/rank", json={"user_id": USER, "shelves": shelves, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_was_asked_for_is_told_and_what_is_not_named_stays(client: Client) -> None:
    assert client.get(PATH).json() == {
        "user_id": USER, "blocked_artists": [], "blocked_items": [], "not_interested": [], "followed_artists": [],
        "explicit": True, "mode": "personalised", "unknown": [],
    }  # fmt: skip
    put(client, blocked_artists=["Artist 3", "Nobody"], explicit=False)
    told = put(client, followed_artists=["Artist 1"])
    assert (told["blocked_artists"], told["followed_artists"]) == (["Artist 3", "Nobody"], ["Artist 1"])
    assert (told["explicit"], told["unknown"], told["erased"]) == (False, ["Nobody"], None)
    assert client.get(PATH).json() == {name: value for name, value in told.items() if name != "erased"}
    assert client.get("/v1/listeners/somebody else/preferences").json()["blocked_artists"] == []


def test_preferences_ask_for_a_key_always(service: HomeService, client_of: ClientOf) -> None:
    with client_of(service, headers={}) as stranger:
        assert stranger.post("/v1/home", json={"user_id": USER}).status_code == 200
        assert stranger.get(PATH).status_code == 401
        assert stranger.put(PATH, json={"explicit": False}).status_code == 401


def test_no_surface_shows_what_is_blocked(client: Client, service: HomeService) -> None:
    everything = service.run.items.item_id.tolist()
    before = {card["item_id"] for _ in range(6) for card in cards(home(client))}
    assert any(int(item[5:]) % 10 == 3 for item in before)
    assert "item-08" in before
    put(client, blocked_artists=["Artist 3"], blocked_items=["item-08"])
    for number in range(12):
        asked = rank(client, everything, columns=40) if number % 2 else home(client, rows=20, columns=40)
        shown = {card["item_id"] for card in cards(asked)}
        assert len(shown) > 10
        assert not {item for item in shown if int(item[5:]) % 10 == 3 or item == "item-08"}
        assert all("Artist 3" not in shelf["title"] for shelf in asked["shelves"])
    others = {
        card["item_id"] for _ in range(6) for card in cards(client.post("/v1/home", json={"user_id": "x"}).json())
    }
    assert any(int(item[5:]) % 10 == 3 for item in others)  # a wish is of one listener
    put(client, blocked_artists=[], blocked_items=[])
    assert {"item-03", "item-08"} <= {card["item_id"] for card in cards(rank(client, everything, columns=40))}


def test_explicit_off_holds_whatever_the_visit_allows(small_run: Path, client_of: ClientOf) -> None:
    with open_service(small_run, load_settings({**SETTINGS, "rules": {"block_explicit": False}})) as service:
        explicit = np.arange(len(service.run.items)) % 2 == 0
        items = replace(service.run.items, explicit=explicit)
        service = replace(service, ranker=replace(service.ranker, items=items))
        with client_of(service) as client:
            ids = items.item_id.tolist()
            assert len(cards(rank(client, ids, columns=40, explicit_allowed=False))) == 40
            put(client, explicit=False)
            shown = {card["item_id"] for card in cards(rank(client, ids, columns=40))}
            assert shown == set(items.item_id[~explicit].tolist())


def test_a_wish_holds_at_once_in_another_process_that_serves_the_run(client: Client, small_run: Path) -> None:
    other = open_run(small_run, load_settings(SETTINGS))
    with closing(other.store):
        assert any("Artist 3" in card.artists for card in other.page(USER, rows=20, columns=40).cards)
        put(client, blocked_artists=["Artist 3"])
        assert not any("Artist 3" in card.artists for card in other.page(USER, rows=20, columns=40).cards)


def test_a_retry_of_a_page_that_holds_what_was_blocked_since_is_refused(client: Client) -> None:
    page = home(client, idempotency_key="k")
    assert home(client, idempotency_key="k") == page
    put(client, blocked_items=[cards(page)[0]["item_id"]])
    again = client.post("/v1/home", json={"user_id": USER, "idempotency_key": "k"})
    assert again.status_code == 409
    assert "use another key" in again.json()["detail"]


def test_a_takedown_refuses_such_a_retry_too(client: Client) -> None:
    page = home(client, idempotency_key="k")
    assert client.delete(f"/v1/items/{cards(page)[0]['item_id']}").status_code == 200
    assert client.post("/v1/home", json={"user_id": USER, "idempotency_key": "k"}).status_code == 409


def test_not_interested_on_a_card_hides_it_until_it_is_taken_back(client: Client) -> None:
    page = home(client)
    item = cards(page)[0]["item_id"]

    def tell(event_id: str, value: bool) -> Any:
        event = {"event_id": event_id, "row": 0, "column": 0, "not_interested": value}
        return client.post("/v1/feedback", json={"request_id": page["request_id"], "events": [event]}).json()

    assert tell("1", True)["accepted"] == 1
    assert client.get(PATH).json()["not_interested"] == [item]
    assert item not in {card["item_id"] for _ in range(5) for card in cards(home(client, rows=20, columns=40))}
    outcome = client.get(f"/v1/decisions/{page['request_id']}").json()["page"][0]["cards"][0]["feedback"]
    assert (outcome["seen"], outcome["reward"]) == (True, 0.0)
    assert tell("2", False)["accepted"] == 1
    assert client.get(PATH).json()["not_interested"] == []
    event = {"event_id": "3", "row": 40, "column": 0, "not_interested": True}
    refused = client.post("/v1/feedback", json={"request_id": page["request_id"], "events": [event]}).json()
    assert len(refused["rejected"]) == 1
    assert client.get(PATH).json()["not_interested"] == []


def test_what_was_saved_becomes_a_favourite(client: Client, service: HomeService) -> None:
    before = service.run.store.get(USER)
    assert before is not None
    favourite = {service.run.items.item_id[row] for row in before.favourite}
    page = home(client, rows=20, columns=40)
    row, column, item = next(
        (r, c, card["item_id"])
        for r, shelf in enumerate(page["shelves"])
        for c, card in enumerate(shelf["cards"])
        if card["item_id"] not in favourite
    )
    event = {"event_id": "1", "row": row, "column": column, "saved": True}
    assert client.post("/v1/feedback", json={"request_id": page["request_id"], "events": [event]}).status_code == 202
    after = service.run.store.get(USER)
    assert after is not None
    assert item in service.run.items.item_id[after.favourite].tolist()


def test_a_listener_without_experiments_is_in_no_arm_and_nothing_is_left_to_chance(
    small_run: Path, client_of: ClientOf
) -> None:
    arms = {"name": "spring", "arms": {"one": {"share": 0.5}, "two": {"share": 0.5, "scorer": "popularity"}}}
    with open_service(small_run, load_settings({**SETTINGS, "experiment": arms})) as service:
        with client_of(service) as client:
            first = service.log.get(home(client)["request_id"])
            assert first is not None
            assert first.arm.startswith("spring:")
            put(client, mode="no_experiments")
            decision = service.log.get(home(client)["request_id"])
        assert decision is not None
        assert (decision.arm, decision.user_id) == ("wish:no_experiments", USER)
        assert decision.model_id == service.run.bundle.model_id
        assert decision.page.propensity == 1.0
        assert not decision.card_epsilon.any()


def files_with(folder: Path, text: str) -> set[str]:
    found = (f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return {f.name.removesuffix("-wal") for f in found if text.encode() in f.read_bytes()}


def test_nothing_is_kept_of_who_is_not_profiled_but_the_wish_itself(
    client: Client, service: HomeService, small_run: Path
) -> None:
    listen = {"user_id": USER, "session_id": "s", "final": True, "plays": [{"item_id": "item-01", "listened_s": 150}]}
    assert client.post("/v1/sessions", json=listen).json()["status"] == "committed"
    home(client)
    receipt = put(client, mode="not_profiled", blocked_artists=["Artist 3"])["erased"]
    assert (receipt["states"], receipt["sessions"], receipt["pages"], receipt["preferences"]) == (1, 1, 1, 0)
    assert is_genuine(receipt, service.key)

    again = {**listen, "session_id": "t"}
    assert client.post("/v1/sessions", json=again).json()["status"] == "not kept"
    assert client.post("/v1/sessions", json={**again, "final": False}).json()["status"] == "not kept"
    picks = {"user_id": USER, "onboarding": {"items": ["item-01"]}}
    assert client.post("/v1/home", json=picks).status_code == 409
    other = {"user_id": "listener-06", "seed": 1, "at": "2026-01-05T12:00:00Z"}
    client.put("/v1/listeners/listener-06/preferences", json={"mode": "not_profiled", "blocked_artists": ["Artist 3"]})
    pages = [home(client), home(client, seed=1, at=other["at"]), client.post("/v1/home", json=other).json()]
    assert cards(pages[1]) == cards(pages[2])  # popularity and context alone
    for page in pages:
        assert not any("Artist 3" in card["artists"] for card in cards(page))
        decision = service.log.get(page["request_id"])
        assert decision is not None
        assert decision.user_id == UNNAMED + page["request_id"]
        assert decision.arm == "wish:not_profiled"
        np.testing.assert_array_equal(decision.listener, service.run.store.cold_vector)
    event = {"event_id": "1", "row": 0, "column": 0, "seen": True, "listened_s": 40.0, "saved": True}
    told = client.post("/v1/feedback", json={"request_id": pages[0]["request_id"], "events": [event]}).json()
    assert told["accepted"] == 1
    assert len(service.run.store) == 28
    export_log(service.log, RunPaths(small_run).log_export, now=datetime.now(timezone.utc) + timedelta(days=3))
    assert files_with(small_run, USER) == {"preferences.sqlite"}  # the wish itself
    assert client.put(PATH, json={"followed_artists": ["Artist 1"]}).status_code == 422


def test_an_erasure_takes_the_wishes_too_and_names_the_bundles_that_learnt(
    client: Client, service: HomeService, small_run: Path
) -> None:
    put(client, blocked_artists=["Artist 3"])
    home(client)
    receipt = client.delete(f"/v1/listeners/{USER}").json()
    assert receipt["preferences"] == 1
    name = service.run.bundle.path.name
    assert receipt["held_by"]["bundles"] == [{"bundle": name, "active": True, "weights": False, "rates": True}]
    assert "rebuild" in receipt["held_by"]["dropped_by"]["rates"]
    assert files_with(small_run, USER) == set()
    assert client.delete("/v1/listeners/nobody").json()["held_by"] == {"bundles": [], "dropped_by": {}}


def test_wishes_outlast_a_build_which_leaves_out_who_is_not_profiled_and_who_was_erased(
    small_run: Path, client_of: ClientOf, tmp_path: Path
) -> None:
    from api.jobs.build import build_run

    small = load_settings({"page": {"rows": 4, "columns": 5, "per_shelf": 12}})
    with open_service(small_run, small) as service, client_of(service) as client:
        put(client, mode="not_profiled")
        client.put("/v1/listeners/listener-06/preferences", json={"blocked_artists": ["Artist 3"]})
        client.delete("/v1/listeners/listener-07")
    events, items = tmp_path / "events.parquet", tmp_path / "items.parquet"
    pq.write_table(pq.read_table(small_run / "events.parquet"), events)
    pq.write_table(pq.read_table(small_run / "items.parquet"), items)
    build_run(events, items, None, small_run, {}, small, Quiet(), renew=True)
    users = set(pq.read_table(small_run / "events.parquet")["user_id"].to_pylist())
    assert not users & {USER, "listener-07"}
    assert "listener-06" in users
    run = open_run(small_run, small)
    with closing(run.store):
        assert run.store.get(USER) is None
        assert run.store.wishes("listener-06") == Wishes(blocked_artists=frozenset({"Artist 3"}))
        assert not any("Artist 3" in card.artists for card in run.page("listener-06", rows=20, columns=40).cards)


def test_pages_for_a_whole_table_keep_to_wishes(small_run: Path, client: Client, tmp_path: Path) -> None:
    put(client, blocked_artists=["Artist 3"])
    client.put("/v1/listeners/listener-06/preferences", json={"mode": "not_profiled"})
    table = tmp_path / "who.parquet"
    pq.write_table(pa.table({"user_id": [USER, "listener-06", "listener-08"]}), table)
    found = rank_all(
        small_run, table, tmp_path / "out", at=datetime(2026, 1, 5, tzinfo=timezone.utc), workers=1, columns=40
    )
    assert (found.listeners, found.left_out) == (2, 1)
    rows = pq.read_table(next((tmp_path / "out").rglob("*.parquet"))).to_pylist()
    by_user = {row["user_id"]: json.dumps(row, default=str) for row in rows}
    assert set(by_user) == {USER, "listener-08"}
    assert '"item-13"' not in by_user[USER]
    assert '"item-13"' in by_user["listener-08"] or '"item-03"' in by_user["listener-08"]
