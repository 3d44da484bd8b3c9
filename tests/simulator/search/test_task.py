"""The search task: the truth is what reading gives, the log is exact, and what is learnt beats the caller's order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.ope.policies.pages import EvaluationPolicy
from bart.reward.model import RewardModel
from bart.reward.scorer import Scorer
from simulator.search.task import config_of, logged, search_task, serve, shown
from simulator.search.world import SearchParams, SearchWorld

SMALL = SearchParams(items=300, listeners=60, queries=12, results=8, genres=8)


def test_the_exact_value_of_an_order_is_what_reading_it_often_gives() -> None:
    world = SearchWorld.make(SMALL, np.random.default_rng(0))
    rng, row = np.random.default_rng(1), world.found[3][::-1]
    streamed = np.array([world.read(5, 3, row, rng)[1] for _ in range(4000)])
    expected = world.value(5, 3, row)
    assert abs(streamed.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)


def test_the_policy_that_served_has_weight_one_on_its_own_log_of_results(tmp_path: Path) -> None:
    world = SearchWorld.make(SMALL, np.random.default_rng(0))
    prior = Scorer.compile(RewardModel.prior(config_of(world).reward), world.items)
    listener, query = world.visits(200, np.random.default_rng(2))
    decisions = serve(world, prior, 0.5, listener, query, 3)
    with DecisionLog(tmp_path / "log.sqlite") as log:
        pages = logged(world, decisions, listener, query, log, 3)
    found = verify(tmp_path / "log.sqlite")
    assert (found.ok, found.verified) == (True, 200)
    exchanged = sum((shown(world, d) != world.items.rows(d.item_id[np.argsort(-d.score)])).any() for d in decisions)
    assert exchanged > 150
    own = EvaluationPolicy("logging", pages.score, pages.shelf_epsilon, pages.card_epsilon, unpredicted=True)
    record = own.logged(pages)
    assert record.shelf_target is not None
    assert record.card_target is not None
    there = ~np.isnan(record.card_propensity)
    np.testing.assert_allclose(record.card_target[there] / record.card_propensity[there], 1.0, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_what_was_learnt_beats_the_callers_order_by_taste_and_popularity_and_little_without(tmp_path: Path) -> None:
    lift = {}
    for name, params in (("all", SMALL), ("none", replace(SMALL, taste=0.0, popularity=0.0))):
        place = tmp_path / name
        place.mkdir()
        world = SearchWorld.make(params, np.random.default_rng(1))
        _, lift[name] = search_task(world, place, queries=700, fresh=300)
    assert lift["all"].lower > 0.01
    assert lift["none"].lift < 0.3 * lift["all"].lift
