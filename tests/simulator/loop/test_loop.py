"""The closed loop: arrays against single calls, learning where there is something to learn, the same bytes again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bart.home import HomeRanker
from bart.learning.training import TrainingConfig
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.record.record import encode
from bart.page.exploration import Exploration
from bart.page.explored import explored
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Decision, Page, PageBatch
from simulator.loop.files import write_result
from simulator.loop.loop import Learner, LoopConfig, run, value_of
from simulator.loop.records import LoopResult, Value
from simulator.loop.rounds import Offers, decide, gather, read
from simulator.loop.service import Service, make_service
from simulator.loop.values import Discovery
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import world_params
from simulator.world.appeal import batch_appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World

SIZE = WorldConfig(n_tracks=1_200, n_listeners=100, days=14)
QUICK = TrainingConfig(RewardConfig(FeatureSchema(order=2), learning_rate=0.02), passes=2, holdout=0.0)


def decisions_of(
    offers: Offers, pages: PageBatch, service: Service, *, model_id: str = "", policy: str = "epsilon_greedy"
) -> list[Decision]:
    """The records that single calls would have made of these pages."""
    out = []
    for page in range(len(pages)):
        candidates = offers.candidates[page]
        part = slice(int(pages.offset[page]), int(pages.offset[page + 1]))
        filled = int(np.count_nonzero(pages.row_shelf[page] >= 0))
        score = pages.raw_score[part]
        out.append(
            Decision(
                request_id=pages.request_id[page],
                user_id=pages.user_id[page],
                context=offers.context[page],
                traits=offers.listener[page].traits,
                listener=offers.listener[page].vector,
                batch_id=service.batch_id,
                model_id=model_id,
                policy=policy,
                shelf_epsilon=pages.shelf_epsilon[page],
                card_epsilon=pages.card_epsilon[page],
                rules_version=service.rules.version,
                seed=int(offers.seed[page]),
                shelves=candidates.shelves,
                item_id=service.items.item_id[candidates.item],
                shelf=candidates.shelf,
                raw_score=score,
                score=score,
                page=Page(
                    shelf=pages.row_shelf[page, :filled],
                    card=pages.card[page, :filled],
                    shelf_propensity=pages.shelf_propensity[page, :filled],
                    card_propensity=pages.card_propensity[page, :filled],
                    pinned=pages.pinned[page, :filled],
                ),
            )
        )
    return out


@pytest.fixture(scope="module")
def service() -> Service:
    world = World.make(SIZE, np.random.default_rng(1))
    return make_service(world, np.random.default_rng(2))


class Kept:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def append(self, decision: Decision) -> None:
        self.decisions.append(decision)


@pytest.mark.parametrize("exploration", [Exploration.fixed(0.3), Exploration(adapt=True, greedy_rows=(0,))])
def test_pages_in_arrays_are_the_pages_of_single_calls_to_the_last_bit(
    service: Service, exploration: Exploration
) -> None:
    visits = simulate_visits(service.world, 120, np.random.default_rng(4))
    number, seed = np.arange(20, 120), np.random.default_rng(5).integers(0, 2**62, size=100)
    scorer = Scorer.compile(RewardModel.prior(), service.items)
    names = [f"r{i}" for i in range(100)]
    kept = Kept()
    ranker = HomeRanker(
        service.source, service.items, scorer, exploration, service.rules, log=kept, batch_id=service.batch_id
    )
    for i, name, own in zip(number.tolist(), names, seed.tolist(), strict=True):
        context = visits.context(i)
        ranker.rank(name, service.store.listener(visits.user_id(i), context), context, 4, 5, own)
    offers = gather(service, visits, number, seed, names, 4, 5)
    pages = decide(offers, scorer.score_batch(offers.pages), exploration)
    together = decisions_of(offers, pages, service)
    assert [encode(d).checksum for d in together] == [encode(d).checksum for d in kept.decisions]


def test_what_arrays_learn_from_is_what_the_log_tells(service: Service) -> None:
    learners = (Learner("bold", epsilon=0.4), Learner("timid", epsilon=0.05))
    config = LoopConfig("W5", rounds=2, pages=150, judged=50, rows=4, columns=5, learners=learners)
    logged = [r.as_dict() for r in run(service, config, np.random.default_rng(6))]
    arrays = [r.as_dict() for r in run(service, replace(config, through="arrays"), np.random.default_rng(6))]
    assert all(len(x["digest"]) == 32 for r in logged[:2] for x in r["learners"])
    for one in logged:
        for learner in one["learners"]:
            learner["digest"] = ""
    assert logged == arrays


def test_learners_share_visits_candidates_and_chance(service: Service) -> None:
    twins = (Learner("one", training=QUICK), Learner("two", training=QUICK))
    config = LoopConfig("W3", rounds=2, pages=120, judged=50, learners=twins, through="arrays")
    for one in run(service, config, np.random.default_rng(7)):
        a, b = (json.dumps(x | {"name": ""}) for x in one.as_dict()["learners"])
        assert a == b


DIGEST = """
import json, sys
import numpy as np
from simulator.loop.loop import LoopConfig, run
from simulator.loop.service import make_service
from simulator.world.config import WorldConfig
from simulator.world.world import World
world = World.make(WorldConfig(n_tracks=800, n_listeners=40, days=10), np.random.default_rng(1))
service = make_service(world, np.random.default_rng(2))
config = LoopConfig("W6", rounds=2, pages=60, judged=30, rows=3, columns=3)
print(json.dumps([r.as_dict() for r in run(service, config, np.random.default_rng(3))]))
"""


def test_the_same_seed_gives_the_same_loop_and_log_in_two_processes() -> None:
    outputs = []
    for salt in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    first = json.loads(outputs[0])[0]["learners"][0]
    assert len(first["digest"]) == 32
    assert first["streams"] > 0


def test_the_same_seed_writes_the_same_log_file_again(service: Service, tmp_path: Path) -> None:
    config = LoopConfig("W2", rounds=1, pages=80, judged=10)
    records = []
    for name in ("a", "b"):
        list(run(service, config, np.random.default_rng(11), log_directory=tmp_path / name))
        with DecisionLog(tmp_path / name / "learner.sqlite", create=False) as log:
            assert len(log) == 80
            export_log(log, tmp_path / name / "export", duration_s=service.items)
        files = sorted((tmp_path / name / "export").rglob("*.parquet"))
        records.append([(file.relative_to(tmp_path / name), file.read_bytes()) for file in files])
    assert records[0] == records[1]
    assert records[0]


def test_a_result_is_the_same_after_writing_and_reading(service: Service, tmp_path: Path) -> None:
    learners = (Learner("a"), Learner("b", learns=False))
    config = LoopConfig("W1", rounds=2, pages=60, judged=40, learners=learners, through="arrays")
    result = LoopResult(config.as_dict(), 3, tuple(run(service, config, np.random.default_rng(3))))
    paths = write_result(result, tmp_path)
    assert [p.name for p in paths] == ["loop.json", "loop.parquet", "loop.svg"]
    again = LoopResult.from_dict(json.loads(paths[0].read_text()))
    assert again.as_dict() == result.as_dict()
    assert result.table().num_rows == 3 * 2
    assert paths[2].read_text().count("<svg") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop.json", "loop.parquet", "loop.svg"]


def test_an_interval_counts_listeners_and_not_visits() -> None:
    rng = np.random.default_rng(12)
    own, listener = rng.normal(1.0, 1.0, 400), np.repeat(np.arange(400), 5)
    value = Value.of(own[listener], listener)
    assert value.error == pytest.approx(own.std(ddof=1) / np.sqrt(400), rel=1e-9)
    assert value.lower < 1.0 < value.upper
    assert np.isnan(Value.of(np.ones(3), np.zeros(3, dtype=np.int64)).error)
    assert np.isnan(Value.ratio(np.ones(2), np.zeros(2), np.arange(2)).value)


def test_explored_cards_are_those_that_were_not_the_best_left(service: Service) -> None:
    visits = simulate_visits(service.world, 40, np.random.default_rng(13))
    offers = gather(service, visits, np.arange(40), np.arange(40), [f"r{i}" for i in range(40)], 3, 4)
    score = np.round(np.random.default_rng(14).random(len(offers.pages.item)), 1)  # with ties
    pages = decide(offers, score, Exploration.fixed(0.5))
    found = explored(pages)
    for page in range(40):
        start, end = pages.offset[page : page + 2]
        own, shelf = score[start:end], pages.shelf[start:end]
        for row in range(3):
            left = set(np.flatnonzero(shelf == pages.row_shelf[page, row]).tolist())
            for column, card in enumerate(pages.card[page, row].tolist()):
                if card >= 0:
                    assert found[page, row, column] == (own[card] < max(own[list(left)]))
                    left.remove(card)
    assert not explored(decide(offers, score, Exploration.fixed(0.0))).any()


def test_a_discovery_is_the_first_stream_of_an_artist_never_heard(service: Service) -> None:
    visits = simulate_visits(service.world, 300, np.random.default_rng(15))
    offers = gather(service, visits, np.arange(300), np.arange(300), [f"r{i}" for i in range(300)], 6, 6)
    likes = batch_appeal(service.world, offers.pages, service.items.item_id)
    pages = decide(offers, likes, Exploration.fixed(0.5))
    pages, _ = read(pages, service, likes, world_params("W1"), np.random.default_rng(16))
    heard = set(service.heard.tolist())
    new = total = 0
    for page, row, column in np.argwhere(pages.reward > 0).tolist():
        item = pages.item[pages.offset[page] + pages.card[page, row, column]]
        listener = service.world.listener_of([pages.user_id[page]])
        key = int(service.novelty_key(listener, np.array([item]))[0])
        total += 1
        new += key not in heard
        heard.add(key)
    discovery = Discovery(service, service.heard)
    assert discovery.share(pages)[0] == pytest.approx(new / total)
    assert new > 0
    assert discovery.share(pages)[0] == 0.0  # the same page again: all are known by now


def test_the_value_of_an_outsiders_policy_lies_between_chance_and_the_truth(service: Service) -> None:
    def by_cosine(pages: PageBatch) -> np.ndarray:
        page = np.repeat(np.arange(len(pages)), np.diff(pages.offset))
        return np.einsum("nd,nd->n", service.items.vector[pages.item], pages.listener[page]).astype(np.float64)

    def value(score: Callable[[PageBatch], np.ndarray], epsilon: float = 0.0) -> Value:
        return value_of(score, service, np.random.default_rng(17), epsilon=epsilon, visits=300, browsing="W3")

    chance = value(lambda pages: np.zeros(len(pages.item)), epsilon=1.0)
    best = value(lambda pages: batch_appeal(service.world, pages, service.items.item_id))
    own = value(by_cosine)
    assert chance.upper < own.lower
    assert own.upper < best.lower
    assert value(by_cosine, epsilon=0.3).value < own.value
    assert value(by_cosine) == own


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"browsing": "W9"}, "world is 'W9'; expected one of W1"),
        ({"rounds": 0}, "rounds is 0; expected at least 1"),
        ({"through": "air"}, "through is 'air'; expected log or arrays"),
        ({"learners": (Learner("a"), Learner("a"))}, "each with a name of its own"),
    ],
)
def test_impossible_loops_are_refused(service: Service, change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        next(run(service, LoopConfig(**{"pages": 10, **change}), np.random.default_rng(0)))
    with pytest.raises(ValueError, match="rewards is 'none'"):
        Learner(rewards="none")
