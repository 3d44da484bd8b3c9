"""The level of a model: found before its order is touched, and followed afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reward_world import item_table, logged_pages

from bart.learning.level import MEMORY, Level
from bart.learning.online import OnlineConfig, OnlineLearner, Publication
from bart.learning.training import TrainingConfig, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel, prior_intercept
from bart.reward.scorer import Scorer

CONFIG = RewardConfig(FeatureSchema(dimension=8, order=2), bits=16)


def logits(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def test_a_model_that_knows_nothing_is_moved_to_what_was_earned() -> None:
    rng = np.random.default_rng(1)
    promised = rng.uniform(0.1, 0.6, 20_000)
    earned = 1.0 / (1.0 + np.exp(-(logits(promised) - 1.7)))
    found = Level(0).shift(promised, earned)  # expected rewards: no noise
    assert found == pytest.approx(-1.7, abs=2e-3)


def test_right_predictions_stay() -> None:
    promised = np.random.default_rng(2).uniform(0.01, 0.5, 500)
    assert Level(0).shift(promised, promised) == pytest.approx(0.0, abs=1e-9)


def test_the_more_a_model_has_learnt_the_less_a_page_moves_it() -> None:
    promised, reward = np.full(17, 0.1), np.zeros(17)
    moved = [-Level(n).shift(promised, reward) for n in (0, 1_000, MEMORY, 10 * MEMORY)]
    assert moved[0] > 10 * moved[1] > 50 * moved[2] > 0
    assert moved[2] == moved[3], "an old level can always be left again"


def test_a_level_that_moves_is_followed() -> None:
    level, shift = Level(10 * MEMORY), 0.0
    for _ in range(60):  # 1,000 cards at a time, of which a tenth less is earned than at first
        p = np.full(1_000, 1.0 / (1.0 + np.exp(2.2 - shift)))
        shift += level.shift(p, np.full(1_000, 0.09))
    assert 1.0 / (1.0 + np.exp(2.2 - shift)) == pytest.approx(0.09, rel=0.02)


def test_no_card_moves_nothing() -> None:
    assert Level(0).shift(np.empty(0), np.empty(0)) == 0.0


def test_a_shift_changes_the_level_and_not_the_order() -> None:
    rng = np.random.default_rng(3)
    items = item_table(rng, 60, 8)
    pages = logged_pages(rng, items, 50)
    examples = card_examples(ItemFeatures(CONFIG.schema, items), pages, seen_cards(pages))
    model = RewardModel.prior(CONFIG)
    before = model.predict(examples)
    model.shift(-0.7)
    np.testing.assert_allclose(logits(model.predict(examples)), logits(before) - 0.7, atol=1e-4)
    with pytest.raises(ValueError, match="expected a model of adaptive steps"):
        RewardModel(RewardConfig(CONFIG.schema, bits=16, learning_rate=None)).shift(0.1)


def test_training_ends_at_the_level_of_the_log_wherever_the_prior_began() -> None:
    rng = np.random.default_rng(4)
    items = item_table(rng, 60, 8)
    pages = logged_pages(rng, items, 1_200)
    for intercept in (-4.0, 1.0):
        base = RewardModel.prior(CONFIG, intercept=intercept)
        found = train(lambda: [pages], items, TrainingConfig(CONFIG, passes=1, holdout=0.25), base=base).metrics.holdout
        assert found is not None
        error = np.sqrt(found.mean_reward * (1 - found.mean_reward) / found.n_cards)
        assert abs(found.mean_prediction - found.mean_reward) < 4 * error


def test_the_compiled_scorer_knows_every_slot_from_the_first() -> None:
    rng = np.random.default_rng(5)
    items = item_table(rng, 60, 8)
    pages = logged_pages(rng, items, 80)
    cards = seen_cards(pages)
    examples = card_examples(ItemFeatures(CONFIG.schema, items), pages, cards)
    model = RewardModel(RewardConfig(CONFIG.schema, bits=16, learning_rate=0.1))
    model.learn(examples, pages.reward[cards.page, cards.row, cards.column])
    scorer = Scorer.compile(model, items)
    found = scorer.at_slots(scorer.score_batch(pages)[cards.candidate], cards.row, cards.column)
    np.testing.assert_allclose(found, model.predict(examples), atol=1e-5)


def test_a_new_run_promises_what_is_earned_after_some_hundred_pages_and_keeps_its_order() -> None:
    rng = np.random.default_rng(6)
    items = item_table(rng, 60, 8)
    pages = logged_pages(rng, items, 600)
    model = RewardModel.prior(CONFIG, prior_intercept(0.02))
    published: list[Publication] = []
    asked = OnlineConfig(min_s=0.0, min_examples=1_000, steps=False)
    learner = OnlineLearner(model, items, published.append, 0.0, asked)
    for start in range(0, 500, 50):
        learner.learn(pages.take(np.arange(start, start + 50)), float(start))
    later = pages.take(np.arange(500, 600))
    cards = seen_cards(later)
    score = published[-1].scorer.score_batch(later)
    promised = published[-1].scorer.at_slots(score[cards.candidate], cards.row, cards.column)
    earned = later.reward[cards.page, cards.row, cards.column]
    assert promised.mean() == pytest.approx(earned.mean(), rel=0.2)
    assert sum(one.evidence.n_pages for one in published) <= 500
    before = Scorer.compile(model, items).score_batch(later)
    np.testing.assert_array_equal(np.argsort(score, kind="stable"), np.argsort(before, kind="stable"))


def test_a_level_that_was_published_rests_on_all_cards_behind_it_also_after_a_restart() -> None:
    rng = np.random.default_rng(7)
    items = item_table(rng, 60, 8)
    pages = logged_pages(rng, items, 400)
    cards = seen_cards(pages)
    earned = pages.reward[cards.page, cards.row, cards.column]
    nothing = replace(pages, reward=np.where(np.arange(400)[:, None, None] < 300, pages.reward, 0.0))
    examples = card_examples(ItemFeatures(CONFIG.schema, items), pages, cards)
    for restarts in (False, True):
        published: list[Publication] = []
        model = RewardModel.prior(CONFIG, prior_intercept(0.02))
        asked = OnlineConfig(min_s=0.0, min_examples=1, steps=False)
        learner = OnlineLearner(model, items, published.append, 0.0, asked)
        for start in range(0, 400, 100):  # each is published; on the last nothing was earned
            if restarts and published:
                behind = learner.level_cards
                learner = OnlineLearner(published[-1].model, items, published.append, 0.0, asked, behind)
            assert learner.learn(nothing.take(np.arange(start, start + 100)), float(start + 1)).published
        promised = float(published[-1].model.predict(examples).mean())
        assert promised == pytest.approx(0.75 * earned.mean(), rel=0.25)  # of the last block alone it would be near 0


def test_a_prior_takes_its_level_from_the_base_rate() -> None:
    for rate in (0.02, 0.1, 0.5):
        logit = prior_intercept(rate) + 1.8 * 0.75 + 0.6 * 0.5
        assert 1.0 / (1.0 + np.exp(-logit)) == pytest.approx(rate)
    with pytest.raises(ValueError, match="base_rate is 1.0; expected a number in"):
        prior_intercept(1.0)
