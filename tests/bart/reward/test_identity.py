"""Items, artists, listeners and their pairs have weights of their own, learnt from the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reward_world import item_table, logged_pages

from bart.learning.training import TrainingConfig, card_examples, seen_cards, train
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.identity import IDS, PARTS
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, PageBatch

RNG = np.random.default_rng(8)
ITEMS = item_table(RNG, 80, 8)
PAGES = logged_pages(RNG, ITEMS, 400)
# Everybody looks alike but for the name.
ALIKE = replace(PAGES, listener=np.repeat(PAGES.listener[:1], len(PAGES), axis=0))
TWO = replace(ALIKE, user_id=np.array(["even", "odd"], dtype=object)[np.arange(len(PAGES)) % 2])


def learnt(pages: PageBatch, ids: tuple[str, ...]) -> RewardModel:
    schema = FeatureSchema(dimension=8, order=2, ids=ids)
    config = TrainingConfig(RewardConfig(schema, bits=18, learning_rate=0.01), passes=4, holdout=0.0)
    return train(lambda: [pages], ITEMS, config).model


def taught(likes: Floats, ids: tuple[str, ...] = IDS) -> Scorer:
    """By pages whose seen cards were streamed where likes [b, rows, columns] says so."""
    reward = np.where(PAGES.seen, likes, 0.0)
    return Scorer.compile(learnt(replace(TWO, reward=reward), ids), ITEMS)


def label_of(kind: str) -> np.ndarray:
    """[b, rows, columns] artist, genre or rule of each card."""
    candidate = PAGES.offset[:-1, None, None] + np.maximum(PAGES.card, 0)
    if kind == "rule":
        shelf = PAGES.shelf_offset[:-1, None] + np.maximum(PAGES.row_shelf, 0)
        _, code = np.unique(PAGES.rule.astype(str), return_inverse=True)
        rule: np.ndarray = np.repeat(code[shelf][:, :, None], PAGES.card.shape[2], axis=2)
        return rule
    labels = ITEMS.artists if kind == "artist" else ITEMS.genres
    first: np.ndarray = labels.first[PAGES.item[candidate]]
    return first


@pytest.mark.parametrize("kind", ["rule", "genre", "artist"])
def test_two_listeners_who_differ_in_nothing_that_is_measured_get_other_orders(kind: str) -> None:
    """One streams the even labels, the other the odd ones."""
    mine = label_of(kind) % 2 == (np.arange(len(PAGES)) % 2)[:, None, None]
    scorer = taught(mine.astype(np.float64))
    as_even, as_odd = (
        scorer.score_batch(replace(ALIKE, user_id=np.full(len(PAGES), name, dtype=object))) for name in ("even", "odd")
    )
    page = np.repeat(np.arange(len(PAGES)), np.diff(PAGES.offset))
    if kind == "rule":
        code = np.unique(PAGES.rule.astype(str), return_inverse=True)[1][PAGES.shelf_offset[page] + PAGES.shelf]
    else:
        code = (ITEMS.artists if kind == "artist" else ITEMS.genres).first[PAGES.item]
    even, odd = (code % 2 == 0) & (PAGES.shelf >= 0), (code % 2 == 1) & (PAGES.shelf >= 0)
    assert as_even[even].mean() > 1.5 * as_even[odd].mean()
    assert as_odd[odd].mean() > 1.5 * as_odd[even].mean()
    blind = taught(mine.astype(np.float64), tuple(name for name in IDS if "listener" not in name))
    named = replace(ALIKE, user_id=np.full(len(PAGES), "even", dtype=object))
    assert np.array_equal(blind.score_batch(named), blind.score_batch(ALIKE))


def test_a_listener_whom_the_log_has_not_shown_is_scored_as_nobody() -> None:
    scorer = taught((label_of("genre") % 2 == 0).astype(np.float64))
    stranger, nobody = (
        scorer.score_batch(replace(ALIKE, user_id=np.full(len(PAGES), name, dtype=object)))
        for name in ("a stranger", "nobody else")
    )
    assert (stranger == nobody).mean() > 0.95  # all but those that share a place in the table with someone known


@pytest.mark.parametrize("name", PARTS)
def test_each_identity_alone_is_compiled_as_it_is_learnt(name: str) -> None:
    model = learnt(PAGES, (name,))
    scorer = Scorer.compile(model, ITEMS)
    cards = seen_cards(PAGES)
    examples = card_examples(ItemFeatures(model.schema, ITEMS), PAGES, cards, first_slot=True)
    np.testing.assert_allclose(scorer.score_batch(PAGES)[cards.candidate], model.predict(examples), atol=1e-5)
    assert np.unique(examples.identity[:, 0]).size > 1
