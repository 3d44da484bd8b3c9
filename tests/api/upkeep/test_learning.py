"""A real service on a real socket learns while it serves: a scripted listener gets more of what it streams."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from api.run.settings import load_settings
from api.run.versions import Versions
from api.service.service import open_service
from api.upkeep.learning import ANCHOR, OnlineLearning
from bart.bundle import open_bundle
from bart.item_store import load_items
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.reward.scorer import load_scorer
from bart.types import Candidates

GENRES = ("soul", "folk", "techno", "jazz")
LIKED = "techno"  # listener-00 has played soul
QUICK = {"online": True, "every_s": 0.1, "delay_s": 1.0, "min_s": 0.5, "min_examples": 20}


def genre_of(item_id: str) -> str:
    return GENRES[int(item_id.removeprefix("item-")) % 4]


@contextmanager
def serving(run: Path, **settings: str) -> Iterator[int]:
    """The port of `bart serve` as a process of its own, which is stopped in order at the end."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    command = [sys.executable, "-m", "api.cli", "serve", "--run", str(run), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, process.communicate()[1]
        yield port
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait(done: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/health")["status"] == "ok"
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status in (200, 202)
        return json.loads(answer.read())
    finally:
        connection.close()


def visit(port: int) -> float:
    """One page for the listener, who sees all of it and streams one genre alone; the share of that genre on it."""
    page = ask(port, "POST", "/v1/home", {"user_id": "listener-00", "rows": 3, "columns": 4})
    cards = [
        (row, column, genre_of(card["item_id"]) == LIKED)
        for row, shelf in enumerate(page["shelves"])
        for column, card in enumerate(shelf["cards"])
    ]
    events = [
        {"event_id": f"{row}-{column}", "row": row, "column": column, "seen": True, "listened_s": 60.0 * liked}
        for row, column, liked in cards
    ]
    ask(port, "POST", "/v1/feedback", {"request_id": page["request_id"], "events": events})
    return float(np.mean([liked for _, _, liked in cards]))


def test_who_streams_one_genre_alone_sees_more_of_it_within_twenty_visits(small_run: Path) -> None:
    settings = {f"BART_LEARNING__{name.upper()}": str(value).lower() for name, value in QUICK.items()}
    share: list[float] = []
    models = []
    with serving(small_run, BART_EXPLORATION__EPSILON="0.1", **settings) as port:
        for _ in range(4):
            model = ask(port, "GET", "/health")["model_id"]
            models.append(model)
            share += [visit(port) for _ in range(5)]
            if len(share) < 20:
                wait(lambda model=model: ask(port, "GET", "/health")["model_id"] != model)
    assert np.mean(share[15:]) > np.mean(share[:5]) + 0.15, share
    assert len(set(models)) == 4
    found = verify(small_run / "log.sqlite")
    assert found.ok
    assert found.verified == 20
    every_record_is_of_the_model_that_it_names(small_run)


def every_record_is_of_the_model_that_it_names(run: Path) -> None:
    """Of the models that are still kept."""
    bundles = [open_bundle(Versions(run).path(version.name)) for version in Versions(run).list()]
    items = load_items(bundles[-1].folder("items"))
    scorers = {bundle.model_id: load_scorer(bundle.folder("reward"), items) for bundle in bundles}
    checked = 0
    with DecisionLog(run / "log.sqlite", create=False) as log:
        for decision in log.decisions():
            if decision.model_id in scorers:
                item = items.rows(decision.item_id)
                candidates = Candidates(item, decision.shelf, decision.shelves, decision.features)
                score = scorers[decision.model_id].score(
                    decision.context, decision.listener, candidates, user_id=decision.user_id
                )
                assert np.array_equal(decision.raw_score, score)
                checked += 1
    assert checked >= 5


# ----------------------------------------------------------------------------------- one round at a time, by hand


class Clock:
    """A time that goes on when it is told to; the pages of a test are all decided in its first moments."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def learning(small_run: Path, client_of: Any) -> Iterator[tuple[Any, OnlineLearning, Clock, Any]]:
    """A service that does not learn by itself, what would learn for it, its clock, and a client."""
    quiet = {**QUICK, "online": False, "min_s": 100.0}
    settings = load_settings({"learning": quiet, "exploration": {"epsilon": 0.0}})  # the best first shelf is full
    with open_service(small_run, settings) as service, client_of(service) as client:
        clock = Clock()
        holder = type("Holder", (), {"service": service})
        # by hand, not by a loop of the service
        asked = replace(settings, learning=replace(settings.learning, online=True))
        holder.service = replace(holder.service, settings=asked)
        yield holder, OnlineLearning(holder, clock), clock, client


def read_pages(client: Any, n: int) -> int:
    """Reports the first shelf of so many pages as seen; how many cards stood there."""
    cards = 0
    for _ in range(n):
        page = client.post("/v1/home", json={"user_id": "listener-00", "rows": 3, "columns": 4}).json()
        events = [
            {"event_id": f"{column}", "row": 0, "column": column, "seen": True, "listened_s": 40.0 * (column == 1)}
            for column in range(len(page["shelves"][0]["cards"]))
        ]
        cards += len(events)
        client.post("/v1/feedback", json={"request_id": page["request_id"], "events": events})
    return cards


def test_each_page_is_learnt_from_once_and_a_restart_goes_on_from_the_last_bundle(
    learning: tuple[Any, OnlineLearning, Clock, Any],
) -> None:
    holder, online, clock, client = learning
    root = holder.service.run.paths.root
    before = open_bundle((root / "bundle").resolve())
    assert online.step().n_cards == 0
    cards = read_pages(client, 3)
    clock.after(60.0)
    assert online.step().n_cards == cards
    clock.after(10.0)
    assert online.step().n_cards == 0
    killed = OnlineLearning(holder, clock)  # another process, after this one was killed: nothing was published yet
    cards += read_pages(client, 3)
    clock.after(60.0)
    assert killed.step().n_cards == cards
    clock.after(120.0)
    outcome = killed.step()
    assert outcome.published, outcome
    after = open_bundle((root / "bundle").resolve())
    assert (after.batch_id, after.parent) == (before.batch_id, before.model_id)
    assert after.model_id != before.model_id
    assert after.metrics["online"]["cards"] == cards
    assert (after.folder("reward") / ANCHOR / "model.vw").read_bytes() == (
        before.folder("reward") / "model" / "model.vw"
    ).read_bytes()
    assert Versions(root).history()[-1].why == "online learning"
    restarted = OnlineLearning(holder, clock)
    clock.after(60.0)
    assert restarted.step().n_cards == 0


def test_after_a_rollback_the_pages_before_it_are_not_learnt_again(
    learning: tuple[Any, OnlineLearning, Clock, Any],
) -> None:
    holder, online, clock, client = learning
    online.step()
    read_pages(client, 6)
    clock.after(120.0)
    assert online.step().published
    Versions(holder.service.run.paths.root, clock=clock).rollback("it was worse")
    clock.after(120.0)
    assert online.step().n_cards == 0


def test_pages_that_come_of_age_while_learning_is_frozen_are_passed_over(
    learning: tuple[Any, OnlineLearning, Clock, Any],
) -> None:
    holder, online, clock, client = learning
    service = holder.service
    online.step()
    service.control.switch("learning", "off", clock.now)
    holder.service = service.with_controls(service.control.read())
    read_pages(client, 3)
    clock.after(120.0)
    assert online.step().n_cards == 0
    service.control.switch("learning", "on", clock.now)
    holder.service = service.with_controls(service.control.read())
    clock.after(120.0)
    assert online.step().n_cards == 0


def test_what_is_due_is_not_published_while_learning_is_frozen(
    learning: tuple[Any, OnlineLearning, Clock, Any],
) -> None:
    holder, online, clock, client = learning
    service = holder.service
    clock.now = clock.now.replace(microsecond=500_000)
    online.step()
    read_pages(client, 6)
    clock.after(99.6)
    assert online.step().n_cards > 0
    service.control.switch("learning", "off", clock.now)
    holder.service = service.with_controls(service.control.read())
    clock.after(0.5)  # due, and in the same second, so that no page came of age
    assert not online.step().published
    service.control.switch("learning", "on", clock.now)
    holder.service = service.with_controls(service.control.read())
    assert online.step().published
