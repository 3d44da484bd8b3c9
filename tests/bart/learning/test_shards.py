"""Reward models of shards, merged: Vowpal Wabbit's own rule where it has one, and no worse than what was merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reward_world as world
import vowpal_wabbit_next as vw

from bart.learning.metrics import log_loss
from bart.learning.shards import merge
from bart.learning.training import TrainingConfig, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel
from bart.types import PageBatch

COIN = RewardConfig(FeatureSchema(dimension=8), bits=18, learning_rate=None)
ADAPTIVE = RewardConfig(FeatureSchema(dimension=8), bits=18, learning_rate=0.05)


def learn(pages: PageBatch, items: Any, config: RewardConfig, base: RewardModel) -> RewardModel:
    return train(lambda: [pages], items, TrainingConfig(config, passes=1, holdout=0.0), base=base).model


@pytest.fixture(scope="module")
def logged() -> tuple[Any, PageBatch, PageBatch]:
    """Items, pages to learn from and pages to measure on."""
    rng = np.random.default_rng(2)
    items = world.item_table(rng)
    pages = world.logged_pages(rng, items, 900)
    return items, pages.take(np.arange(700)), pages.take(np.arange(700, 900))


def loss(model: RewardModel, items: Any, pages: PageBatch) -> float:
    cards = seen_cards(pages)
    reward = pages.reward[cards.page, cards.row, cards.column]
    return log_loss(reward, model.predict(card_examples(ItemFeatures(model.schema, items), pages, cards)))


def test_adaptive_models_merge_as_vowpal_wabbit_merges_them(logged: tuple[Any, PageBatch, PageBatch]) -> None:
    items, pages, _ = logged
    base = learn(pages.take(np.arange(100)), items, ADAPTIVE, RewardModel.prior(ADAPTIVE))
    parts = [learn(pages.take(np.arange(100 + 150 * k, 250 + 150 * k)), items, ADAPTIVE, base) for k in range(3)]
    deltas = [vw.calculate_delta(base._workspace.native, part._workspace.native) for part in parts]
    theirs = vw.apply_delta(base._workspace.native, vw.merge_deltas(deltas)).weights()[:, 0, :2]
    ours = merge(base, parts).state()[:, :2]
    moved = (theirs != base.state()[:, :2]).any(axis=1)
    assert moved.sum() > 500
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("config", [COIN, ADAPTIVE])
def test_merged_shards_predict_better_than_a_shard_alone(
    logged: tuple[Any, PageBatch, PageBatch], config: RewardConfig
) -> None:
    items, pages, held = logged
    base = RewardModel.prior(config)
    parts = [learn(pages.take(np.arange(k, 700, 4)), items, config, base) for k in range(4)]
    merged = merge(base, parts)
    alone = [loss(part, items, held) for part in parts]
    assert loss(merged, items, held) < np.mean(alone)
    assert loss(merged, items, held) < loss(base, items, held)
    assert merged.n_learned == sum(part.n_learned for part in parts)
    assert merged.rules == set().union(*(part.rules for part in parts))


def test_what_one_part_alone_met_stays_as_it_learnt_it(logged: tuple[Any, PageBatch, PageBatch]) -> None:
    items, pages, _ = logged
    base = RewardModel.prior(COIN)
    before = base.state().copy()
    parts = [learn(pages.take(np.arange(200 * k, 200 * k + 200)), items, COIN, base) for k in range(2)]
    changed = [(part.state()[:, 2] != before[:, 2]) for part in parts]
    only = changed[0] & ~changed[1]
    assert only.sum() > 5
    merged = merge(base, parts).state()
    np.testing.assert_allclose(merged[only], parts[0].state()[only], rtol=1e-5)
    both = changed[0] & changed[1]
    low = np.minimum(*(part.state()[both, 0] for part in parts))
    high = np.maximum(*(part.state()[both, 0] for part in parts))
    assert ((merged[both, 0] >= low - 1e-6) & (merged[both, 0] <= high + 1e-6)).all()
    np.testing.assert_array_equal(base.state(), before)


def test_a_merged_model_can_be_saved_and_learns_on_without_a_jump(
    logged: tuple[Any, PageBatch, PageBatch], tmp_path: Path
) -> None:
    items, pages, held = logged
    base = RewardModel.prior(COIN)
    merged = merge(base, [learn(pages.take(np.arange(k, 600, 3)), items, COIN, base) for k in range(3)])
    merged.save(tmp_path)
    again = RewardModel.load(tmp_path)
    np.testing.assert_array_equal(again.weights(), merged.weights())
    on = learn(pages.take(np.arange(600, 700)), items, COIN, again)
    assert loss(on, items, held) < loss(merged, items, held) + 0.005


def test_parts_without_examples_change_nothing_and_other_configurations_are_refused(
    logged: tuple[Any, PageBatch, PageBatch],
) -> None:
    items, pages, _ = logged
    base = RewardModel.prior(COIN)
    part = learn(pages.take(np.arange(50)), items, COIN, base)
    np.testing.assert_array_equal(merge(base, [base.copy(), part]).state(), part.state())
    np.testing.assert_array_equal(merge(base, [base.copy()]).state(), base.state())
    with pytest.raises(ValueError, match="another configuration"):
        merge(base, [part, RewardModel(ADAPTIVE)])
    with pytest.raises(ValueError, match="at least one model"):
        merge(base, [])
