"""A page that is only looked at is the page that would be served, and leaves no trace in the log."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from api.cli import main
from api.run.runs import open_run
from api.run.settings import load_settings
from api.service.control import CONTROL_FILE, ControlStore
from api.service.service import open_service
from api.wire.schemas import HomeRequest
from bart.log.decision_log import DecisionLog
from bart.types import Context

NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
USER = "listener-03"


def test_a_preview_is_the_page_that_is_served_for_the_same_seed_and_time(small_run: Path) -> None:
    asked = HomeRequest(user_id=USER, device="desktop", rows=3, columns=4, seed=11, at=NOON)
    with open_service(small_run, load_settings()) as service:
        found = service.preview(asked)
        served = json.loads(service.home(asked, debug=True))
    assert len(served["shelves"]) == len(found.shelves) > 0
    for theirs, ours in zip(served["shelves"], found.shelves, strict=True):
        assert (theirs["title"], theirs["propensity"]) == (ours.title, ours.propensity)
        assert [(card["item_id"], card["score"], card["propensity"]) for card in theirs["cards"]] == [
            (card.item_id, card.score, card.propensity) for card in ours.cards
        ]


def test_the_command_heeds_switches_and_records_nothing(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*options: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["page", str(small_run), USER, "--rows", "3", "--columns", "4", "--seed", "5", *options])
        assert left.value.code == 0
        return capsys.readouterr().out

    text, document = shown(), json.loads(shown("--json"))
    first = document["shelves"][0]["cards"][0]
    for told in (first["title"], f"{first['propensity']:.4f}", "seed 5", "not recorded"):
        assert told in text
    with closing(ControlStore(small_run / CONTROL_FILE)) as control:
        control.take_down([first["item_id"]], NOON)
    after = json.loads(shown("--json"))
    assert first["item_id"] not in {card["item_id"] for shelf in after["shelves"] for card in shelf["cards"]}
    with DecisionLog(small_run / "log.sqlite") as log:
        assert len(log) == 0


def test_what_cannot_be_asked_for_is_one_line(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in ((["--rows", "0"], "rows: "), (["--device", "my phone"], "device: ")):
        with pytest.raises(SystemExit) as left:
            main(["page", str(small_run), USER, *options])
        error = capsys.readouterr().err
        assert left.value.code == 2
        assert error.startswith(f"bart: {told}")
        assert error.count("\n") == 1


def test_a_run_in_python_shows_pages_that_can_be_read(small_run: Path) -> None:
    run = open_run(small_run)
    page = run.page(USER, Context(NOON), rows=3, columns=4, seed=7)
    assert page.known
    assert np.array_equal(page.propensities, page.decision.page.card_propensity, equal_nan=True)
    assert [card.propensity for card in page.cards] == page.propensities[page.decision.page.shown].tolist()
    for text in (repr(page), page._repr_html_()):
        assert USER in text
        assert all(card.title in text for card in page.cards)
    assert repr(run.page(USER, Context(NOON), rows=3, columns=4, seed=7)) == repr(page)
    stranger = run.page("nobody", rows=2, columns=2)
    assert not stranger.known
    assert "unknown here" in repr(stranger)
    assert not (small_run / "log.sqlite").exists()
    with pytest.raises(ValueError, match="rows is 0; expected 1 to 50"):
        run.page(USER, rows=0)
    run.store.close()
