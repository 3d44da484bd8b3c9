"""Levels of candidates and items' own weights: learnt, compiled and taken apart alike; older schemas know neither."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
import reward_world as world

from bart.errors import SchemaMismatch
from bart.learning.training import card_examples, seen_cards
from bart.reward.contributions import group_logits, probability
from bart.reward.feature_hash import feature_index, feature_indices
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Candidates, CardFeatures, Context, PageBatch, Shelf
from bart.types.levels import LEVELS, UNKNOWN

NAMES = ("near", "played", "fresh")
ITEMS = world.item_table(np.random.default_rng(3))
SCHEMA = FeatureSchema(dimension=8, order=2, levels=NAMES, ids=IDS)


def pages(n: int = 80) -> PageBatch:
    rng = np.random.default_rng(4)
    made = world.logged_pages(rng, ITEMS, n)
    level = rng.integers(0, LEVELS, (len(made.item), len(NAMES))).astype(np.uint8)
    return replace(made, features=CardFeatures(NAMES, level))


PAGES = pages()


def learnt(batch: PageBatch, schema: FeatureSchema = SCHEMA) -> RewardModel:
    model = RewardModel(RewardConfig(schema, bits=18, learning_rate=None))
    cards = seen_cards(batch)
    model.learn(
        card_examples(ItemFeatures(schema, ITEMS), batch, cards), batch.reward[cards.page, cards.row, cards.column]
    )
    return model


def test_compiled_scores_of_known_candidates_are_the_models_own() -> None:
    model = learnt(PAGES)
    cards = seen_cards(PAGES)
    examples = card_examples(ItemFeatures(SCHEMA, ITEMS), PAGES, cards, first_slot=True)
    scores = Scorer.compile(model, ITEMS).score_batch(PAGES)[cards.candidate]
    assert np.abs(scores - model.predict(examples)).max() < 1e-5
    logit = sum(group_logits(examples, model.weights()).values())
    assert np.abs(scores - probability(np.asarray(logit))).max() < 1e-5


def test_one_page_has_the_bits_of_the_batch_and_contributions_sum_to_its_logit() -> None:
    scorer = Scorer.compile(learnt(PAGES), ITEMS)
    part = slice(int(PAGES.offset[2]), int(PAGES.offset[3]))
    rules = PAGES.rule[PAGES.shelf_offset[2] : PAGES.shelf_offset[3]].tolist()
    assert PAGES.features is not None
    known = PAGES.features.take(np.arange(part.start, part.stop))
    shelves = tuple(Shelf(rule, rule) for rule in rules)
    candidates = Candidates(PAGES.item[part], PAGES.shelf[part], shelves, known)
    context = Context(datetime.fromtimestamp(int(PAGES.at_s[2]), tz=timezone.utc))
    user = str(PAGES.user_id[2])
    one = scorer.score(context, PAGES.listener[2], candidates, user_id=user)
    again = replace(PAGES, hour=np.full(len(PAGES), context.hour), weekday=np.full(len(PAGES), context.weekday))
    again = replace(again, device=np.zeros(len(PAGES), dtype=np.int64))
    assert np.array_equal(one, scorer.score_batch(again)[part])
    told = scorer.contributions(context, PAGES.listener[2], candidates, 1, user_id=user)
    assert probability(np.array([sum(told.values())]))[0] == pytest.approx(one[1], abs=1e-6)
    assert {"history", "identity"} <= set(told)


def test_a_level_that_is_not_known_counts_nothing() -> None:
    scorer = Scorer.compile(learnt(PAGES), ITEMS)
    silent = replace(PAGES, features=CardFeatures.unknown(len(PAGES.item), NAMES))
    assert np.array_equal(scorer.score_batch(silent), scorer.score_batch(replace(PAGES, features=None)))
    assert not np.array_equal(scorer.score_batch(silent), scorer.score_batch(PAGES))


def test_levels_go_by_name_and_others_are_passed_over() -> None:
    scorer = Scorer.compile(learnt(PAGES), ITEMS)
    assert PAGES.features is not None
    order = [2, 0, 1]
    more = np.column_stack([PAGES.features.level[:, order], np.zeros(len(PAGES.item), dtype=np.uint8)])
    mixed = CardFeatures((*(NAMES[k] for k in order), "another"), more)
    assert np.array_equal(scorer.score_batch(replace(PAGES, features=mixed)), scorer.score_batch(PAGES))


def test_a_model_finds_the_level_and_the_item_that_are_streamed() -> None:
    batch = pages(400)
    assert batch.features is not None
    cards = seen_cards(batch)
    level, item = batch.features.level[cards.candidate, 0], batch.item[cards.candidate]
    reward = np.zeros(batch.reward.shape)
    reward[cards.page, cards.row, cards.column] = (level == 7) | (item == 5)
    batch = replace(batch, reward=reward)
    scores = Scorer.compile(learnt(batch), ITEMS).score_batch(batch)
    good = batch.features.level[:, 0] == 7
    assert scores[good].mean() > 3 * scores[~good].mean()
    assert scores[~good & (batch.item == 5)].mean() > 1.5 * scores[~good & (batch.item != 5)].mean()


def test_a_schema_without_them_is_the_one_that_it_was() -> None:
    plain = FeatureSchema(dimension=8)
    assert "levels" not in plain.as_dict()
    assert "ids" not in plain.as_dict()
    assert plain.fingerprint == "65568a49b5ee9dbb"
    for schema in (plain, SCHEMA):
        assert FeatureSchema.from_dict(schema.as_dict()) == schema
    assert SCHEMA.fingerprint != replace(SCHEMA, levels=NAMES[:2]).fingerprint
    with pytest.raises(ValueError, match="ids has 'album'; expected of item, artist"):
        FeatureSchema(ids=("album",))


def test_examples_of_another_schema_are_refused() -> None:
    cards = seen_cards(PAGES)
    examples = card_examples(ItemFeatures(SCHEMA, ITEMS), PAGES, cards)
    with pytest.raises(SchemaMismatch, match="the model expects"):
        RewardModel(RewardConfig(FeatureSchema(dimension=8, order=2))).predict(examples)


def test_many_names_are_hashed_as_one_by_one() -> None:
    names = ["", "7", "item=a", "artist=Björk", "item=abcd", "x" * 29, "item=a"]
    assert feature_indices("i", names).tolist() == [feature_index("i", name) for name in names]
    assert len(feature_indices("i", [])) == 0


def test_features_keep_to_their_candidates() -> None:
    known = CardFeatures(("a", "b"), np.array([[1, 2], [3, 4], [5, UNKNOWN]], dtype=np.uint8))
    assert known.take(np.array([2, 0])).level.tolist() == [[5, UNKNOWN], [1, 2]]
    assert known.named(("b", "c")).tolist() == [[2, UNKNOWN], [4, UNKNOWN], [UNKNOWN, UNKNOWN]]
    both = CardFeatures.concat([known, CardFeatures(("c",), np.zeros((1, 1), dtype=np.uint8))])
    assert both.name == ("a", "b", "c")
    assert both.level[3].tolist() == [UNKNOWN, UNKNOWN, 0]
    with pytest.raises(ValueError, match="level is up to 16"):
        CardFeatures(("a",), np.full((1, 1), 16, dtype=np.uint8))
    with pytest.raises(ValueError, match="expected distinct names"):
        CardFeatures(("a", "a"), np.zeros((1, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="features are of 3 candidates; expected 2"):
        Candidates(np.arange(2), np.zeros(2, dtype=np.int64), (Shelf("r", "r"),), known)


def test_pages_taken_and_put_together_keep_their_features() -> None:
    assert PAGES.features is not None
    some = PAGES.take(np.array([5, 1]))
    assert some.features is not None
    rows = np.concatenate([np.arange(PAGES.offset[k], PAGES.offset[k + 1]) for k in (5, 1)])
    assert np.array_equal(some.features.level, PAGES.features.level[rows])
    both = PageBatch.concat([some, replace(some, features=None)])
    assert both.features is not None
    assert (both.features.level[len(some.item) :] == UNKNOWN).all()
