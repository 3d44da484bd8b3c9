"""Rewards of installed packages are found by their names, and an export's reward is what is learnt and judged."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from api.jobs.train import read_all
from api.run.settings import load_settings
from api.service.service import open_service
from api.wire.schemas import HomeRequest
from bart.errors import DataError
from bart.item_store import load_items
from bart.log.care.export import export_log
from bart.log.outcomes.pages import read_pages, recorded_reward
from bart.reward.rewards import REWARD_GROUP, REWARDS, find_reward, reward_of


def heard_at_all(listened_s: np.ndarray, duration_s: np.ndarray, saved: np.ndarray) -> np.ndarray:
    """A quarter for any listening, 1 for a save."""
    del duration_s
    return np.where(saved, 1.0, np.where(listened_s > 0, 0.25, 0.0))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        SimpleNamespace(name="heard_at_all", load=lambda: heard_at_all),
        SimpleNamespace(name="no_function", load=lambda: 3),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == REWARD_GROUP else ())
    monkeypatch.setattr("bart.reward.rewards.REWARDS", dict(REWARDS))


@pytest.mark.usefixtures("installed")
def test_a_reward_of_an_installed_package_is_found_by_its_name() -> None:
    assert find_reward("heard_at_all") is heard_at_all
    heard, seen = np.array([0.0, 3.0, 50.0]), np.array([True, True, False])
    reward = reward_of("heard_at_all", heard, np.full(3, 200.0), np.zeros(3, dtype=bool), seen)
    assert reward.tolist() == [0.0, 0.25, 0.0]
    assert load_settings({"reward": {"name": "heard_at_all"}}).reward.name == "heard_at_all"
    with pytest.raises(ValueError, match="no_function' is a int; expected a function"):
        find_reward("no_function")


def test_a_reward_that_nobody_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match=r"reward.name is 'applause'; expected one of .*clicked, completed"):
        load_settings({"reward": {"name": "applause"}})


@pytest.mark.usefixtures("installed")
def test_what_is_read_for_learning_and_judging_is_the_reward_of_the_export(small_run: Path, tmp_path: Path) -> None:
    settings = load_settings({"page": {"rows": 3, "columns": 4}, "reward": {"window_h": 0.001}})
    with open_service(small_run, settings) as service:
        for visit in range(12):
            page = orjson.loads(service.home(HomeRequest(user_id=f"listener-{visit:02d}")))
            decision = service.log.get(page["request_id"])
            assert decision is not None
            at = decision.context.at
            event = {"event_id": "1", "occurred_at": at, "row": 0, "column": 0, "seen": True, "listened_s": 5.0}
            service.log.feedback(page["request_id"], [event], at + timedelta(seconds=1))
        later = datetime.now(timezone.utc) + timedelta(minutes=5)
        for name in ("streamed_30s", "heard_at_all"):
            export_log(service.log, tmp_path / name, now=later, duration_s=service.run.items, reward=name)
    items = load_items(small_run / "bundle/items")
    for name, worth in (("streamed_30s", 0.0), ("heard_at_all", 0.25)):
        assert recorded_reward(tmp_path / name) == name
        pages = read_all(tmp_path / name, items)
        assert len(pages) == 12
        assert np.nansum(pages.reward, axis=(1, 2)).tolist() == [worth] * 12
    # The default of the reader itself stays what it was.
    assert sum(batch.reward.sum() for batch in read_pages(tmp_path / "heard_at_all", items)) == 0.0


def test_an_export_without_files_has_the_default_reward(tmp_path: Path) -> None:
    assert recorded_reward(tmp_path) == "streamed_30s"
