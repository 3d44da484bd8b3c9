"""Sessions, onboarding, and what they do to the next page; the caller's own shelves; decisions told in full."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from httpx import Client

from api.hosts.running_sessions import CLAIMED_S, RUNNING_S, RunningSessions
from api.run.settings import load_settings
from api.service.service import HomeService, open_service
from api.wire.schemas import SessionRequest
from bart.log.care.verify import verify
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.reward.features import FeatureSchema
from bart.reward.scorer import Scorer
from bart.types import ITEM_TYPES, Candidates, Context, Floats32, Members

ClientOf: TypeAlias = Callable[..., Client]
FOLK = ("item-01", "item-05", "item-09")  # listener-00 plays soul


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings({"page": {"rows": 4, "columns": 5}})) as found:
        yield found


@pytest.fixture
def client(service: HomeService, client_of: ClientOf) -> Iterator[Client]:
    with client_of(service) as found:
        yield found


def session(final: bool, *items: str, **other: Any) -> dict[str, Any]:
    plays = [{"item_id": item, "listened_s": 190.0} for item in items]
    return {"user_id": "listener-00", "session_id": "s1", "final": final, "plays": plays, **other}


def served_vector(service: HomeService, client: Client, user_id: str = "listener-00") -> Floats32:
    """The vector that the next page of a listener was decided with."""
    page = client.post("/v1/home", json={"user_id": user_id}).json()
    decision = service.log.get(page["request_id"])
    assert decision is not None
    return decision.listener


def towards(service: HomeService, vector: Floats32, items: tuple[str, ...]) -> float:
    mean = service.run.items.vector[service.run.items.rows(items)].sum(axis=0)
    return float(vector @ mean / np.linalg.norm(mean))


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_play_from_a_playlist_counts_for_the_playlist_once_the_session_is_over(
    service: HomeService, client_of: ClientOf
) -> None:
    items = service.run.items
    lists = Members.of_pairs(np.array([11, 11]), items.rows(FOLK[:2]), len(items))  # item-11 holds two of them
    kind = np.where(np.arange(len(items)) == 11, ITEM_TYPES.index("playlist"), items.type).astype(np.int8)
    listening = replace(service.listening, items=replace(items, members=lists, type=kind))
    body = session(True, *FOLK)
    for play in body["plays"][:2]:
        play["container_id"] = str(items.item_id[11])
    with client_of(replace(service, listening=listening)) as client:
        assert client.post("/v1/sessions", json=body).json()["status"] == "committed"
    history = service.run.store.get("listener-00").history
    count = dict(zip(history.item.tolist(), history.plays.tolist(), strict=True))
    assert count[11] == 2


def test_a_running_session_moves_the_next_page_and_commits_nothing(client: Client, service: HomeService) -> None:
    before, stored = served_vector(service, client), service.run.store.get("listener-00")
    answer = client.post("/v1/sessions", json=session(False, *FOLK))
    assert answer.status_code == 202
    assert answer.json() == {"status": "running", "plays": 3, "unknown": 0}
    after = served_vector(service, client)
    assert towards(service, after, FOLK) > towards(service, before, FOLK) + 0.05
    kept = service.run.store.get("listener-00")
    assert stored is not None
    assert kept is not None
    np.testing.assert_array_equal(kept.state, stored.state)
    # The last one played is a reason now. Shelves of one rank get their cards in random order, and in a catalogue of
    # forty songs one may be left with too few, so a few pages are looked at.
    pages = [client.post("/v1/home", json={"user_id": "listener-00", "rows": 30}).json() for _ in range(10)]
    assert "Because you played Song 9" in {shelf["title"] for page in pages for shelf in page["shelves"]}


def test_what_was_skipped_is_no_reason_for_a_shelf(client: Client, service: HomeService) -> None:
    before = service.run.store.get("listener-00")
    assert before is not None
    for final in (False, True):
        report = {"user_id": "listener-00", "session_id": f"s{final}", "final": final}
        plays = [{"item_id": "item-01"}, {"item_id": "item-39", "skipped": True}]
        client.post("/v1/sessions", json={**report, "plays": plays})
        context = Context(datetime.now(timezone.utc))
        recent = service.listening.listener("listener-00", context).recent.tolist()
        assert recent[0] == 1
        assert recent.index(39) > 1 if 39 in before.recent else 39 not in recent


def test_a_session_reported_play_by_play_is_the_session_reported_as_a_whole(
    client: Client, service: HomeService
) -> None:
    at = "2026-01-01T10:00:00Z"
    for n in (1, 2, 3):
        client.post("/v1/sessions", json=session(False, *FOLK[:n], started_at=at))
    running = served_vector(service, client)
    assert client.post("/v1/sessions", json=session(True, *FOLK, started_at=at)).json()["status"] == "committed"
    np.testing.assert_allclose(served_vector(service, client), running, atol=1e-5)


def test_a_final_session_counts_once(client: Client, service: HomeService) -> None:
    statuses = [client.post("/v1/sessions", json=session(True, *FOLK)).json()["status"] for _ in range(3)]
    assert statuses == ["committed", "repeated", "repeated"]
    row = service.run.store.get("listener-00")
    assert row is not None
    once = row.state.copy()
    assert client.post("/v1/sessions", json=session(False, *FOLK, "item-13")).json()["status"] == "late"
    row = service.run.store.get("listener-00")
    assert row is not None
    np.testing.assert_array_equal(row.state, once)
    assert row.recent[:3].tolist() == [9, 5, 1]


@pytest.mark.parametrize("change", [{"device": "speaker"}, {"started_at": "2026-01-05T06:07:08Z"}, {"plays": []}])
def test_another_session_by_the_same_id_is_conflicting_and_nothing_of_it_is_taken(
    client: Client, service: HomeService, change: dict[str, Any]
) -> None:
    first = session(True, *FOLK)
    assert client.post("/v1/sessions", json=first).json()["status"] == "committed"
    row = service.run.store.get("listener-00")
    assert row is not None
    other = {**first, **change} if change != {"plays": []} else session(True, *FOLK, "item-13")
    assert client.post("/v1/sessions", json=other).json()["status"] == "conflicting"
    after = service.run.store.get("listener-00")
    assert after is not None
    np.testing.assert_array_equal(after.state, row.state)
    assert client.post("/v1/sessions", json=first).json()["status"] == "repeated"


def test_reports_of_a_running_session_may_come_in_any_order(client: Client, service: HomeService) -> None:
    client.post("/v1/sessions", json=session(False, *FOLK))
    whole = served_vector(service, client)
    assert client.post("/v1/sessions", json=session(False, FOLK[0])).json()["status"] == "late"
    np.testing.assert_allclose(served_vector(service, client), whole, atol=1e-5)


def test_a_commit_that_fails_can_be_reported_again(
    client: Client, service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    def locked(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(type(service.run.store), "catch_up", locked)
    assert client.post("/v1/sessions", json=session(True, *FOLK)).status_code == 503
    monkeypatch.undo()
    assert client.post("/v1/sessions", json=session(True, *FOLK)).json()["status"] == "committed"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("restarted", [True, False])
def test_a_session_in_flight_at_a_kill_is_committed_once_by_the_start_or_by_the_retry(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    now = datetime.now(timezone.utc)
    asked = SessionRequest.model_validate_json(json.dumps(session(True, *FOLK)))
    with open_service(small_run, load_settings()) as service:
        before = service.run.store.get("listener-00").state[2]
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(type(service.run.store), "catch_up", raises(Killed))
            service.listening.report(asked, now)
        assert service.run.store.get("listener-00").state[2] == before
        if not restarted:
            assert service.listening.report(asked, now)["status"] == "committed"
            assert service.listening.report(asked, now)["status"] == "repeated"
            assert service.run.store.get("listener-00").state[2] == before + 1
    with open_service(small_run, load_settings()) as service:
        assert service.run.store.get("listener-00").state[2] == before + 1
        assert service.listening.report(asked, now)["status"] == "repeated"


def test_a_session_killed_after_its_commit_is_not_committed_again(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(timezone.utc)
    asked = SessionRequest.model_validate_json(json.dumps(session(True, *FOLK)))
    with open_service(small_run, load_settings()) as service:
        before = service.run.store.get("listener-00").state[2]
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunningSessions, "settle", raises(Killed))
            service.listening.report(asked, now)
        assert service.listening.report(asked, now)["status"] == "committed"  # nobody was told before
        assert service.run.store.get("listener-00").state[2] == before + 1


def raises(error: type[BaseException]) -> Any:
    def raising(*_: Any, **__: Any) -> None:
        raise error

    return raising


def test_a_late_or_overlong_session_moves_no_marker_back_or_ahead(client: Client, service: HomeService) -> None:
    started = datetime.now(timezone.utc)

    def report(name: str, minutes_ago: int, *listened_s: float) -> str:
        at = (started - timedelta(minutes=minutes_ago)).isoformat()
        plays = [{"item_id": FOLK[0], "listened_s": one} for one in listened_s]
        body = {"user_id": "marked", "session_id": name, "final": True, "started_at": at, "plays": plays}
        return str(client.post("/v1/sessions", json=body).json()["status"])

    def marker() -> float:
        found = service.run.store.last_heard_s("marked")
        assert found is not None
        return found - datetime.now(timezone.utc).timestamp()

    assert report("first", 120, 600.0) == "committed"
    known = marker()
    assert report("late", 600, 600.0) == "late"
    assert marker() == pytest.approx(known, abs=5)
    assert report("overlong", 60, *[86_400.0] * 400) == "committed"  # more than a year
    assert -5 < marker() <= 0
    assert report("late", 600, 600.0) == "repeated"


def test_a_first_session_makes_a_listener_known(client: Client, service: HomeService) -> None:
    client.post("/v1/sessions", json={**session(True, *FOLK), "user_id": "new"})
    row = service.run.store.get("new")
    assert row is not None
    assert row.known


def test_unknown_items_are_counted_and_a_session_of_nothing_else_is_refused(client: Client) -> None:
    answer = client.post("/v1/sessions", json=session(False, "item-01", "never heard of")).json()
    assert answer == {"status": "running", "plays": 1, "unknown": 1}
    assert client.post("/v1/sessions", json=session(False, "never heard of")).status_code == 422


def test_a_session_cannot_be_in_the_future(client: Client) -> None:
    later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    answer = client.post("/v1/sessions", json=session(True, *FOLK, started_at=later))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("started_at:")
    assert client.post("/v1/sessions", json=session(True)).status_code == 422


def test_old_sessions_are_forgotten_and_claims_are_kept_longer(tmp_path: Path) -> None:
    sessions = RunningSessions(tmp_path / "sessions.sqlite")
    sessions.put("u", "running", 1, b"{}", now_s=0)
    assert sessions.claim("u", "final", now_s=0)
    assert sessions.running("u", RUNNING_S) == b"{}"
    assert sessions.running("u", RUNNING_S + 1) is None
    sessions.forget_old(RUNNING_S + 1)
    assert sessions.running("u", 0) is None
    assert not sessions.claim("u", "final", now_s=1)
    sessions.forget_old(CLAIMED_S + 2)
    assert sessions.claim("u", "final", now_s=1)
    sessions.close()


# ---------------------------------------------------------------------------------------------------------- onboarding


def test_picks_decide_the_first_page_of_a_new_listener(client: Client, service: HomeService) -> None:
    ask = {"user_id": "new", "onboarding": {"items": ["item-01", "unheard"], "genres": ["folk"]}}
    page = client.post("/v1/home", json=ask).json()
    decision = service.log.get(page["request_id"])
    assert decision is not None
    cold = service.run.store.cold_vector
    assert towards(service, decision.listener, FOLK) > towards(service, cold, FOLK) + 0.05
    np.testing.assert_allclose(served_vector(service, client, "new"), decision.listener)  # it is remembered


def test_picks_that_nobody_knows_and_listeners_who_are_not_new_are_refused(client: Client) -> None:
    for user_id, picks, status in (
        ("new", {"items": ["unheard"]}, 422),
        ("listener-00", {"artists": ["Artist 1"]}, 409),
    ):
        answer = client.post("/v1/home", json={"user_id": user_id, "onboarding": picks})
        assert answer.status_code == status
        assert answer.json()["detail"].startswith("onboarding:")


def test_there_are_artists_and_genres_to_pick_from(client: Client) -> None:
    choices = client.get("/v1/onboarding").json()
    assert set(choices["genres"]) == {"soul", "folk", "techno", "jazz"}
    assert len(choices["artists"]) == 10


# ------------------------------------------------------------------------------------------------- the caller's shelves

SHELVES = [
    {"title": "Fresh", "rule": "fresh", "items": ["item-00", "item-01", "unheard"], "scores": [0.1, 0.9, 1.0]},
    {"title": "Classics", "items": ["item-02", "item-03"], "scores": [0.4, 0.3], "explanation": "Never old"},
]


def test_a_page_of_the_callers_shelves_is_decided_by_its_scores_and_logged(
    service: HomeService, client_of: ClientOf, small_run: Path
) -> None:
    greedy = replace(service, ranker=replace(service.ranker, exploration=service.ranker.exploration.fixed(0.0)))
    with client_of(greedy) as client:
        page = client.post("/v1/rank", json={"user_id": "listener-00", "shelves": SHELVES}).json()
    assert page["unknown"] == ["unheard"]
    shown = [(shelf["title"], [card["item_id"] for card in shelf["cards"]]) for shelf in page["shelves"]]
    assert shown == [("Fresh", ["item-01", "item-00"]), ("Classics", ["item-02", "item-03"])]
    decision = service.log.get(page["request_id"])
    assert decision is not None
    assert decision.model_id == "caller"
    assert decision.raw_score.tolist() == [0.1, 0.9, 0.4, 0.3]
    assert [shelf.rule for shelf in decision.shelves] == ["fresh", "custom"]
    assert verify(small_run / "log.sqlite").ok


def test_without_scores_the_model_scores(client: Client, service: HomeService) -> None:
    shelves = [{"title": "Any", "items": ["item-00", "item-01", "item-02"]}]
    page = client.post("/v1/rank", json={"user_id": "listener-00", "shelves": shelves}).json()
    decision = service.log.get(page["request_id"])
    assert decision is not None
    assert decision.model_id == service.run.bundle.model_id
    row = service.run.items.rows(["item-00", "item-01", "item-02"])
    candidates = Candidates(row, np.zeros(3, dtype=np.int64), decision.shelves)
    expected = service.run.ranker.scorer.score(
        decision.context, decision.listener, candidates, user_id=decision.user_id
    )
    np.testing.assert_array_equal(decision.raw_score, expected)


def test_shelves_may_overlap_and_an_item_is_shown_once(client: Client, small_run: Path) -> None:
    shelves = [{"title": str(i), "items": ["item-00", "item-01", f"item-1{i}"]} for i in range(3)]
    for _ in range(5):
        page = client.post("/v1/rank", json={"user_id": "listener-00", "shelves": shelves}).json()
        ids = [card["item_id"] for shelf in page["shelves"] for card in shelf["cards"]]
        assert sorted(ids) == ["item-00", "item-01", "item-10", "item-11", "item-12"]
    assert verify(small_run / "log.sqlite").ok


@pytest.mark.parametrize(
    "shelves",
    [
        [],
        [{"title": "t", "items": []}],
        [{"title": "t", "items": ["unheard"]}],
        [{"title": "t", "items": ["item-00", "item-00"]}],
        [{"title": "t", "items": ["item-00"], "scores": [0.1, 0.2]}],
        [{"title": "t", "items": ["item-00"], "scores": [1e7]}],
        [{"title": "t", "items": ["item-00"], "scores": [0.1]}, {"title": "u", "items": ["item-01"]}],
        [{"title": str(i), "items": [f"{i}-{j}" for j in range(1000)]} for i in range(6)],
        [{"title": "t", "items": ["item-00"]}] * 101,
    ],
)
def test_shelves_that_cannot_be_ranked_are_refused(client: Client, shelves: list[Any]) -> None:
    answer = client.post("/v1/rank", json={"user_id": "listener-00", "shelves": shelves})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(("shelves", "body: shelves"))


def test_a_retry_of_a_rank_request_gets_the_same_page(client: Client, service: HomeService) -> None:
    ask = {"user_id": "listener-00", "shelves": SHELVES, "idempotency_key": "k"}
    assert client.post("/v1/rank", json=ask).json() == client.post("/v1/rank", json=ask).json()
    assert len(service.log) == 1


# ----------------------------------------------------------------------------------------------- decisions told in full


@pytest.mark.parametrize(
    "change",
    [
        {"at": "2026-02-03T04:05:07Z"},
        {"tz": "Asia/Tokyo"},
        {"shadow": True},
        {"shelves": [{"title": "A", "items": ["item-01", "item-03"], "scores": [2.0, 1.0]}]},
        {"shelves": [{"title": "A", "items": ["item-01", "item-02"], "scores": [2.0, 1.5]}]},
        {"shelves": [{"title": "B", "items": ["item-01", "item-02"], "scores": [2.0, 1.0]}]},
    ],
)
def test_a_key_with_a_seed_set_by_hand_is_of_one_request_too(client: Client, change: dict[str, Any]) -> None:
    shelves = [{"title": "A", "items": ["item-01", "item-02"], "scores": [2.0, 1.0]}]
    body = {"user_id": "u", "idempotency_key": "k", "seed": 3, "at": "2026-02-03T04:05:06Z", "shelves": shelves}
    first = client.post("/v1/rank", json=body)
    assert first.is_success
    assert client.post("/v1/rank", json=body).json() == first.json()
    assert client.post("/v1/rank", json={**body, **change}).status_code == 422


def test_a_decision_tells_candidates_scores_propensities_and_feedback(client: Client, service: HomeService) -> None:
    page = client.post("/v1/home", json={"user_id": "listener-03"}).json()
    request_id = page["request_id"]
    event = {"event_id": "1", "row": 0, "column": 1, "listened_s": 31.0, "saved": True}
    client.post("/v1/feedback", json={"request_id": request_id, "events": [event]})
    told = client.get(f"/v1/decisions/{request_id}").json()
    decision = service.log.get(request_id)
    assert decision is not None
    assert told["user_id"] == "listener-03"
    assert told["seed"] == str(decision.seed)
    assert told["page_propensity"] == decision.page.propensity
    for shelf, answered in zip(told["page"], page["shelves"], strict=True):
        assert shelf["title"] == answered["title"]
        assert [card["title"] for card in shelf["cards"]] == [card["title"] for card in answered["cards"]]
    assert told["page"][1]["cards"][2]["propensity"] == decision.page.card_propensity[1, 2]
    assert told["page"][0]["cards"][1]["feedback"] == {
        "seen": True, "listened_s": 31.0, "skipped": None, "saved": True, "reward": 1.0,
    }  # fmt: skip
    assert told["page"][0]["cards"][0]["feedback"]["seen"] is False
    assert told["feedback"]["events"] == 1
    assert sum(len(shelf["cards"]) for shelf in told["candidates"]) == len(decision.item_id)
    for shelf in told["candidates"]:
        scores = [card["score"] for card in shelf["cards"]]
        assert scores == sorted(scores, reverse=True)
        best = {card["item_id"] for card in shelf["cards"] if card["score"] == scores[0]}
        for row in told["page"]:
            assert all((card["rank"] == 0) == (card["item_id"] in best) for card in row["cards"]) or (
                row["title"] != shelf["title"]
            )


def test_the_greedy_page_is_told_beside_the_page(client: Client, service: HomeService) -> None:
    page = client.post("/v1/home", json={"user_id": "listener-03"}).json()
    told = client.get(f"/v1/decisions/{page['request_id']}").json()
    decision = service.log.get(page["request_id"])
    assert decision is not None
    item = np.arange(len(decision.item_id), dtype=np.int64)
    best = PagePolicy(EpsilonGreedy(0.0), EpsilonGreedy(0.0)).decide(
        Candidates(item, decision.shelf, decision.shelves), decision.score, 4, 5, np.random.default_rng(0)
    )
    expected = [[decision.item_id[i] for i in row if i >= 0] for row in best.card.tolist()]
    assert [[card["item_id"] for card in shelf["cards"]] for shelf in told["greedy"]] == expected
    assert {card["propensity"] for shelf in told["greedy"] for card in shelf["cards"]} == {1.0}


def test_contributions_add_up_to_the_score(service: HomeService, client_of: ClientOf) -> None:
    items = service.run.items
    weight = np.random.default_rng(5).normal(0, 0.05, 1 << 18).astype(np.float32)
    scorer = Scorer(FeatureSchema(dimension=items.dimension), weight, items, ("popular_now",))
    run = replace(service.run, ranker=replace(service.run.ranker, scorer=scorer))
    with client_of(replace(service, run=run, ranker=run.ranker)) as client:
        page = client.post("/v1/home", json={"user_id": "listener-03"}).json()
        told = client.get(f"/v1/decisions/{page['request_id']}").json()
    for shelf in told["page"]:
        for card in shelf["cards"]:
            logit = sum(card["contributions"].values())
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(card["raw_score"], abs=1e-5)


def test_a_decision_of_an_earlier_batch_is_still_told(small_run: Path, client_of: ClientOf) -> None:
    settings = load_settings({})
    with open_service(small_run, settings) as service, client_of(service) as client:
        page = client.post("/v1/home", json={"user_id": "listener-03", "idempotency_key": "k"}).json()
        items = service.run.items
        of_the_page = {card["item_id"] for shelf in page["shelves"] for card in shelf["cards"]}
        gone = replace(items, item_id=np.array([f"new-{i}" for i in range(len(items))], dtype=object))
        later = replace(
            service,
            run=replace(service.run, items=gone, bundle=replace(service.run.bundle, batch_id="later")),
            writer=type(service.writer)(gone),
        )
    with open_service(small_run, settings) as service:
        open_now = {name: getattr(service, name) for name in ("log", "metrics", "control", "listening")}
        later = replace(later, **open_now)
        with client_of(later) as client:
            told = client.get(f"/v1/decisions/{page['request_id']}").json()
            again = client.post("/v1/home", json={"user_id": "listener-03", "idempotency_key": "k"}).json()
    assert {card["item_id"] for shelf in told["page"] for card in shelf["cards"]} == of_the_page
    assert {card["title"] for shelf in again["shelves"] for card in shelf["cards"]} == of_the_page


def test_unknown_decisions_are_not_found_and_others_may_not_ask(service: HomeService, client_of: ClientOf) -> None:
    with client_of(service) as client:
        assert client.get("/v1/decisions/none").status_code == 404
    with client_of(service, headers={}) as client:
        assert client.get("/v1/decisions/none").status_code == 401


def test_a_visit_for_which_nothing_can_be_shown_is_an_empty_page(service: HomeService, client_of: ClientOf) -> None:
    class Nothing:
        def candidates(self, *_: Any) -> Candidates:
            return Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), ())

    empty = replace(service, ranker=replace(service.ranker, source=Nothing()))
    with client_of(empty) as client:
        page = client.post("/v1/home", json={"user_id": "listener-03"}).json()
        assert page["shelves"] == []
        told = client.get(f"/v1/decisions/{page['request_id']}").json()
    assert told["page"] == []
    assert told["candidates"] == []
