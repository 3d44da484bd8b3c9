"""The true value of a policy: against enumeration, against simulated readings, and at its extremes."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from bart.page.batch import batch_decide, batch_propensity
from bart.types import Bools, Floats, PageBatch
from simulator.loop.truth import page_appeal, page_values, true_value
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import WORLDS, BrowsingParams, browse
from simulator.world.appeal import appeal, batch_appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World


def pages(
    offset: np.ndarray, shelf: np.ndarray, rows: int, columns: int, card: np.ndarray | None = None, **given: np.ndarray
) -> PageBatch:
    """A batch with the given candidates; what the truth does not read is filled with something harmless."""
    b, n = len(offset) - 1, len(shelf)
    n_shelves = int(shelf.max()) + 1
    grid = (b, rows, columns)
    text = np.array([""] * b, dtype=object)
    values = {
        "request_id": text, "user_id": text, "surface": text, "country": text,
        "at_s": np.zeros(b, dtype=np.int64), "hour": np.zeros(b, dtype=np.int64),
        "weekday": np.zeros(b, dtype=np.int64), "device": np.zeros(b, dtype=np.int64),
        "listener": np.zeros((b, 4), dtype=np.float32), "forced": np.zeros(b, dtype=np.bool_),
        "displayed": np.ones(b, dtype=np.bool_), "closed": np.ones(b, dtype=np.bool_),
        "offset": offset, "item": np.arange(n), "shelf": shelf, "raw_score": np.zeros(n), "score": np.zeros(n),
        "shelf_offset": np.arange(b + 1) * n_shelves,
        "rule": np.array([f"rule {s}" for s in range(n_shelves)] * b, dtype=object),
        "row_shelf": np.full((b, rows), -1), "card": np.full(grid, -1) if card is None else card,
        "shelf_propensity": np.full((b, rows), np.nan), "card_propensity": np.full(grid, np.nan),
        "pinned": np.zeros(grid, dtype=np.bool_), "shelf_epsilon": np.zeros((b, rows)),
        "card_epsilon": np.zeros((b, columns)), "seen": np.zeros(grid, dtype=np.bool_),
        "listened_s": np.zeros(grid), "reward": np.zeros(grid),
    }  # fmt: skip
    return PageBatch(**{**values, **given})  # type: ignore[arg-type]


def many(b: int, seed: int = 0) -> tuple[PageBatch, np.ndarray, np.ndarray]:
    """b visits with 5 shelves of 6 cards; their appeal and a mediocre score."""
    rng = np.random.default_rng(seed)
    batch = pages(np.arange(b + 1) * 30, np.tile(np.repeat(np.arange(5), 6), b), 3, 4)
    appeal = rng.beta(0.8, 6.0, size=30 * b)
    return batch, appeal, appeal + 0.1 * rng.standard_normal(30 * b)


def every_page() -> tuple[PageBatch, np.ndarray]:
    """All pages of 2 rows x 2 columns from 3 shelves of 2 cards, each with the same candidates."""
    cards, shelves = [], []
    for chosen in permutations(range(3), 2):
        for orders in product(*(permutations((2 * s, 2 * s + 1)) for s in chosen)):
            shelves.append(chosen)
            cards.append(orders)
    b = len(cards)
    batch = pages(
        np.arange(b + 1) * 6, np.tile([0, 0, 1, 1, 2, 2], b), 2, 2, np.array(cards), row_shelf=np.array(shelves)
    )
    return batch, np.random.default_rng(3).uniform(0.05, 0.6, size=6)


def sampled_value(
    appeal: Floats,
    present: Bools,
    params: BrowsingParams,
    rng: np.random.Generator,
    *,
    draws: int = 1_000,
    patience: Floats | None = None,
) -> tuple[Floats, Floats]:
    """[b] streams of each displayed page by simulated readings, and their standard errors: a check of `page_value`."""
    total, square = np.zeros(len(appeal)), np.zeros(len(appeal))
    shown = np.zeros(len(appeal))
    for _ in range(draws):
        feedback = browse(appeal, present, params, rng, patience=patience)
        streams = feedback.streamed.sum(axis=(1, 2)).astype(np.float64)
        total += streams
        square += streams**2
        shown += feedback.displayed
    mean = total / shown
    return mean, np.sqrt(np.maximum(square / shown - mean**2, 0.0) / shown)


@pytest.mark.parametrize("name", list(WORLDS))
def test_the_value_is_the_sum_over_all_pages_weighted_by_their_propensity(name: str) -> None:
    batch, appeal = every_page()
    b = len(batch)
    score = np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.35])
    shelf, card = batch_propensity(batch, np.tile(score, b), 0.4, 0.3)
    propensity = shelf.prod(axis=1) * card.prod(axis=(1, 2))
    assert propensity.sum() == pytest.approx(1.0)
    patience = np.full(b, 0.3)
    exact = propensity @ page_values(np.tile(appeal, b), batch.offset, batch.card, WORLDS[name], patience=patience)
    visits = pages(np.arange(401) * 6, np.tile([0, 0, 1, 1, 2, 2], 400), 2, 2)
    value, error = true_value(
        visits, np.tile(appeal, 400), np.tile(score, 400), 0.4, 0.3, WORLDS[name], np.random.default_rng(0),
        patience=np.full(400, 0.3),
    )  # fmt: skip
    assert 0 < error < 0.02 * exact
    assert abs(value - exact) < 4 * error


def test_a_greedy_policy_has_an_exact_value() -> None:
    batch, appeal, score = many(200)
    value, error = true_value(batch, appeal, score, 0.0, 0.0, WORLDS["W3"], np.random.default_rng(0))
    _, card = batch_decide(batch.offset, batch.shelf, score, 3, 4, 0.0, 0.0, np.random.default_rng(1))
    assert error == 0.0
    assert value == page_values(appeal, batch.offset, card, WORLDS["W3"]).mean()


def test_a_greedy_policy_with_ties_is_random() -> None:
    batch, appeal, score = many(200)
    for tied in (np.round(score, 1), np.zeros_like(score)):
        _, error = true_value(batch, appeal, tied, 0.0, 0.0, WORLDS["W1"], np.random.default_rng(0))
        assert error > 0


def test_pages_that_cannot_differ_leave_no_error() -> None:
    batch = pages(np.array([0, 1, 2]), np.array([0, 0]), 1, 1)
    value, error = true_value(
        batch, np.array([0.2, 0.4]), np.zeros(2), 0.5, 0.5, WORLDS["W1"], np.random.default_rng(0)
    )
    assert error == 0.0
    assert value == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W6"])
def test_the_true_score_is_worth_more_than_a_mediocre_one_and_that_more_than_chance(name: str) -> None:
    batch, appeal, score = many(400)
    chance = np.random.default_rng(9).random(len(score))
    true, mediocre, random = (
        true_value(batch, appeal, s, 0.05, 0.05, WORLDS[name], np.random.default_rng(0))[0]
        for s in (appeal, score, chance)
    )
    assert true > mediocre > random


def test_exploring_costs() -> None:
    batch, appeal, _ = many(400)
    value = [
        true_value(batch, appeal, appeal, e, e, WORLDS["W1"], np.random.default_rng(0))[0] for e in (0.0, 0.2, 1.0)
    ]
    assert value[0] > value[1] > value[2]


def test_more_draws_shrink_the_error_as_their_root() -> None:
    batch, appeal, score = many(300)
    few, much = (
        true_value(batch, appeal, score, 0.3, 0.3, WORLDS["W1"], np.random.default_rng(0), draws=d)[1] for d in (8, 128)
    )
    assert few / much == pytest.approx(4.0, rel=0.15)


def test_simulated_readings_agree_with_the_closed_form() -> None:
    batch, appeal, score = many(300)
    _, card = batch_decide(batch.offset, batch.shelf, score, 3, 4, 0.2, 0.2, np.random.default_rng(1))
    on_page, present = page_appeal(appeal, batch.offset, card)
    own = np.random.default_rng(4).standard_normal(300)
    for name in ("W5", "W6"):
        mean, error = sampled_value(on_page, present, WORLDS[name], np.random.default_rng(2), draws=400, patience=own)
        exact = page_values(appeal, batch.offset, card, WORLDS[name], patience=own)
        z = (mean - exact).sum() / np.sqrt((error**2).sum())
        assert abs(z) < 4


def test_shelves_can_be_worth_something_else_than_their_cards_scores() -> None:
    batch, appeal, score = many(200)
    rng = np.random.default_rng(0)
    same, _ = true_value(batch, appeal, score, 0.0, 0.0, WORLDS["W1"], rng, raw_score=score)
    plain, _ = true_value(batch, appeal, score, 0.0, 0.0, WORLDS["W1"], rng)
    other, _ = true_value(batch, appeal, score, 0.0, 0.0, WORLDS["W1"], rng, raw_score=-score)
    assert same == plain
    assert other < plain


def test_the_appeal_of_candidates_is_found_by_id_whatever_the_order_of_the_item_table() -> None:
    world = World.make(WorldConfig(n_tracks=2_000, n_listeners=50, days=5), np.random.default_rng(0))
    visits = simulate_visits(world, 40, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    order = rng.permutation(2_000)
    item_id = np.array(world.catalogue.item_id, dtype=object)
    item = rng.integers(0, 2_000, size=40 * 30)
    given = {
        "user_id": np.array([visits.user_id(i) for i in range(40)], dtype=object),
        "at_s": visits.at_s, "hour": visits.hour, "weekday": visits.weekday, "device": visits.device,
    }  # fmt: skip
    shape = (np.arange(41) * 30, np.tile(np.repeat(np.arange(5), 6), 40), 3, 4)
    straight = batch_appeal(world, pages(*shape, **given, item=item), item_id)
    place = np.argsort(order)  # row in the shuffled table of each row of the world
    shuffled = batch_appeal(world, pages(*shape, **given, item=place[item]), item_id[order])
    np.testing.assert_array_equal(straight, shuffled)
    who = np.repeat(visits.listener, 30)
    direct = appeal(world, who, *(np.repeat(a, 30) for a in (visits.hour, visits.weekday, visits.device)), item,
        [f"rule {s}" for s in shape[1]], np.repeat(visits.at_s, 30),
    )  # fmt: skip
    np.testing.assert_array_equal(straight, direct)
    with pytest.raises(ValueError, match=r"item\[0\] is -1; expected candidates that the item table holds"):
        batch_appeal(world, pages(*shape, **given, item=np.full(1_200, -1)), item_id)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"appeal": np.zeros(3)}, r"appeal has shape \(3,\); expected \(60,\)"),
        ({"draws": 1}, "draws is 1; expected at least 2"),
        ({"patience": np.zeros(5)}, r"patience has shape \(5,\); expected \(2,\)"),
        ({"params": WORLDS["W4"]}, "patience is missing"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], text: str) -> None:
    batch, appeal, score = many(2)
    given: dict[str, object] = {
        "batch": batch, "appeal": appeal, "score": score, "shelf_epsilon": 0.1, "card_epsilon": 0.1,
        "params": WORLDS["W1"], "rng": np.random.default_rng(0),
    }  # fmt: skip
    with pytest.raises(ValueError, match=text):
        true_value(**{**given, **change})  # type: ignore[arg-type]
