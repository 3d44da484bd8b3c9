"""Operating a service: switches, takedowns, items, bundles, experiments and the guard hold on every worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from api.run.settings import load_settings
from api.run.versions import Versions
from api.service.control import ControlStore
from api.service.experiments import place_of
from api.service.service import HomeService, open_service
from api.upkeep.housekeeping import guard, publication_is_due
from api.upkeep.item_updates import publish_items
from api.upkeep.listener_admin import is_genuine, listener_document
from api.upkeep.watch import Watcher
from api.wire.schemas import SessionRequest
from bart.bundle import write_bundle
from bart.errors import BundleError, DataError
from bart.reward.baselines import PopularityScorer
from bart.types import Candidates, ItemTable

ClientOf = Callable[..., Any]
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
PAGE = {"page": {"rows": 4, "columns": 5}}


@contextmanager
def worker(run: Path, **settings: Any) -> Iterator[tuple[SimpleNamespace, Watcher]]:
    """What one process holds: the service that answers, and what keeps it up to date, looked at by hand."""
    with open_service(run, load_settings({**PAGE, **settings})) as service:
        holder = SimpleNamespace(service=service)
        watcher = Watcher(holder)
        yield holder, watcher
        watcher.stop()


def other_bundle(run: Path, **metrics: Any) -> str:
    """A bundle of the same batch with another model, added to the run; its name."""
    from bart.bundle import open_bundle
    from bart.item_store import load_items
    from bart.reward.baselines import PriorScorer

    versions = Versions(run)
    bundle = open_bundle(run / "bundle")
    draft = versions.draft()
    with write_bundle(draft, created_at="2026-02-01T00:00:00+00:00", metrics=metrics) as folder:
        for name in ("items", "listener", "index"):
            shutil.copytree(bundle.folder(name), folder / name)
        PriorScorer(load_items(bundle.folder("items")), taste=5.0).save(folder / "reward")
    return versions.add(draft)


def cards(page: dict[str, Any]) -> list[str]:
    return [card["item_id"] for shelf in page["shelves"] for card in shelf["cards"]]


def visit(client: Any, user: str = "listener-03", **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/home", json={"user_id": user, **fields})
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_a_switch_thrown_by_one_process_is_taken_up_by_the_others_and_told_by_each_decision(small_run: Path) -> None:
    with worker(small_run) as (one, watch_one), worker(small_run) as (two, watch_two):
        assert not watch_two.look()
        one.service.control.switch("explore", "off", NOW, "too bold")
        assert watch_one.look()
        assert watch_two.look()
        assert not watch_two.look()
        decision = decide(two.service)
        assert not decision.shelf_epsilon.any()
        assert not decision.card_epsilon.any()
        assert decision.arm == "control:explore-off"
        one.service.control.switch("fallback", "on", NOW)
        one.service.control.switch("explore", "on", NOW)
        watch_two.look()
        decision = decide(two.service)
        assert decision.arm == "control:fallback"
        assert decision.model_id == "popularity"
        assert (decision.shelf_epsilon > 0).all()
        expected = PopularityScorer(two.service.run.items).score(
            decision.context, decision.listener, candidates_of(two.service, decision)
        )
        np.testing.assert_array_equal(decision.raw_score, expected)
        one.service.control.switch("fallback", "off", NOW)
        watch_two.look()
        decision = decide(two.service)
        assert (decision.arm, decision.model_id) == ("", two.service.run.bundle.model_id)


def decide(service: HomeService, user: str = "listener-03") -> Any:
    import orjson

    from api.wire.schemas import HomeRequest

    page = orjson.loads(service.home(HomeRequest(user_id=user)))
    return service.log.get(page["request_id"])


def candidates_of(service: HomeService, decision: Any) -> Candidates:
    return Candidates(service.run.items.rows(decision.item_id), decision.shelf, decision.shelves)


def test_an_unknown_switch_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = ControlStore(tmp_path / "control.sqlite")
    before = store.read()
    for name, state, message in (
        ("boost", "on", "expected one of explore"),
        ("explore", "maybe", "expected on or off"),
    ):
        with pytest.raises(DataError, match=message):
            store.switch(name, state, NOW)
    assert store.read() == before
    assert store.history() == []
    store.close()


def test_an_item_taken_down_is_on_no_page_that_any_worker_decides_afterwards(
    small_run: Path, client_of: ClientOf
) -> None:
    with worker(small_run) as (one, _), worker(small_run) as (two, watch_two), client_of(one.service) as client:
        shown = cards(visit(client))[0]
        answer = client.delete(f"/v1/items/{shown}")
        assert answer.json() == {
            "item_id": shown, "status": "taken down", "known": True, "workers": {"serving": 1, "took_up": 1},
        }  # fmt: skip
        watch_two.look()
        for user in range(12):
            assert shown not in decide(two.service, f"listener-{user:02d}").item_id
        given = [{"title": "Mine", "items": [shown, *[i for i in two.service.run.items.item_id[:5] if i != shown]]}]
        with client_of(two.service) as other:
            page = other.post("/v1/rank", json={"user_id": "listener-03", "shelves": given}).json()
        assert cards(page)
        assert shown not in cards(page)


def test_a_new_item_is_a_candidate_after_publication_and_the_batch_stays(small_run: Path, client_of: ClientOf) -> None:
    with worker(small_run) as (one, _), worker(small_run) as (two, watch_two), client_of(one.service) as client:
        items = one.service.run.items
        before = one.service.run.bundle
        body = {
            "title": "Brand new",
            "artists": list(items.artists[0]),
            "genres": list(items.genres[0]),
            "released_at": "2026-02-20",
            "popularity": 0.9,
        }
        assert client.put("/v1/items/brand-new", json=body).json()["status"] == "new"
        changed = str(items.item_id[1])
        assert client.put(f"/v1/items/{changed}", json={"title": "Renamed"}).json()["status"] == "changes"
        done = publish_items(small_run, one.service.control, "2026-03-01T00:00:00+00:00")
        assert (done.added, done.changed, done.without_vector) == (1, 1, 0)
        assert publish_items(small_run, one.service.control, "2026-03-01T00:00:00+00:00").bundle is None
        assert watch_two.look()
        run = two.service.run
        assert run.bundle.batch_id == before.batch_id
        assert run.bundle.model_id == before.model_id
        assert len(run.items) == len(items) + 1
        np.testing.assert_array_equal(run.items.vector[: len(items)], items.vector)
        assert run.items.item_id[: len(items)].tolist() == items.item_id.tolist()
        assert run.items.title[1] == "Renamed"
        row = run.items.row_of["brand-new"]
        assert np.linalg.norm(run.items.vector[row]) == pytest.approx(1, abs=1e-5)
        seen = {item for user in range(40) for item in decide(two.service, f"listener-{user % 12:02d}").item_id}
        assert "brand-new" in seen
        known = run.store.get("listener-03")
        assert known is not None
        assert known.known


def test_an_album_and_a_playlist_that_are_put_have_the_mean_of_their_members_and_move_with_them(
    small_run: Path, client_of: ClientOf
) -> None:
    with worker(small_run) as (one, watch), client_of(one.service) as client:
        items = one.service.run.items
        played = [str(items.item_id[row]) for row in np.flatnonzero(items.vector.any(axis=1))[:6].tolist()]

        def put(item_id: str, **body: object) -> None:
            row = items.row_of.get(item_id)
            known = {} if row is None else {"title": items.title[row], "artists": list(items.artists[row])}
            assert client.put(f"/v1/items/{item_id}", json={**known, **body}).status_code == 202

        def published(at: str) -> ItemTable:
            publish_items(small_run, one.service.control, at)
            assert watch.look()
            return one.service.run.items

        for item_id in played[:3]:
            put(item_id, album="First light")
        put("mine", title="Mine", type="playlist", members=played[2:6])
        table = published("2026-03-01T00:00:00+00:00")
        album = f"album:{items.artists[items.row_of[played[0]]][0]}:First light"
        for name, held in (
            ("mine", played[2:6]),
            (album, [i for i in played[:3] if _artist(items, i) == _artist(items, played[0])]),
        ):
            row = table.row_of[name]
            assert [str(table.item_id[k]) for k in table.members[row].tolist()] == held
            mean = table.vector[table.rows(held)].mean(axis=0)
            np.testing.assert_allclose(table.vector[row], mean / np.linalg.norm(mean), atol=1e-5)
        page = one.service.writer.facts(played[0])
        assert page["album"] == "First light"
        put("mine", title="Mine", type="playlist", members=played[3:6])
        put(played[0])  # on no album any more
        table = published("2026-03-02T00:00:00+00:00")
        assert [str(table.item_id[k]) for k in table.members[table.row_of["mine"]].tolist()] == played[3:6]
        assert table.album[table.row_of[played[0]]] == -1
        np.testing.assert_array_equal(table.vector[: len(items)], items.vector)


def _artist(items: ItemTable, item_id: str) -> tuple[str, ...]:
    return items.artists[items.row_of[item_id]][:1]


def test_who_heard_a_new_item_gets_pages_where_it_is_not_known_yet_and_after_its_rollback(small_run: Path) -> None:
    user = "listener-00"  # the first one, for whom a page is decided whenever a bundle is taken up
    with worker(small_run) as (old, _), worker(small_run) as (new, watch_new):
        old.service.control.put_item("brand-new", '{"title": "Brand new", "genres": ["soul"]}', NOW)
        publish_items(small_run, old.service.control, "2026-03-01T00:00:00+00:00")
        assert watch_new.look()
        heard = {"user_id": user, "session_id": "s", "final": True, "plays": [{"item_id": "brand-new"}]}
        assert new.service.listening.report(SessionRequest(**heard), NOW)["status"] == "committed"
        row = new.service.run.store.get(user)
        assert row is not None
        beyond = len(old.service.run.items)
        assert row.recent[0] == beyond
        new.service.run.store.put_many([replace(row, favourite=row.recent, rested=np.array([0, beyond]))])
        assert len(decide(old.service, user).page.shelf)
        document = listener_document(old.service, user)
        assert document is not None
        assert document["state"]["rested"] == [old.service.run.items.item_id[0]]
        Versions(small_run).rollback("none of these")
        assert watch_new.look()
        assert len(new.service.run.items) == beyond
        assert len(decide(new.service, user).page.shelf)


def test_publications_leave_as_many_bundles_as_are_kept_and_those_of_an_experiment(small_run: Path) -> None:
    arm = other_bundle(small_run)
    with worker(small_run) as (one, _):
        for number in range(4):
            one.service.control.put_item(f"new-{number}", "{}", NOW)
            made_at = f"2026-03-01T00:00:0{number}+00:00"
            publish_items(small_run, one.service.control, made_at, keep=2, spared=[arm])
    versions = Versions(small_run)
    names = [version.name for version in versions.list()]
    assert names == [arm, versions.before(), versions.active()]
    settings = load_settings(
        {"retrain": {"keep": 7}, "experiment": {"name": "e", "arms": {"a": {"share": 1, "bundle": arm}}}}
    )
    assert (Versions.of(small_run, settings).keep, Versions.of(small_run, settings).spared) == (7, {arm})


def test_items_wait_for_others_a_moment_and_never_for_a_clock_that_was_ahead() -> None:
    assert not publication_is_due(None, NOW)
    assert not publication_is_due(NOW - timedelta(seconds=1), NOW)
    assert publication_is_due(NOW - timedelta(seconds=6), NOW)
    assert publication_is_due(NOW + timedelta(days=365), NOW)


def test_items_cannot_be_put_with_what_no_item_has(small_run: Path, client_of: ClientOf) -> None:
    with worker(small_run) as (one, _), client_of(one.service) as client:
        for body in ({"type": "song"}, {"popularity": 2}, {"colour": "red"}, {"released_at": "soon"}):
            assert client.put("/v1/items/x", json=body).status_code == 422
        assert one.service.control.items() == {}


def test_a_bundle_is_activated_by_name_and_taken_up_without_a_restart(small_run: Path, client_of: ClientOf) -> None:
    first = Versions(small_run).active()
    name = other_bundle(small_run)
    with worker(small_run) as (one, _), worker(small_run) as (two, watch_two), client_of(one.service) as client:
        before = decide(two.service)
        answer = client.post("/v1/models", json={"activate": name, "why": "try"})
        assert answer.status_code == 200
        workers = {"serving": 1, "took_up": 1}
        assert answer.json() == {"active": name, "previous": first, "workers": workers}
        assert watch_two.look()
        after = decide(two.service)
        assert before.batch_id == after.batch_id
        assert before.model_id != after.model_id
        scorer = two.service.run.ranker.scorer
        candidates = candidates_of(two.service, after)
        np.testing.assert_array_equal(
            after.raw_score, scorer.score(after.context, after.listener, candidates, user_id=after.user_id)
        )
        listed = client.get("/v1/models").json()
        assert listed["active"] == name
        assert {b["name"] for b in listed["bundles"]} == {first, name}
        assert client.post("/v1/models", json={"rollback": True}).json()["active"] == first
        watch_two.look()
        assert decide(two.service).model_id == before.model_id
        for body, status in (
            ({"activate": "../bundle"}, 409),
            ({"activate": str(small_run)}, 409),
            ({"rollback": True}, 409),
            ({}, 422),
            ({"activate": name, "rollback": True}, 422),
        ):
            assert client.post("/v1/models", json=body).status_code == status, body


def test_a_damaged_bundle_is_not_taken_up_and_the_one_before_serves_on(small_run: Path) -> None:
    name = other_bundle(small_run)
    with worker(small_run) as (one, watch_one):
        Versions(small_run).activate(name)
        (small_run / "bundles" / name / "reward" / "scorer.json").write_text("{}")
        before = one.service
        assert not watch_one.look()
        assert one.service is before
        decide(one.service)


def test_arms_are_drawn_by_a_salted_hash_in_their_shares_and_recorded(small_run: Path) -> None:
    name = other_bundle(small_run)
    arms = {
        "now": {"share": 0.4},
        "other": {"share": 0.3, "bundle": name, "epsilon": 0.5},
        "holdout": {"share": 0.2, "scorer": "popularity"},
    }
    with worker(small_run, experiment={"name": "spring", "salt": "s", "arms": arms}) as (one, watch_one):
        experiment = one.service.experiment
        drawn = [experiment.arm(f"user-{i}") for i in range(20_000)]
        for arm, share in (("now", 0.4), ("other", 0.3), ("holdout", 0.2), ("", 0.1)):
            error = np.sqrt(share * (1 - share) / len(drawn))
            assert abs(drawn.count(arm) / len(drawn) - share) < 4 * error
        by_arm = {experiment.arm(f"listener-{i:02d}"): f"listener-{i:02d}" for i in range(40)}
        assert {"now", "other", "holdout"} <= set(by_arm)
        model_id = {arm: decide(one.service, user).model_id for arm, user in by_arm.items()}
        assert len({model_id["now"], model_id["other"], model_id["holdout"]}) == 3
        assert model_id["holdout"] == "popularity"
        decision = decide(one.service, by_arm["other"])
        assert decision.arm == "spring:other"
        assert set(decision.card_epsilon) == {0.5}
        one.service.control.switch("explore", "off", NOW)
        watch_one.look()
        decision = decide(one.service, by_arm["other"])
        assert decision.arm == "control:explore-off"
        assert not decision.card_epsilon.any()


def test_an_experiments_draw_is_independent_of_anothers() -> None:
    one = np.array([place_of(f"user-{i}", "one", "") for i in range(4000)])
    two = np.array([place_of(f"user-{i}", "two", "") for i in range(4000)])
    salted = np.array([place_of(f"user-{i}", "one", "x") for i in range(4000)])
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06
    assert abs(np.corrcoef(one, salted)[0, 1]) < 0.06


def test_an_arm_of_a_bundle_that_is_not_there_is_refused_at_the_start(small_run: Path) -> None:
    arms = {"now": {"share": 1.0, "bundle": "20200101T000000Z-01234567"}}
    with pytest.raises(BundleError, match="has no bundle"), worker(small_run, experiment={"name": "e", "arms": arms}):
        pass
    with pytest.raises(DataError, match="at most 1 together"):
        load_settings({"experiment": {"name": "e", "arms": {"a": {"share": 0.7}, "b": {"share": 0.7}}}})


def test_a_shadow_page_is_logged_and_never_learnt_from(small_run: Path, client_of: ClientOf) -> None:
    with worker(small_run) as (one, _), client_of(one.service) as client:
        decision = one.service.log.get(visit(client, shadow=True)["request_id"])
        assert decision.forced
        assert decision.arm == "shadow"


def test_the_guard_rolls_back_a_model_that_earns_too_little_and_says_why(small_run: Path, client_of: ClientOf) -> None:
    first = Versions(small_run).active()
    name = other_bundle(small_run)
    limits = {"guard": {"min_reward_rate": 0.2, "pages": 20}}
    with worker(small_run, **limits) as (one, watch_one):
        Versions(small_run).activate(name)
        watch_one.look()
        with client_of(one.service) as client:
            for visitor in range(25):
                assert guard(one.service) is None or visitor >= 20
                page = visit(client, f"listener-{visitor % 12:02d}")
                events = [{"event_id": "1", "row": 0, "column": 0, "seen": True, "listened_s": 0.0}]
                client.post("/v1/feedback", json={"request_id": page["request_id"], "events": events})
                if Versions(small_run).active() == first:
                    break
        assert guard(one.service) is None or Versions(small_run).active() == first
        assert Versions(small_run).active() == first
        assert "guard: the reward rate over 20 pages is 0.0000, under 0.2" in one.service.control.history(1)[0].why


def test_keys_open_what_their_scopes_say_and_nothing_else(small_run: Path, client_of: ClientOf) -> None:
    keys = {
        "app": {"sha256": sha256(b"app key").hexdigest(), "scopes": ["page", "feedback"]},
        "ops": {"sha256": sha256(b"ops key").hexdigest(), "scopes": ["admin"]},
    }
    with worker(small_run, serve={"keys": keys}) as (one, _), client_of(one.service) as client:
        for key, page, admin in (("app key", 200, 403), ("ops key", 403, 200), ("wrong", 401, 401), (None, 401, 401)):
            headers = {} if key is None else {"x-api-key": key}
            assert client.post("/v1/home", json={"user_id": "u"}, headers=headers).status_code == page, key
            assert client.get("/v1/control", headers=headers).status_code == admin, key
        assert client.get("/health").status_code == 200


def test_a_caller_over_its_rate_is_told_when_to_come_again(small_run: Path, client_of: ClientOf) -> None:
    limits = {"serve": {"rate": 0.001, "burst": 3}}
    with worker(small_run, **limits) as (one, _), client_of(one.service) as client:
        answers = [client.post("/v1/home", json={"user_id": "u"}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) > 900
        assert len(one.service.log) == 3


def test_a_request_is_counted_once_whatever_it_asks_for(small_run: Path, client_of: ClientOf) -> None:
    limits = {"serve": {"rate": 0.001, "burst": 2}}
    with worker(small_run, **limits) as (one, _), client_of(one.service) as client:
        ask = {"user_id": "u", "seed": 1, "at": "2026-03-01T08:00:00Z"}
        answers = [client.post("/v1/home?debug=true", json=ask) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_a_request_log_tells_what_happened_and_hides_who(
    small_run: Path, client_of: ClientOf, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    with worker(small_run, serve={"request_log": True}) as (one, _), client_of(one.service) as client:
        visit(client, "listener-03")
        client.post("/v1/home", json={"user_id": "listener-03", "rows": 0})
        client.post("/v1/home", json={"user_id": "listener-03"}, headers={"x-api-key": "secret"})
        client.get("/v1/listeners/listener-03?word=secret")
        client.get("/listener-03")
        client.get("/")
        client.get("/static/app.js")
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == [200, 422, 200, 200, 404, 200, 200]
    assert [line.get("error") for line in lines[:2]] == [None, "The request is not what was expected"]
    assert lines[0]["user"] == lines[2]["user"] == lines[3]["user"]
    assert [(line["method"], line["route"]) for line in lines[3:]] == [
        ("GET", "/v1/listeners/{user_id:path}"),
        ("GET", "none"),
        ("GET", "/"),
        ("GET", "/static"),
    ]
    assert lines[0]["route"] == "/v1/home"
    assert lines[0]["ms"] > 0
    assert "listener-03" not in text
    assert "secret" not in text


def test_an_erased_listener_is_nowhere_and_the_receipt_is_genuine(small_run: Path, client_of: ClientOf) -> None:
    with worker(small_run) as (one, _), client_of(one.service) as client:
        page = visit(client, "listener-05")
        told = client.get("/v1/listeners/listener-05").json()
        assert told["pages"] == 1
        assert told["state"]["known"]
        play = {"item_id": str(one.service.run.items.item_id[0])}
        session = {"user_id": "listener-05", "session_id": "s", "final": False, "plays": [play]}
        assert client.post("/v1/sessions", json=session).status_code == 202
        receipt = client.delete("/v1/listeners/listener-05").json()
        assert (receipt["pages"], receipt["states"], receipt["sessions"]) == (1, 1, 1)
        assert is_genuine(receipt, one.service.key)
        assert not is_genuine({**receipt, "pages": 2}, one.service.key)
        assert client.get("/v1/listeners/listener-05").status_code == 404
        assert client.get(f"/v1/decisions/{page['request_id']}").status_code == 404
        assert one.service.run.store.get("listener-05") is None
        assert one.service.listening.sessions.running("listener-05", int(NOW.timestamp())) is None
    for file in ("log.sqlite", "listeners.sqlite", "sessions.sqlite"):
        assert b"listener-05" not in (small_run / file).read_bytes(), file
