"""What is told of an item and of a listener is what log and store hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.browse.exposure import Exposure
from api.browse.item import item_document
from api.browse.listener import listener_profile, taste
from api.run.settings import load_settings
from api.service.service import HomeService, open_service
from recommender.features.history import History


@pytest.fixture(scope="module")
def service(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeService]:
    run = Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("browse") / "run", symlinks=True))
    with open_service(run, load_settings({})) as found:
        yield found


def test_the_exposure_of_an_item_is_what_the_pages_of_the_log_say(service: HomeService) -> None:
    window = Exposure(pages=200).window(service)
    decisions = [d for d in list(service.log.decisions())[-200:] if not d.forced]
    shown: dict[str, int] = {}
    seen: dict[str, int] = {}
    for decision in decisions:
        joined = service.log.joined(decision.request_id)
        assert joined is not None
        for place in np.argwhere(decision.page.card >= 0):
            item = str(decision.item_id[decision.page.card[tuple(place)]])
            shown[item] = shown.get(item, 0) + 1
            seen[item] = seen.get(item, 0) + int(joined.seen[tuple(place)])
    assert window.item.shape == (sum(shown.values()),)
    for item in sorted(shown, key=lambda one: -shown[one])[:20]:
        told = window.of(item)
        assert (told["shown"], told["seen"], told["pages"]) == (shown[item], seen[item], len(decisions))
        for parts in (told["periods"], told["shelves"]):
            assert sum(part["shown"] for part in parts) == shown[item]
            assert sum(part["reward"] for part in parts) == pytest.approx(told["reward"])
    assert window.of("nobody ever")["shown"] == 0


def test_pages_that_were_met_are_not_decoded_again_and_erased_ones_are_gone(
    service: HomeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime, timezone

    from api.browse import exposure
    from bart.log.care.erasure import erase_user
    from bart.log.store.store import StoredDecision

    monkeypatch.setattr(exposure, "FRESH_S", 0.0)
    kept = Exposure(pages=100)
    before = len(kept.window(service).at_us)
    monkeypatch.setattr(StoredDecision, "decode", lambda _: pytest.fail("decoded again"))
    assert len(kept.window(service).at_us) == before
    monkeypatch.undo()
    monkeypatch.setattr(exposure, "FRESH_S", 0.0)
    last = list(service.log.decisions())[-1]
    gone = sum(d.user_id == last.user_id for d in list(service.log.decisions())[-100:])
    erase_user(service.log, last.user_id, datetime.now(timezone.utc), [], compact=False)
    assert last.request_id not in {d.request_id for d in service.log.decisions()}
    window = kept.window(service)
    assert len(window.at_us) <= 100
    assert gone >= 1


def test_an_item_is_told_with_what_holds_it_and_what_is_near(service: HomeService) -> None:
    items = service.run.items
    window = Exposure(pages=20).window(service)
    album = int(np.flatnonzero(items.is_container)[0])
    told = item_document(service, str(items.item_id[album]), window)
    assert told is not None
    assert [one["item_id"] for one in told["members"]] == items.item_id[items.members[album]].tolist()
    member = item_document(service, told["members"][0]["item_id"], window)
    assert member is not None
    assert told["item_id"] in {one["item_id"] for one in member["holders"]}
    cosine = [one["cosine"] for one in member["neighbours"]]
    assert cosine == sorted(cosine, reverse=True)
    assert len(cosine) == 12
    assert item_document(service, "no such item", window) is None


def test_a_listener_is_told_with_history_taste_vectors_and_pages(service: HomeService) -> None:
    decision = list(service.log.decisions())[-1]
    user = decision.user_id
    told = listener_profile(service, user)
    row = service.run.store.get(user)
    assert told is not None
    assert row is not None
    assert row.history is not None
    assert told["history_count"] == len(row.history.item)
    times = [one["last_at"] for one in told["history"] if one["last_at"]]
    assert times == sorted(times, reverse=True)
    again = listener_profile(service, user, after=len(told["history"]))
    assert again is not None
    first, second = ({one["item_id"] for one in part["history"]} for part in (told, again))
    assert not first & second
    assert told["pages"][0]["request_id"] == decision.request_id
    assert len(told["vector"]) == service.run.items.dimension
    assert sum(one["share"] for one in told["interests"]) == pytest.approx(1, abs=1e-5)
    assert told["preferences"]["mode"] == "personalised"
    assert listener_profile(service, "nobody ever") is None


def test_a_taste_fades_by_the_half_life_and_counts_each_play_once(service: HomeService) -> None:
    items = service.run.items
    alone = np.flatnonzero(~items.is_container & (items.artists.first >= 0) & (np.diff(items.artists.offset) == 1))
    first = int(alone[0])
    second = int(next(row for row in alone if items.artists.first[row] != items.artists.first[first]))
    album = int(np.flatnonzero(items.is_container)[0])
    now_s, month_s = 1_700_000_000, 30 * 86400
    row = np.array([first] * 4 + [second] * 2 + [album] * 6)
    at_s = np.array([now_s - 2 * month_s] * 2 + [now_s - month_s] * 2 + [now_s] * 8)
    history = History.empty(items.dimension, 0).counted(row, np.zeros(len(row), dtype=np.bool_), at_s)
    told = taste(items, history, offset_min=60)
    assert (told["plays"], told["items"]) == (6, 2)
    assert sorted(one["share"] for one in told["artists"]) == pytest.approx([1.5 / 3.5, 2 / 3.5])
    assert told["hours"][(now_s + 3600) // 3600 % 24] >= 1
    assert sum(told["hours"]) == 2
    nothing: dict[str, Any] = taste(items, None)
    assert (nothing["plays"], nothing["genres"], nothing["spread"], sum(nothing["hours"])) == (0, [], None, 0)
