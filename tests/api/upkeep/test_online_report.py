"""The report by arm: randomised comparisons online, and agreement with what the other arms' pages say."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import orjson
import pytest

from api.run.progress import Quiet
from api.run.settings import load_settings
from api.service.service import open_service
from api.upkeep.online_report import online_report
from api.wire.schemas import HomeRequest
from bart.errors import DataError

ARMS = {
    "name": "e",
    "salt": "1",
    "arms": {"now": {"share": 0.5, "epsilon": 0.4}, "chance": {"share": 0.5, "epsilon": 1.0}},
}


def test_arms_are_compared_online_and_from_each_others_pages(small_run: Path) -> None:
    """Listeners stream what stands first on the page with their genre; the greedier arm must earn more."""
    settings = load_settings({"page": {"rows": 3, "columns": 4}, "experiment": ARMS, "reward": {"window_h": 0.001}})
    rng = np.random.default_rng(2)
    with open_service(small_run, settings) as service:
        for visit in range(500):
            user = f"visitor-{visit % 100:03d}"
            page = orjson.loads(service.home(HomeRequest(user_id=user)))
            decision = service.log.get(page["request_id"])
            assert decision is not None
            events = []
            for row, column in np.argwhere(decision.page.card >= 0)[:6].tolist():
                score = decision.raw_score[decision.page.card[row, column]]
                heard = 40.0 if rng.random() < score else 0.0
                events.append(
                    {"event_id": f"{row}{column}", "occurred_at": decision.context.at, "row": row, "column": column,
                     "seen": True, "listened_s": heard}
                )  # fmt: skip
            service.log.feedback(page["request_id"], events, decision.context.at + timedelta(seconds=1))
    later = datetime.now(timezone.utc) + timedelta(minutes=5)
    found = online_report(small_run, settings, Quiet(), later)
    now, chance = found["arms"]
    assert [now["arm"], chance["arm"]] == ["e:now", "e:chance"]
    assert now["pages"] + chance["pages"] == 500
    assert now["difference"] is None
    assert chance["difference_upper"] < 0.6
    assert chance["difference_lower"] < chance["once_lower"] < chance["once_upper"] < chance["difference_upper"]
    assert sum(found["shares"]["listeners"].values()) == 100
    assert not found["shares"]["warnings"]
    for arm in found["arms"]:
        off = arm["off_policy"]
        width = np.hypot(arm["upper"] - arm["lower"], off["upper"] - off["lower"])
        assert abs(off["value"] - arm["value"]) < width
        assert off["pages"] == 500 - arm["pages"]


def test_pages_of_no_arm_are_counted_and_without_any_arm_there_is_no_report(small_run: Path) -> None:
    plain = load_settings({"page": {"rows": 3, "columns": 4}, "reward": {"window_h": 0.001}})
    with open_service(small_run, plain) as service:
        page = orjson.loads(service.home(HomeRequest(user_id="visitor")))
        at = datetime.now(timezone.utc)
        service.log.feedback(page["request_id"], [{"event_id": "1", "occurred_at": at, "displayed": True}], at)
    settings = load_settings({"experiment": ARMS, "reward": {"window_h": 0.001}})
    with pytest.raises(DataError, match="no closed page is of an arm"):
        online_report(small_run, settings, Quiet(), at + timedelta(hours=1))
