"""Online learning publishes at a limited rate what passes its gate, and no record ever mixes two models."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
import reward_world as world

from bart.errors import BundleError
from bart.home import HomeRanker
from bart.learning.online import Evidence, OnlineConfig, OnlineLearner, Publication, judge
from bart.learning.training import seen_cards
from bart.live import LiveRanker
from bart.page.exploration import Exploration
from bart.page.rules import Rules
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Candidates, Context, Decision, Listener, PageBatch, Shelf

ITEMS = world.item_table(np.random.default_rng(3))
CONFIG = RewardConfig(FeatureSchema(dimension=8, order=2), bits=16, learning_rate=None)
CONTEXT = Context(datetime(2024, 3, 1, 9, tzinfo=timezone.utc))
OPEN = OnlineConfig(max_behind=1e9, min_s=0.0, min_examples=1, checks=16)


def pages(n: int, seed: int = 0) -> PageBatch:
    batch: PageBatch = world.logged_pages(np.random.default_rng(seed), ITEMS, n)
    return batch


def parts(batch: PageBatch, size: int) -> list[PageBatch]:
    return [batch.take(np.arange(k, min(k + size, len(batch)))) for k in range(0, len(batch), size)]


class Shelves:
    """The same forty cards on four shelves for everyone."""

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
        shelves = tuple(Shelf(rule, rule) for rule in world.RULES[:4])
        return Candidates(np.arange(40), np.arange(40) % 4, shelves)


def ranker(model: RewardModel) -> HomeRanker:
    return HomeRanker(
        source=Shelves(),
        items=ITEMS,
        scorer=Scorer.compile(model, ITEMS, 16),
        exploration=Exploration.fixed(0.2),
        rules=Rules(),
        batch_id="batch",
        model_id=model.content_id()[:16],
    )


def listener(number: int) -> Listener:
    return Listener(f"user {number}", world.unit(np.random.default_rng(number), 1, 8)[0])


class Kept:
    """A publisher that keeps what is published, or refuses it."""

    def __init__(self, refuse: bool = False) -> None:
        self.all: list[Publication] = []
        self.refuse = refuse

    def __call__(self, publication: Publication) -> None:
        if self.refuse:
            raise BundleError("another model became active; expected this one")
        self.all.append(publication)


def test_every_record_holds_the_scores_of_the_model_that_it_names_while_twenty_models_are_published() -> None:
    first = RewardModel.prior(CONFIG)
    live = LiveRanker(ranker(first))
    scorer_of = {live.ranker.model_id: live.ranker.scorer}

    def publish(publication: Publication) -> None:
        scorer_of[publication.model.content_id()[:16]] = publication.scorer  # known before anyone can be served by it
        live.publish(publication)

    learner = OnlineLearner(first, ITEMS, publish, 0.0, replace(OPEN, max_loss=1.0, max_bias=10.0))
    done = threading.Event()
    records: list[list[Decision]] = [[] for _ in range(3)]

    def decide(which: int) -> None:
        number = which
        while not done.is_set() or number < 300:
            records[which].append(live.rank(f"r{number}", listener(number % 20), CONTEXT, 3, 4, seed=number))
            number += 3

    threads = [threading.Thread(target=decide, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    outcomes = [learner.learn(batch, float(k)) for k, batch in enumerate(parts(pages(100), 5))]
    done.set()
    for thread in threads:
        thread.join()
    assert [outcome.published for outcome in outcomes] == [True] * 20
    assert learner.n_published == 20
    assert len(scorer_of) == 21
    found = [decision for own in records for decision in own]
    assert len({decision.model_id for decision in found}) > 3
    shelved = Shelves().candidates(listener(0), CONTEXT, np.random.default_rng(0))
    for decision in found:
        scorer = scorer_of[decision.model_id]
        assert np.array_equal(
            decision.raw_score, scorer.score(CONTEXT, decision.listener, shelved, user_id=decision.user_id)
        )


def test_what_is_published_is_what_learning_alone_would_give() -> None:
    kept = Kept()
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, kept, 0.0, replace(OPEN, min_s=1e9))
    for batch in parts(pages(40), 10):
        learner.learn(batch, 0.0)
    assert learner.publish_if_due(2e9).published
    from bart.learning.training import card_examples
    from bart.reward.features import ItemFeatures

    alone, batch = RewardModel.prior(CONFIG), pages(40)
    cards = seen_cards(batch)
    alone.learn(
        card_examples(ItemFeatures(CONFIG.schema, ITEMS), batch, cards),
        batch.reward[cards.page, cards.row, cards.column],
    )
    assert np.array_equal(kept.all[0].model.weights(), alone.weights())
    assert kept.all[0].evidence.n_cards == len(cards)


def test_forced_open_and_undisplayed_pages_and_pins_teach_nothing() -> None:
    kept = Kept()
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, kept, 0.0, OPEN)
    batch = pages(10)
    no, yes = np.zeros(10, dtype=np.bool_), np.ones(10, dtype=np.bool_)
    for unusable in (
        replace(batch, forced=yes),
        replace(batch, closed=no),
        replace(batch, displayed=no),
        replace(batch, pinned=batch.card >= 0),
    ):
        assert learner.learn(unusable, 5.0).n_cards == 0
    assert learner.waiting == 0
    assert not kept.all


def test_models_are_published_at_the_limited_rate() -> None:
    kept = Kept()
    batches = parts(pages(120), 10)
    cards = [len(seen_cards(batch)) for batch in batches]
    config = replace(OPEN, min_s=60.0, min_examples=cards[0] + 1, max_loss=1.0, max_bias=10.0)
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, kept, 1000.0, config)
    assert not learner.learn(batches[0], 1059.9).published  # too early
    assert not learner.publish_if_due(1100.0).published  # too few cards
    assert learner.learn(batches[1], 1100.0).published
    assert not learner.learn(batches[2], 1101.0).published
    assert not learner.learn(batches[3], 1159.9).published
    assert learner.publish_if_due(1160.0).published
    times = [learner.learn(batch, 1160.0 + 25.0 * (k + 1)).published for k, batch in enumerate(batches[4:])]
    assert times == [False, False, True, False, False, True, False, False]


def test_a_model_that_predicts_worse_is_refused_and_what_it_learnt_is_dropped() -> None:
    kept = Kept()
    first = RewardModel.prior(CONFIG)
    learner = OnlineLearner(first, ITEMS, kept, 0.0, replace(OPEN, min_s=10.0, max_bias=100.0))
    inverted = pages(60, seed=1)
    inverted = replace(inverted, reward=np.where(inverted.seen, 1.0, 0.0))  # someone streams everything, for a while
    learner.learn(inverted, 1.0)
    honest = pages(400, seed=2)
    outcome = learner.learn(replace(honest, reward=np.zeros_like(honest.reward)), 20.0)
    assert "log loss" in outcome.refused
    assert not outcome.published
    assert not kept.all
    assert learner.waiting == 0
    learner.learn(pages(40, seed=3), 40.0)  # from the serving model again, not from what was refused
    fresh = OnlineLearner(first, ITEMS, other := Kept(), 0.0, replace(OPEN, min_s=10.0, max_bias=100.0))
    fresh.learn(pages(40, seed=3), 40.0)
    assert np.array_equal(kept.all[0].model.weights(), other.all[0].model.weights())


def test_a_publisher_that_refuses_leaves_the_old_model_serving() -> None:
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, Kept(refuse=True), 0.0, replace(OPEN, max_loss=1.0))
    outcome = learner.learn(pages(60), 1.0)
    assert outcome.refused == "another model became active; expected this one"
    assert learner.n_published == 0


def test_a_compiled_model_that_differs_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, kept, 0.0, replace(OPEN, max_loss=1.0))
    monkeypatch.setattr(Scorer, "difference", lambda *_: 0.5)
    assert "compiled scores differ" in learner.learn(pages(60), 1.0).refused
    assert not kept.all


def test_while_frozen_nothing_is_learnt_or_published() -> None:
    kept = Kept()
    learner = OnlineLearner(RewardModel.prior(CONFIG), ITEMS, kept, 0.0, replace(OPEN, min_s=10.0))
    learner.learn(pages(20), 1.0)
    learner.frozen = True
    assert learner.learn(pages(20, seed=1), 50.0).n_cards == 0
    assert not learner.publish_if_due(50.0).published
    learner.frozen = False
    assert learner.waiting == len(seen_cards(pages(20)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"log_loss": 0.515}, "log loss 0.5150 on 1,000 new cards, the serving model's 0.5000"),
        ({"log_loss": float("nan")}, "log loss nan"),
        ({"mean_prediction": 0.32, "standard_error": 0.01}, "mean prediction 0.3200"),
        ({"mean_prediction": 0.32, "standard_error": 0.05}, ""),
        ({"in_order": 0.60, "serving_in_order": 0.65, "in_order_error": 0.02}, "0.6000 of the pairs of 0 pages"),
        ({"in_order": 0.62, "serving_in_order": 0.65, "in_order_error": 0.02}, ""),
    ],
)
def test_the_gate_names_what_it_saw_and_what_was_expected(changes: dict[str, float], text: str) -> None:
    good = Evidence(1000, 0.49, 0.5, 0.18, 0.2, 0.01)
    config = OnlineConfig(max_loss=0.01, max_bias=0.5)
    refused = judge(replace(good, **changes), config)  # type: ignore[arg-type]
    assert refused.startswith(text)
    assert bool(refused) == bool(text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"min_s": -1.0}, "min_s is -1.0; expected seconds >= 0"),
        ({"min_examples": 0}, "min_examples is 0; expected at least 1"),
        ({"max_loss": float("nan")}, "max_loss, max_bias are nan"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        OnlineConfig(**fields)
