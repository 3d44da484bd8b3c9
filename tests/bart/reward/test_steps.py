"""Steps in machine code are Vowpal Wabbit's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reward_world import item_table, logged_pages

from bart.learning.training import card_examples, seen_cards
from bart.reward.features import Examples, FeatureSchema, ItemFeatures
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel, _learn_one_by_one
from bart.types import CardFeatures, Floats

LEVELS = ("plays", "skips")


def examples_of(schema: FeatureSchema) -> Examples:
    rng = np.random.default_rng(3)
    items = item_table(rng, 40, schema.dimension)
    pages = logged_pages(rng, items, 60)
    level = rng.integers(0, 16, (len(pages.item), len(LEVELS))).astype(np.uint8)  # some are not known
    pages = replace(pages, features=CardFeatures(LEVELS, level))
    made = card_examples(ItemFeatures(schema, items), pages, seen_cards(pages))
    made.item_vector[::7, 1] = 0.0  # no feature then
    made.popularity[::5] = 0.0
    return made


def rewards(n: int, fractions: bool) -> Floats:
    rng = np.random.default_rng(4)
    return rng.random(n) if fractions else (rng.random(n) < 0.2).astype(float)


@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_model_learns_what_vowpal_wabbit_learns(order: int, fractions: bool) -> None:
    schema = FeatureSchema(dimension=6, order=order, full_crosses=order == 3, levels=LEVELS, ids=IDS)
    examples = examples_of(schema)
    reward = rewards(len(examples), fractions)
    weight = np.random.default_rng(5).exponential(size=len(examples)) if fractions else np.ones(len(examples))
    fast, slow = (RewardModel.prior(RewardConfig(schema, bits=16, learning_rate=0.01)) for _ in range(2))
    for _ in range(2):
        fast.learn(examples, reward, weight)
        _learn_one_by_one(slow._workspace, examples, reward, weight)
    np.testing.assert_allclose(fast.predict(examples), slow.predict(examples), atol=1e-4)
    learnt = slow.state()[:, 1] > 0
    assert (learnt == (fast.state()[:, 1] > 0)).all()
    np.testing.assert_allclose(fast.state()[learnt, 1], slow.state()[learnt, 1], rtol=2e-3)


def test_an_importance_counts_as_so_many_small_steps() -> None:
    """Of the same example, before its history grows; Vowpal Wabbit's rule of importance weights."""
    schema = FeatureSchema(dimension=6, order=1)
    examples = examples_of(schema)
    reward = np.ones(len(examples))
    model = RewardModel(RewardConfig(schema, bits=16, learning_rate=100.0))
    model.learn(examples, reward, np.full(len(examples), 50.0))
    assert (model.predict(examples) <= 1.0).all()
    assert np.isfinite(model.weights()).all()  # a step of that rate would overshoot without it
