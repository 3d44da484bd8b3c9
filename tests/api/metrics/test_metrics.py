"""What the service says of itself in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from httpx import Client
from prometheus_client.parser import text_string_to_metric_families

from api.metrics.choices import page_choices
from api.run.clock import utc_now
from api.run.settings import load_settings
from api.service.service import HomeService, open_service
from api.wire.schemas import HomeRequest
from bart.log.care.choices import N_LEFT, PROPENSITY, choice_facts
from bart.log.care.replay import candidate_items
from bart.page.exploration import Exploration
from bart.page.rules import Rules

ClientOf: TypeAlias = Callable[..., Client]


@pytest.fixture
def service(small_run: Path) -> Iterator[HomeService]:
    with open_service(small_run, load_settings({"page": {"rows": 4, "columns": 5}})) as found:
        yield found


@pytest.fixture
def client(service: HomeService, client_of: ClientOf) -> Iterator[Client]:
    with client_of(service) as found:
        yield found


def metrics(client: Client) -> dict[str, float]:
    """Every sample by name, with its labels where it has any."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    out = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            out[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return out


def test_pages_feedback_and_the_time_of_every_stage_are_counted(client: Client, service: HomeService) -> None:
    for number in range(10):
        page = client.post("/v1/home", json={"user_id": f"listener-{number:02d}"}).json()
    client.post("/v1/home", json={"user_id": "nobody", "idempotency_key": "k"})
    client.post("/v1/home", json={"user_id": "nobody", "idempotency_key": "k"})
    client.post("/v1/home", json={"user_id": "listener-00", "seed": 1})
    heard = [{"event_id": str(c), "row": 0, "column": c, "listened_s": 20.0 * c} for c in range(1, 3)]
    off = {"event_id": "off", "row": 30, "column": 0, "seen": True}
    client.post("/v1/feedback", json={"request_id": page["request_id"], "events": [*heard, off]})
    found = metrics(client)
    assert found["bart_pages_total"] == 12
    assert found["bart_pages_forced_total"] == 1
    assert found["bart_pages_retried_total"] == 1
    assert found["bart_pages_unknown_listener_total"] == 1
    assert found["bart_pages_empty_total"] == 0
    assert found["bart_feedback_events_total{outcome=accepted}"] == 2
    assert found["bart_feedback_events_total{outcome=rejected}"] == 1
    assert found["bart_feedback_lag_seconds_count"] == 3
    for stage in ("listener", "candidates", "score", "log", "rank"):
        assert found[f"bart_stage_seconds_count{{stage={stage}}}"] >= 12
    assert found["bart_log_waiting"] == 0
    assert found["bart_model_age_seconds"] > 0
    assert found["bart_reward_seen_cards"] == 2
    assert found["bart_reward_rate"] == 0.5  # 20 s is no stream, 40 s is
    assert 0 < found["bart_predicted_reward_rate"] < 1
    bundle = service.run.bundle
    assert found[f"bart_model_info{{batch_id={bundle.batch_id},model_id={bundle.model_id}}}"] == 1


def test_the_reward_rate_of_no_feedback_is_not_a_number(client: Client) -> None:
    client.post("/v1/home", json={"user_id": "listener-00"})
    assert math.isnan(metrics(client)["bart_reward_rate"])


def test_the_choices_of_a_page_are_those_that_the_log_checks(small_run: Path) -> None:
    settings = load_settings({"page": {"rows": 4, "columns": 5}, "rules": {"pins": [
        {"surface": "", "row": 1, "column": 2, "item_id": "item-07"}
    ]}})  # fmt: skip
    n = explored = 0
    with open_service(small_run, settings) as service:
        for number in range(30):
            service.home(HomeRequest(user_id=f"listener-{number:02d}"))
        for decision in service.log.decisions():
            found = page_choices(decision)
            epsilons = decision.shelf_epsilon, decision.card_epsilon
            both = choice_facts(decision, candidate_items(decision), *epsilons)
            facts = np.concatenate([part.reshape(-1, 4) for part in both])
            among = facts[:, N_LEFT] > 1
            assert found.n == among.sum()
            assert found.weight == pytest.approx((1 / (facts[among, N_LEFT] * facts[among, PROPENSITY])).sum())
            n += found.n
            explored += found.explored
    # of 30 pages: a choice is explored with epsilon (n_left - 1) / n_left, within four standard errors
    assert explored / n == pytest.approx(0.18, abs=4 * math.sqrt(0.2 * 0.8 / n))


@pytest.mark.parametrize(("epsilon", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_without_exploration_nothing_is_explored_and_with_nothing_else_all_is(
    service: HomeService, client_of: ClientOf, epsilon: float, share: float
) -> None:
    fixed = replace(service, ranker=replace(service.ranker, exploration=Exploration.fixed(epsilon)))
    with client_of(fixed) as client:
        client.post("/v1/home", json={"user_id": "listener-00"})
        found = metrics(client)
    assert found["bart_choices_total"] > 10
    assert found["bart_choices_explored_total"] == share * found["bart_choices_total"]


def test_a_page_without_a_card_is_counted(service: HomeService, client_of: ClientOf) -> None:
    rules = Rules(blocked_artists=frozenset(f"Artist {i}" for i in range(10)))
    with client_of(replace(service, ranker=replace(service.ranker, rules=rules))) as client:
        assert client.post("/v1/home", json={"user_id": "listener-00"}).json()["shelves"] == []
        found = metrics(client)
    assert found["bart_pages_empty_total"] == 1
    assert found["bart_choices_total"] == 0


def test_days_that_nobody_closes_are_a_metric(service: HomeService, client: Client, monkeypatch: Any) -> None:
    service.log.close_windows(utc_now() + timedelta(days=30))  # those of the run
    assert metrics(client)["bart_log_unclosed_seconds"] == 0.0
    service.home(HomeRequest(user_id="listener-01"))
    later = utc_now() + timedelta(days=30)
    monkeypatch.setattr("api.metrics.stores.utc_now", lambda: later)
    monkeypatch.setattr("api.metrics.metrics.FRESH_S", 0.0)
    found = metrics(client)["bart_log_unclosed_seconds"]
    assert timedelta(days=27) < timedelta(seconds=found) < timedelta(days=29, hours=1)
    service.log.close_windows(later)
    assert metrics(client)["bart_log_unclosed_seconds"] == 0.0
