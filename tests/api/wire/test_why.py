"""What the pages tell of a card and of the log, held against the records themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from api.background.jobs import Job
from api.upkeep.operating_figures import calibration, figures, watch
from api.wire.decision_json import decision_document
from api.wire.why import held, left_for, neighbours, place_pmf, why_document
from bart.item_store import load_items
from bart.log.decision_log import DecisionLog
from bart.types import ItemTable
from recommender.containers.rows import with_containers
from recommender.shelves.items import item_table, read_items


@pytest.fixture(scope="module")
def logged(demo_run: Path) -> Iterator[tuple[DecisionLog, ItemTable]]:
    with DecisionLog(demo_run / "log.sqlite", create=False) as log:
        yield log, load_items(demo_run / "bundle" / "items")


def test_the_probabilities_of_a_place_sum_to_one_and_hold_the_recorded_propensity(
    logged: tuple[DecisionLog, ItemTable],
) -> None:
    for decision, _ in zip(logged[0].decisions(), range(60), strict=False):
        for row, column in np.argwhere(decision.page.shown & ~decision.page.pinned).tolist():
            pmf = place_pmf(decision, left_for(decision, row, column), column)
            assert pmf.sum() == pytest.approx(1.0, abs=1e-12)
            propensity = decision.page.card_propensity[row, column]
            assert pmf[decision.page.card[row, column]] == pytest.approx(propensity, abs=1e-12)


def test_a_card_is_explored_where_the_model_alone_would_have_shown_another(
    logged: tuple[DecisionLog, ItemTable],
) -> None:
    log, items = logged
    explored = 0
    for decision, _ in zip(log.decisions(), range(40), strict=False):
        document = decision_document(decision, log, items, None, "streamed_30s")
        found = why_document(decision, document, 0, 0, items)
        assert found is not None
        best = max(found["alternatives"], key=lambda one: one["propensity"])
        assert found["explored"] == (best["item_id"] != found["item_id"])
        assert [one["item_id"] for one in found["alternatives"] if one["stands_here"]] in ([], [found["item_id"]])
        total = sum(one["propensity"] for one in found["alternatives"]) + found["others_propensity"]
        assert total == pytest.approx(1.0, abs=1e-12)
        assert why_document(decision, document, 0, decision.columns, items) is None
        explored += found["explored"]
    assert 0 < explored < 40


def test_neighbours_are_the_closest_by_cosine(logged: tuple[DecisionLog, ItemTable]) -> None:
    items = logged[1]
    row = int(np.flatnonzero(items.vector.any(axis=1))[7])
    cosine = items.vector @ items.vector[row]
    expected = [items.item_id[i] for i in np.argsort(-cosine, kind="stable") if i != row][:5]
    assert [one["item_id"] for one in neighbours(items, items.item_id[row])] == expected
    assert neighbours(items, "no such item") == []


def test_the_figures_are_those_of_the_joined_pages(logged: tuple[DecisionLog, ItemTable]) -> None:
    log, items = logged
    found = watch(log, items, "streamed_30s", pages=100)
    latest = list(log.decisions())[-100:]
    streamed = seen = 0
    for decision in latest:
        joined = log.joined(decision.request_id)
        assert joined is not None
        seen += int(joined.seen.sum())
        rows = items.rows(decision.item_id[decision.page.card[joined.seen]])
        listened_s = joined.listened_s[joined.seen]
        streamed += int(((listened_s >= 30) | (listened_s >= 0.5 * items.duration_s[rows])).sum())
    told = figures(found)
    assert told["pages"] == 100
    assert told["total"]["seen"] == seen
    assert told["total"]["reward_rate"] == pytest.approx(streamed / seen)
    assert told["total"]["value"] == pytest.approx(streamed / 100)
    assert sum(one["pages"] for one in told["periods"]) == 100
    assert sum(one["seen"] for one in told["periods"]) == seen
    assert sum(one["cards"] for one in told["calibration"]) == seen
    assert [one["arm"] for one in told["arms"]] == [""]


def test_a_calibrated_score_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(2)
    score = rng.random(20_000)
    bins = calibration(score, (rng.random(20_000) < score).astype(float))
    error = [abs(one["predicted"] - one["reward"]) for one in bins]
    assert max(error) < 4 * np.sqrt(0.25 / 2_000)


def test_figures_of_an_empty_log_are_none(tmp_path: Path, logged: tuple[DecisionLog, ItemTable]) -> None:
    with DecisionLog(tmp_path / "log.sqlite") as log:
        told = figures(watch(log, logged[1], "streamed_30s"))
    assert told["pages"] == 0
    assert told["total"]["reward_rate"] is None
    assert (told["periods"], told["arms"], told["calibration"]) == ([], [], [])


SLOW = """
import json, sys, time
from pathlib import Path
import api.background.worker as worker
def slow(asked, result, tell):
    tell({"kind": "progress", "note": "begun"})
    (Path(result).parent / "scratch" / "file").write_text("x")
    if asked.get("fails"):
        raise ValueError("it cannot be done")
    time.sleep(60)
worker.KINDS["slow"] = slow
worker.main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job that takes a minute, or fails when asked to."""
    import subprocess

    start = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", SLOW, *command[3:]], **options)

    monkeypatch.setattr("api.background.jobs.subprocess.Popen", popen)
    found = Job(tmp_path, "slow")
    yield found
    found.close()


def wait(done: Any) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_job_of_a_kind_works_at_a_time_and_any_process_may_cancel_it(job: Job, tmp_path: Path) -> None:
    assert job.start({"number": 1})
    other = Job(tmp_path, "slow")  # as another process that serves the run sees it
    assert other.running
    assert not other.start({"number": 2})
    wait(lambda: len(other.events()) == 2)
    assert other.cancel()
    assert not job.running
    assert job.state()["ended"] == {"kind": "cancelled"}
    assert not other.cancel()
    wait(lambda: not (job.directory / "scratch").exists())


def test_a_job_that_fails_says_why(job: Job) -> None:
    job.start({"fails": True})
    wait(lambda: not job.running)
    assert job.state()["ended"] == {"kind": "failed", "reason": "it cannot be done"}


def test_a_job_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    import subprocess

    parent = (
        "import sys, time, subprocess; from pathlib import Path; import api.background.jobs as jobs\n"
        "start = subprocess.Popen\n"
        "jobs.subprocess.Popen = lambda c, **o: start([sys.executable, '-c', sys.argv[2], *c[3:]], **o)\n"
        "jobs.Job(Path(sys.argv[1]), 'slow').start({})\n"
        "print('started', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path), SLOW], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    job = Job(tmp_path, "slow")
    wait(lambda: len(job.events()) == 2)
    assert job.running
    process.kill()
    process.wait()
    process.stdout.close()
    wait(lambda: not job.running)
    assert job.state()["ended"]["kind"] == "failed"
    assert not (job.directory / "scratch").exists()


def test_a_container_tells_what_it_holds_and_an_item_what_it_stands_in() -> None:
    rows = read_items(pa.table({"item_id": list("abcdefg"), "album": ["X"] * 6 + [None], "artist": ["A"] * 7})).items
    items = item_table(with_containers(rows))
    assert held(items, "album:A:X") == {"holds": {"members": 6, "titles": list("abcde")}}
    assert held(items, "c") == {"stands_in": ["X"]}
    assert held(items, "g") == held(items, "no such item") == {}
