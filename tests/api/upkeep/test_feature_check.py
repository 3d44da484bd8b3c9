"""What was known of candidates: moved by what was reported, recorded, found again; the first difference is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.cli import main
from api.run.settings import load_settings
from api.service.service import open_service
from api.upkeep.feature_check import FeatureCheck, check_features
from api.upkeep.item_updates import publish_items
from bart.errors import DataError
from bart.log.decision_log import DecisionLog
from bart.types import Decision
from recommender.features.definitions import NAMES

SETTINGS = load_settings({"page": {"rows": 4, "columns": 5}})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour passes between two requests."""
    moment = datetime(2026, 3, 1, tzinfo=timezone.utc)

    def now() -> datetime:
        nonlocal moment
        moment += timedelta(minutes=30)
        return moment

    monkeypatch.setattr("api.service.service.utc_now", now)


def session(user: str, number: int, *items: str, final: bool = True, skipped: bool = False) -> dict[str, Any]:
    plays = [{"item_id": item, "listened_s": 3.0 if skipped else 190.0, "skipped": skipped} for item in items]
    return {"user_id": user, "session_id": f"s{number}", "final": final, "plays": plays}


def checked(run: Path) -> FeatureCheck:
    return check_features(run, SETTINGS, 500, np.random.default_rng(0))


def served(run: Path, client_of: Callable[..., Any], *posts: tuple[str, dict[str, Any]]) -> list[Decision]:
    """The decisions of the pages among what is posted, in one service."""
    found = []
    with open_service(run, SETTINGS) as service, client_of(service) as client:
        for path, body in posts:
            answer = client.post(path, json=body)
            assert answer.status_code < 300, answer.text
            if path == "/v1/home":
                decision = service.log.get(answer.json()["request_id"])
                assert decision is not None
                found.append(decision)
    return found


def home(user: str) -> tuple[str, dict[str, Any]]:
    return "/v1/home", {"user_id": user}


def level(decision: Decision, name: str) -> dict[str, int]:
    """The level of each candidate."""
    assert decision.features is not None
    column = decision.features.level[:, decision.features.name.index(name)]
    return dict(zip(decision.item_id.tolist(), column.tolist(), strict=True))


def test_a_reported_play_moves_the_features_of_the_next_page_and_not_those_of_the_last(
    small_run: Path, client_of: Callable[..., Any]
) -> None:
    user, heard = "listener-00", ("item-09",) * 4
    before, running, after = served(
        small_run,
        client_of,
        home(user),
        ("/v1/sessions", session(user, 1, *heard, final=False)),
        home(user),
        ("/v1/sessions", session(user, 1, *heard)),
        home(user),
    )
    assert before.features is not None
    assert before.features.name == NAMES
    for later in (running, after):
        both = set(level(before, "plays")) & set(level(later, "plays"))
        same = [name for name in both if level(later, "item_plays")[name] == level(before, "item_plays")[name]]
        if "item-09" in both:
            assert "item-09" not in same
        genre = [level(later, "genre_plays")[name] != level(before, "genre_plays")[name] for name in both]
        assert any(genre)


def feedback(decision: Decision, *, saved: bool = False) -> tuple[str, dict[str, Any]]:
    """That the first card of a page was streamed, and perhaps saved, reported now."""
    at = (decision.context.at + timedelta(minutes=1)).isoformat()
    card = {
        "event_id": "2",
        "occurred_at": at,
        "row": 0,
        "column": 0,
        "seen": True,
        "listened_s": 170.0,
        "saved": saved,
    }
    events = [{"event_id": "1", "occurred_at": at, "displayed": True}, card]
    return "/v1/feedback", {"request_id": decision.request_id, "events": events}


def test_what_is_recorded_is_found_again_over_late_feedback_sessions_restarts_and_an_erasure(
    small_run: Path, client_of: Callable[..., Any]
) -> None:
    users = [f"listener-{k:02d}" for k in range(6)]
    shown: list[Decision] = []
    for round_ in range(3):  # a restart between them
        # What happened on the last round's pages is told hours late, before, between and after this round's pages.
        late = [feedback(decision, saved=k % 2 == 0) for k, decision in enumerate(shown)]
        posts = [*late[::3], *(home(user) for user in users), *late[1::3]]
        posts += [("/v1/sessions", session(user, round_, f"item-{k:02d}", "item-07")) for k, user in enumerate(users)]
        posts += [("/v1/sessions", session("somebody new", round_, "item-01", "item-02", skipped=round_ == 1))]
        posts += [home("somebody new"), *late[2::3], *(home(user) for user in users)]
        shown = served(small_run, client_of, *posts)
    with closing(DecisionLog(small_run / "log.sqlite")) as log:
        joined = log.join([row for stored in log.stored_pages() for row in stored])
        assert sum(bool(one.seen.any()) for one in joined) == 24  # of 26 that were told, two after their windows
    found = checked(small_run)
    assert found.differences == 0, found.first
    assert found.pages > 30
    with open_service(small_run, SETTINGS) as service, client_of(service) as client:
        assert client.delete(f"/v1/listeners/{users[0]}").status_code < 300
        client.post("/v1/home", json={"user_id": users[0]})
    again = checked(small_run)
    assert again.differences == 0, again.first
    assert 0 < again.pages < found.pages + 1


def test_a_value_that_is_not_found_again_is_named(
    small_run: Path, client_of: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    served(small_run, client_of, *(home(f"listener-{k:02d}") for k in range(4)))
    with pytest.raises(SystemExit) as done:
        main(["features", "check", str(small_run)])
    assert done.value.code == 0
    assert "4 pages" in capsys.readouterr().out
    events = pq.read_table(small_run / "events.parquet")
    skipped = pa.array(np.ones(len(events), dtype=np.bool_))
    pq.write_table(
        events.set_column(events.schema.get_field_index("skipped"), "skipped", skipped), small_run / "events.parquet"
    )
    with pytest.raises(SystemExit) as done:
        main(["features", "check", str(small_run)])
    assert done.value.code == 1
    told = capsys.readouterr().out
    assert "is recorded" in told
    assert any(f", {name}: level" in told for name in NAMES)


def test_a_check_of_no_page_is_no_success(small_run: Path) -> None:
    with (
        open_service(small_run, SETTINGS),
        pytest.raises(DataError, match="no page of batch .* was compared; expected"),
    ):
        checked(small_run)


def test_features_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["features", "list"])
    told = capsys.readouterr().out
    assert all(f"{name} " in told for name in NAMES)


def test_pages_before_a_container_got_other_members_are_left_out_where_they_hold_it(
    small_run: Path, client_of: Callable[..., Any]
) -> None:
    def put(*members: str) -> None:
        with open_service(small_run, SETTINGS) as service, client_of(service) as client:
            body = {"title": "Mine", "type": "playlist", "members": members}
            assert client.put("/v1/items/mine", json=body).status_code == 202
            made_at = f"2026-03-01T00:00:0{len(members)}+00:00"
            assert publish_items(small_run, service.control, made_at).bundle is not None

    shelves = {"shelves": [{"title": "Mine", "items": ["mine", "item-00", "item-01"]}]}
    put("item-01", "item-02", "item-03")
    for user in ("listener-00", "listener-01"):
        served(small_run, client_of, ("/v1/home", {"user_id": user}), ("/v1/rank", {"user_id": user, **shelves}))
    assert checked(small_run).differences == 0
    put("item-05", "item-09")
    served(small_run, client_of, ("/v1/home", {"user_id": "listener-00"}))
    found = checked(small_run)
    assert found.differences == 0
    assert found.left_out["an item was published anew"] >= 2
    assert found.pages >= 1


def test_values_online_and_offline_are_listed_and_the_same(
    small_run: Path, client_of: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    user, item = "listener-00", "item-09"
    served(small_run, client_of, ("/v1/sessions", session(user, 1, item, item, item)), home(user))
    asked = ["features", "list", "--run", str(small_run), "--user", user, "--item", item, "--json"]
    with pytest.raises(SystemExit):
        main(asked)
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["online"] for row in rows} == {row["name"]: row["offline"] for row in rows}
    assert next(row["online"] for row in rows if row["name"] == "item_plays") >= 3
    with pytest.raises(SystemExit):
        main(asked[:-1])
    assert "item_plays" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"), [(["--item", "no such item"], "item 'no such item' is not in the batch"), ([], "go together")]
)
def test_values_of_nothing_are_refused(
    small_run: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["features", "list", "--run", str(small_run), "--user", "listener-00", *given])
    assert done.value.code == 2
    assert said in capsys.readouterr().err
