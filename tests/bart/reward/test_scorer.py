"""Compiled scores are the model's own, one page or many; baselines are monotone; what is saved comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reward_world as world

import bart.reward.tables
from bart.errors import BundleError, SchemaMismatch
from bart.learning.training import card_examples, seen_cards
from bart.reward.baselines import PopularityScorer, PriorScorer
from bart.reward.feature_hash import feature_index
from bart.reward.features import FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import SCORERS, Scorer, StoredScorer, load_scorer
from bart.reward.tables import RuleRows, ScoringTables
from bart.types import DEVICES, Candidates, Context, Floats, ItemTable, PageBatch, Shelf

ITEMS: ItemTable = world.item_table(np.random.default_rng(3))
PAGES: PageBatch = world.logged_pages(np.random.default_rng(4), ITEMS, 80)


def trained(order: int = 3, full: bool = False, bits: int = 18, rate: float = 0.1) -> RewardModel:
    schema = FeatureSchema(dimension=8, order=order, full_crosses=full)
    model = RewardModel(RewardConfig(schema, bits=bits, learning_rate=rate))
    cards = seen_cards(PAGES)
    reward = PAGES.reward[cards.page, cards.row, cards.column]
    model.learn(card_examples(ItemFeatures(schema, ITEMS), PAGES, cards), reward)
    return model


def visit(batch: PageBatch, i: int) -> tuple[Context, Any, Candidates]:
    """Context, listener and candidates of one page of a batch."""
    at = datetime.fromtimestamp(int(batch.at_s[i]), tz=timezone.utc)
    hours = (int(batch.hour[i]) - at.hour) % 24
    device = [*DEVICES, "fridge"][int(batch.device[i])]
    context = Context(at, utc_offset_min=(hours if hours < 24 else 0) * 60, device=device)
    part = slice(int(batch.offset[i]), int(batch.offset[i + 1]))
    rules = batch.rule[batch.shelf_offset[i] : batch.shelf_offset[i + 1]].tolist()
    return (
        context,
        batch.listener[i],
        Candidates(batch.item[part], batch.shelf[part], tuple(Shelf(r, r) for r in rules)),
    )


def with_local_weekday(batch: PageBatch) -> PageBatch:
    """The batch with the weekdays that its times and hours give."""
    return replace(batch, weekday=np.array([visit(batch, i)[0].weekday for i in range(len(batch))]))


def compiled(items: ItemTable) -> StoredScorer:
    return Scorer.compile(trained(), items)


ALL: dict[str, Callable[[ItemTable], StoredScorer]] = {
    "prior": PriorScorer,
    "popularity": PopularityScorer,
    "compiled": compiled,
}


@pytest.fixture(scope="module", params=list(ALL))
def scorer(request: pytest.FixtureRequest) -> StoredScorer:
    return ALL[request.param](ITEMS)


# -------------------------------------------------------------------------------------------------- every scorer's duty


def test_every_kind_of_scorer_is_under_test() -> None:
    assert set(ALL) == set(SCORERS)


def test_scores_are_probabilities_in_float64(scorer: StoredScorer) -> None:
    score = scorer.score_batch(PAGES)
    assert score.dtype == np.float64
    assert ((score > 0) & (score < 1)).all()


def test_one_page_and_many_give_the_same_bits(scorer: StoredScorer) -> None:
    batch = with_local_weekday(PAGES)
    together = scorer.score_batch(batch)
    for i in range(len(batch)):
        alone = scorer.score(*visit(batch, i))
        assert (alone == together[batch.offset[i] : batch.offset[i + 1]]).all()


def test_a_candidate_has_the_same_score_whatever_stands_beside_it(scorer: StoredScorer) -> None:
    context, listener, candidates = visit(PAGES, 0)
    score = scorer.score(context, listener, candidates)
    for i in range(len(candidates)):
        mask = np.arange(len(candidates)) == i
        assert scorer.score(context, listener, candidates.keep(mask))[0] == score[i]


def test_no_candidates_give_no_scores(scorer: StoredScorer) -> None:
    context, listener, candidates = visit(PAGES, 0)
    assert scorer.score(context, listener, candidates.keep(np.zeros(len(candidates), dtype=np.bool_))).shape == (0,)


def test_a_listener_of_whom_nothing_is_known_gets_finite_scores(scorer: StoredScorer) -> None:
    context, listener, candidates = visit(PAGES, 0)
    assert np.isfinite(scorer.score(context, np.zeros_like(listener), candidates)).all()


def test_candidates_that_the_table_does_not_hold_are_scored_too(scorer: StoredScorer) -> None:
    item = PAGES.item.copy()
    item[::3] = -1
    score = scorer.score_batch(replace(PAGES, item=item))
    assert np.isfinite(score).all()
    known = item >= 0
    assert (score[known] == scorer.score_batch(PAGES)[known]).all()


def test_a_row_outside_the_table_is_refused(scorer: StoredScorer) -> None:
    context, listener, _ = visit(PAGES, 0)
    outside = Candidates(np.array([0, 300]), np.array([0, 0]), (Shelf("popular", "Popular"),))
    with pytest.raises(ValueError, match=r"item\[1\] is 300; expected a row"):
        scorer.score(context, listener, outside)


def test_a_saved_scorer_gives_the_same_bits(scorer: StoredScorer, tmp_path: Path) -> None:
    scorer.save(tmp_path)
    loaded = load_scorer(tmp_path, ITEMS)
    assert loaded.name == scorer.name
    assert (loaded.score_batch(PAGES) == scorer.score_batch(PAGES)).all()


# --------------------------------------------------------------------------------------------------- the compiled model


@pytest.mark.parametrize("bits", [18, 7])
@pytest.mark.parametrize(("order", "full"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
def test_compiled_scores_are_the_models_own_over_ten_thousand_examples(order: int, full: bool, bits: int) -> None:
    model = trained(order, full, bits)
    sample = np.random.default_rng(5).integers(0, 2**40, 10_000)
    assert Scorer.compile(model, ITEMS).difference(model, sample) <= 1e-5


def test_with_few_bits_weights_do_collide() -> None:
    model = trained(bits=7)
    assert np.count_nonzero(model.weights()) == 128


def test_compiled_scores_of_logged_pages_are_the_models_own_at_every_slot() -> None:
    model = trained()
    scorer = Scorer.compile(model, ITEMS)
    cards = seen_cards(PAGES)
    expected = model.predict(card_examples(ItemFeatures(model.schema, ITEMS), PAGES, cards))
    for row in range(3):
        for column in range(4):
            here = (cards.row == row) & (cards.column == column)
            score = scorer.score_batch(PAGES, position=(row, column))[cards.candidate]
            assert np.abs(score[here] - expected[here]).max() <= 1e-5


def test_the_first_slot_is_held_by_default() -> None:
    scorer = Scorer.compile(trained(), ITEMS)
    assert (scorer.score_batch(PAGES) == scorer.score_batch(PAGES, position=(0, 0))).all()
    assert not (scorer.score_batch(PAGES) == scorer.score_batch(PAGES, position=(2, 3))).all()


def test_a_dimension_that_fills_no_lanes_compiles_as_well() -> None:
    items = world.item_table(np.random.default_rng(1), d=13)
    model = RewardModel(RewardConfig(FeatureSchema(dimension=13), bits=16, learning_rate=0.3))
    batch = world.logged_pages(np.random.default_rng(2), items, 30)
    cards = seen_cards(batch)
    reward = batch.reward[cards.page, cards.row, cards.column]
    model.learn(card_examples(ItemFeatures(model.schema, items), batch, cards), reward)
    assert Scorer.compile(model, items).difference(model, np.arange(2000)) <= 1e-5


def test_a_compiled_model_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bart.reward.tables, "CONSTANT_INDEX", 1)
    with pytest.raises(BundleError, match="compiled scores differ from the model's by"):
        Scorer.compile(trained(), ITEMS)


def test_items_of_another_dimension_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="dimension 5; the schema expects 8"):
        Scorer.compile(trained(), world.item_table(np.random.default_rng(0), d=5))


@pytest.mark.parametrize("kind", ["prior", "compiled"])
def test_a_listener_of_another_dimension_or_not_finite_is_refused(kind: str) -> None:
    scorer = ALL[kind](ITEMS)
    context, listener, candidates = visit(PAGES, 0)
    with pytest.raises(SchemaMismatch, match=r"listener has shape .*; expected \[..., 8\]"):
        scorer.score(context, listener[:5], candidates)
    with pytest.raises(ValueError, match="is not finite"):
        scorer.score(context, np.full_like(listener, np.nan), candidates)


def test_a_listener_who_is_finite_until_scaled_is_refused() -> None:
    context, listener, candidates = visit(PAGES, 0)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"listener\[0, 0\] is not finite"):
        ALL["compiled"](ITEMS).score(context, np.full_like(listener, 3e38), candidates)


def order_in_shelves(score: Floats, candidates: Candidates) -> list[list[int]]:
    return [
        np.flatnonzero(candidates.shelf == s)[np.argsort(-score[candidates.shelf == s], kind="stable")].tolist()
        for s in range(len(candidates.shelves))
    ]


def test_the_first_order_gives_every_listener_the_same_order_of_cards_within_a_shelf() -> None:
    context, _, candidates = visit(PAGES, 0)
    scorers = {order: Scorer.compile(trained(order), ITEMS) for order in (1, 2, 3)}
    orders: dict[int, list[list[list[int]]]] = {order: [] for order in scorers}
    for listener in world.unit(np.random.default_rng(8), 20, 8):
        for order, scorer in scorers.items():
            orders[order].append(order_in_shelves(scorer.score(context, listener, candidates), candidates))
    assert all(order == orders[1][0] for order in orders[1])
    assert not all(order == orders[2][0] for order in orders[2])
    assert not all(order == orders[3][0] for order in orders[3])


def test_contributions_sum_to_the_logit_of_the_score() -> None:
    scorer = Scorer.compile(trained(), ITEMS)
    context, listener, candidates = visit(PAGES, 3)
    score = scorer.score(context, listener, candidates)
    for card in (0, 7, len(candidates) - 1):
        parts = scorer.contributions(context, listener, candidates, card)
        assert abs(sum(parts.values()) - np.log(score[card] / (1 - score[card]))) < 1e-5
        assert {"constant", "context", "match", "context x match", "explanation"} <= set(parts)


def test_contributions_of_a_card_that_is_not_there_are_refused() -> None:
    context, listener, candidates = visit(PAGES, 0)
    with pytest.raises(ValueError, match=r"card is 40; expected a candidate in \[0, 40\)"):
        Scorer.compile(trained(), ITEMS).contributions(context, listener, candidates, 40)


def test_a_card_held_out_of_the_shelves_has_the_rule_without_a_name() -> None:
    scorer = Scorer.compile(trained(), ITEMS)
    context, listener, candidates = visit(PAGES, 0)
    held = Candidates(candidates.item, np.full(len(candidates), -1), candidates.shelves)
    named = Candidates(candidates.item, np.zeros(len(candidates), dtype=np.int64), (Shelf("", ""),))
    assert (scorer.score(context, listener, held) == scorer.score(context, listener, named)).all()


def test_rules_never_seen_are_scored_alike_by_any_number_of_threads() -> None:
    context, listener, candidates = visit(PAGES, 0)
    model = trained(bits=8)  # so few weights that unknown rules meet trained ones

    def renamed(k: int) -> Candidates:
        return Candidates(candidates.item, candidates.shelf, tuple(Shelf(f"rule {k} {s}", "") for s in range(5)))

    expected = [Scorer.compile(model, ITEMS).score(context, listener, renamed(k)) for k in range(40)]
    shared = Scorer.compile(model, ITEMS)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda k: shared.score(context, listener, renamed(k % 40)), range(400)))
    for k, score in enumerate(got):
        assert (score == expected[k % 40]).all()


def test_rules_without_end_do_not_fill_the_memory() -> None:
    features = ItemFeatures(FeatureSchema(dimension=8), ITEMS)
    tables = ScoringTables(features.schema, trained().weights(), features.category_index, features.genre_start)
    rows = RuleRows(tables, ("", "popular"), most=50)
    for k in range(300):
        row, table, index = rows.of(["popular", f"rule {k}"])
        assert len(table) == len(index) <= 200
        assert index[row].tolist() == [feature_index("e", "popular"), feature_index("e", f"rule {k}")]
        assert (table[row[0]] == tables.rule("popular")).all()
        assert (table[row[1]] == tables.rule(f"rule {k}")).all()
    assert rows.of([""])[0][0] == 0


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    Scorer.compile(trained(), ITEMS).save(tmp_path)
    path = tmp_path / "weights.safetensors"
    data = path.read_bytes()
    for altered in (data[:-10], data[:200] + b"\x00\x01" + data[202:], b""):
        path.write_bytes(altered)
        with pytest.raises(BundleError, match="its sha256 is not the recorded one"):
            load_scorer(tmp_path, ITEMS)


def test_a_scorer_beside_another_schema_is_refused(tmp_path: Path) -> None:
    Scorer.compile(trained(), ITEMS).save(tmp_path)
    description = json.loads((tmp_path / "scorer.json").read_text())
    description["parameters"]["schema"]["order"] = 2
    (tmp_path / "scorer.json").write_text(json.dumps(description))
    with pytest.raises(SchemaMismatch, match="the schema is not the one"):
        load_scorer(tmp_path, ITEMS)


def test_a_folder_without_a_scorer_or_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no scorer in"):
        load_scorer(tmp_path, ITEMS)
    PriorScorer(ITEMS).save(tmp_path)
    description = json.loads((tmp_path / "scorer.json").read_text())
    (tmp_path / "scorer.json").write_text(json.dumps({**description, "kind": "oracle"}))
    with pytest.raises(
        BundleError, match="scorer kind 'oracle' is unknown; expected one of prior, popularity, compiled"
    ):
        load_scorer(tmp_path, ITEMS)
    (tmp_path / "scorer.json").write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(BundleError, match="is not of format 1"):
        load_scorer(tmp_path, ITEMS)


# ------------------------------------------------------------------------------------------------------------ baselines


def test_the_prior_rises_with_likeness_and_with_popularity() -> None:
    at = Context(datetime(2024, 5, 1, 12, tzinfo=timezone.utc) + timedelta(hours=3))
    candidates = Candidates(np.arange(len(ITEMS)), np.zeros(len(ITEMS), dtype=np.int64), (Shelf("popular", ""),))
    listener = ITEMS.vector[5]
    score = PriorScorer(ITEMS).score(at, listener, candidates)
    cosine, popular = ITEMS.vector @ listener, ITEMS.popularity
    better = (cosine[:, None] > cosine + 1e-6) & (popular[:, None] > popular)
    assert (score[:, None] > score)[better].all()
    assert score.min() > 0.01
    assert score.max() <= 0.5


def test_the_prior_does_not_look_at_the_length_of_vectors() -> None:
    context, listener, candidates = visit(PAGES, 0)
    scorer = PriorScorer(ITEMS)
    assert np.allclose(
        scorer.score(context, 7 * listener, candidates), scorer.score(context, listener, candidates), rtol=1e-5
    )


def test_popularity_is_the_same_for_every_listener() -> None:
    context, listener, candidates = visit(PAGES, 0)
    scorer = PopularityScorer(ITEMS)
    score = scorer.score(context, listener, candidates)
    assert (score == scorer.score(context, -listener, candidates)).all()
    popularity = ITEMS.popularity[candidates.item]
    assert (np.argsort(score, kind="stable") == np.argsort(popularity, kind="stable")).all()


def test_parameters_that_would_turn_the_order_around_are_refused() -> None:
    with pytest.raises(ValueError, match="monotone in both"):
        PriorScorer(ITEMS, taste=-1.0)
    with pytest.raises(ValueError, match="intercept is nan; expected a finite number"):
        PriorScorer(ITEMS, intercept=float("nan"))
    with pytest.raises(ValueError, match="expected 0 <= lowest < highest <= 1"):
        PopularityScorer(ITEMS, lowest=0.5, highest=0.1)
