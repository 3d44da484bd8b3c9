"""The closed loop learns where there is something to learn, falls when taste changes, and recovers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bart.learning.training import TrainingConfig
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig
from simulator.loop.loop import Learner, LoopConfig, run
from simulator.loop.records import Round
from simulator.loop.scenarios import ColdStart, TasteChange
from simulator.loop.service import Service, make_service
from simulator.world.config import WorldConfig
from simulator.world.world import World

SIZE = WorldConfig(n_tracks=1_200, n_listeners=100, days=14)
QUICK = TrainingConfig(RewardConfig(FeatureSchema(order=2), learning_rate=0.02), passes=2, holdout=0.0)


@pytest.fixture(scope="module")
def service() -> Service:
    world = World.make(SIZE, np.random.default_rng(1))
    return make_service(world, np.random.default_rng(2))


@pytest.fixture(scope="module")
def learnt(service: Service) -> list[Round]:
    """Four rounds of 600 pages from no opinion at all, with earned and with shuffled rewards."""
    learners = (
        Learner("earned", training=QUICK, start="blank"),
        *(
            Learner(f"shuffled {k}", training=replace(QUICK, passes=k), start="blank", rewards="shuffled")
            for k in (1, 2)
        ),
    )
    config = LoopConfig("W1", rounds=4, pages=600, rows=5, columns=5, judged=500, learners=learners, through="arrays")
    return list(run(service, config, np.random.default_rng(3)))


def test_the_loop_learns(learnt: list[Round]) -> None:
    first, last = learnt[0].learner("earned"), learnt[-1].learner("earned")
    assert abs(first.share.value) < 0.03  # a page from no opinion is any page
    assert last.share.lower > 0.15
    assert last.over_random.lower > 0.2
    assert last.over_popularity.lower > 0.1
    assert last.regret.value < first.regret.value


def test_with_shuffled_rewards_the_loop_stays_at_random(learnt: list[Round]) -> None:
    share = [learnt[-1].learner(f"shuffled {k}").share.value for k in (1, 2)]
    assert np.abs(np.mean(share)) < 0.1
    assert learnt[-1].learner("earned").share.lower > max(share) + 0.1


def test_values_keep_their_order(learnt: list[Round]) -> None:
    for one in learnt:
        x = one.learner("earned")
        assert one.random.value < x.true_exploring.value < one.true_score.value
        assert x.exploring.value <= x.true_exploring.value
        assert x.regret.value == pytest.approx(one.true_score.value - x.exploring.value)
        assert x.share.value == pytest.approx(
            (x.greedy.value - one.random.value) / (one.true_score.value - one.random.value)
        )
    assert learnt[-1].learner("earned").pages == 0  # the last round only judges
    regret = sum(r.learner("earned").regret.value * r.visits for r in learnt[:-1])
    assert learnt[-1].learner("earned").regret_so_far == pytest.approx(regret)


def test_after_a_change_of_taste_the_value_falls_and_recovers(service: Service) -> None:
    scenario = TasteChange(at_round=2, strength=3.0)
    learners = (Learner(training=QUICK), Learner("still", training=QUICK, learns=False))
    config = LoopConfig(
        "W1", rounds=6, pages=300, rows=5, columns=5, scenario=scenario, through="arrays", learners=learners
    )
    rounds = list(run(service, config, np.random.default_rng(8)))
    share = [r.learner("learner").share for r in rounds]
    assert share[2].upper < share[1].lower  # the change
    assert share[-1].lower > share[2].upper
    assert rounds[-1].learner("still").share.upper < share[-1].lower


def test_new_listeners_are_served_worse_and_new_items_only_from_their_day_on() -> None:
    world = World.make(SIZE, np.random.default_rng(1))
    scenario = ColdStart(at_round=1, listeners=0.4, items=0.3)
    cold = scenario.service(world, np.random.default_rng(9))
    assert len(cold.strangers) > 20
    assert (cold.items.popularity[cold.unheard] == 0).all()
    learner = Learner("still", learns=False)
    config = LoopConfig("W1", rounds=2, pages=400, judged=50, scenario=scenario, through="arrays", learners=(learner,))
    rounds = [r.learner("still") for r in run(cold, config, np.random.default_rng(10))]
    assert rounds[0].new_items == 0.0
    assert rounds[1].new_items > 0.0

    def way(group: Any) -> float:
        return float((group["greedy"] - group["random"]) / (group["true_score"] - group["random"]))

    groups = rounds[0].groups
    assert way(groups["new listeners"]) < way(groups["known listeners"])
    assert groups["new listeners"]["visits"] + groups["known listeners"]["visits"] == 400
