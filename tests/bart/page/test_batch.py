"""Batched pages are the single ones, page by page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from bart.page.policy import PagePolicy, batch_decide, batch_propensity
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Floats, PageBatch, Shelf

ROWS, COLUMNS, SHELVES = 3, 4, 5


def batch_of(seed: int, b: int = 40, *, overlapping: bool = False, pins: bool = False) -> PageBatch:
    """Logged pages, each decided with epsilons of its own."""
    rng = np.random.default_rng(seed)
    size = rng.integers(2, 25, size=b)
    offset = np.concatenate([[0], np.cumsum(size)])
    shelf = rng.integers(0, SHELVES, size=offset[-1])
    if pins:
        shelf[offset[:-1]] = -1
    item = rng.integers(0, 12, size=offset[-1]) if overlapping else np.concatenate([rng.permutation(n) for n in size])
    raw, score = np.round(rng.normal(size=offset[-1]), 1), np.round(rng.normal(size=offset[-1]), 1)
    shelf_epsilon, card_epsilon = rng.random((b, ROWS)), rng.random((b, COLUMNS))
    row_shelf, card = np.full((b, ROWS), -1), np.full((b, ROWS, COLUMNS), -1)
    shelf_p, card_p = np.full(row_shelf.shape, np.nan), np.full(card.shape, np.nan)
    pinned = np.zeros(card.shape, dtype=np.bool_)
    for i in range(b):
        part = slice(offset[i], offset[i + 1])
        page = PagePolicy(EpsilonGreedy(shelf_epsilon[i]), EpsilonGreedy(card_epsilon[i])).decide(
            Candidates(item[part], shelf[part], (Shelf("rule", "title"),) * SHELVES),
            score[part],
            ROWS,
            COLUMNS,
            rng,
            raw_score=raw[part],
            pins=[(1, 2, 0)] if pins else [],
        )
        r = len(page.shelf)
        row_shelf[i, :r], card[i, :r], shelf_p[i, :r] = page.shelf, page.card, page.shelf_propensity
        card_p[i, :r], pinned[i, :r] = page.card_propensity, page.pinned
    text = np.array([f"request {i}" for i in range(b)], dtype=object)
    number, flag = np.zeros(b, dtype=np.int64), np.ones(b, dtype=np.bool_)
    return PageBatch(
        request_id=text,
        user_id=text,
        at_s=number,
        hour=number,
        weekday=number,
        device=number,
        surface=text,
        country=text,
        listener=np.zeros((b, 2), dtype=np.float32),
        forced=~flag,
        displayed=flag,
        closed=flag,
        offset=offset,
        item=item,
        shelf=shelf,
        raw_score=raw,
        score=score,
        shelf_offset=np.arange(b + 1) * SHELVES,
        rule=np.array(["rule"] * SHELVES * b, dtype=object),
        row_shelf=row_shelf,
        card=card,
        shelf_propensity=shelf_p,
        card_propensity=card_p,
        pinned=pinned,
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        seen=np.zeros(card.shape, dtype=np.bool_),
        listened_s=np.zeros(card.shape),
        reward=np.zeros(card.shape),
    )


@pytest.mark.parametrize(("overlapping", "pins"), [(False, False), (True, False), (False, True)])
def test_the_logging_policy_has_the_recorded_propensities_to_the_last_bit(overlapping: bool, pins: bool) -> None:
    batch = batch_of(0, overlapping=overlapping, pins=pins)
    shelf, card = batch_propensity(
        batch, batch.score, batch.shelf_epsilon, batch.card_epsilon, raw_score=batch.raw_score
    )
    np.testing.assert_array_equal(shelf, batch.shelf_propensity)
    np.testing.assert_array_equal(card, batch.card_propensity)
    assert np.all(card[batch.pinned] == 1)
    assert np.array_equal(np.isnan(card), batch.card < 0)


@pytest.mark.parametrize("shared", [True, False])
def test_another_policy_is_evaluated_page_by_page(shared: bool) -> None:
    batch = batch_of(1)
    score = np.random.default_rng(2).normal(size=len(batch.score))
    shelf_epsilon: float | Floats = 0.2 if shared else batch.shelf_epsilon[::-1]
    card_epsilon: float | Floats = np.array([0.0, 0.1, 0.5, 1.0]) if shared else batch.card_epsilon[::-1]
    shelf, card = batch_propensity(batch, score, shelf_epsilon, card_epsilon)
    for i in range(len(batch)):
        rows = int((batch.row_shelf[i] >= 0).sum())
        rates = (np.broadcast_to(shelf_epsilon, (40, ROWS))[i], np.broadcast_to(card_epsilon, (40, COLUMNS))[i])
        part = slice(batch.offset[i], batch.offset[i + 1])
        base = 0.0
        for r in range(rows):
            member = np.flatnonzero(batch.shelf[part] == batch.row_shelf[i, r])
            shown = batch.card[i, r][batch.card[i, r] >= 0]
            order = np.searchsorted(member, shown)
            expected = EpsilonGreedy(rates[1]).propensity(score[part][member], order)
            np.testing.assert_array_equal(card[i, r, : len(shown)], expected)
            base += len(shown)
        names = np.unique(batch.shelf[part])
        best = np.array([score[part][batch.shelf[part] == s].max() for s in names])
        order = np.searchsorted(names, batch.row_shelf[i, :rows])
        np.testing.assert_array_equal(shelf[i, :rows], EpsilonGreedy(rates[0]).propensity(best, order))
        assert np.isnan(shelf[i, rows:]).all()
        assert base == (~np.isnan(card[i])).sum()


def test_pages_decided_together_are_those_decided_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bart.page.batch.CHUNK", 7)
    for overlapping in (False, True):
        batch = batch_of(3, overlapping=overlapping)
        row_shelf, card = batch_decide(
            batch.offset,
            batch.shelf,
            batch.score,
            ROWS,
            COLUMNS,
            batch.shelf_epsilon,
            batch.card_epsilon,
            np.random.default_rng(4),
            raw_score=batch.raw_score,
            item=batch.item if overlapping else None,
        )
        rng = np.random.default_rng(4)
        for i in range(len(batch)):
            part = slice(batch.offset[i], batch.offset[i + 1])
            page = PagePolicy(EpsilonGreedy(batch.shelf_epsilon[i]), EpsilonGreedy(batch.card_epsilon[i])).decide(
                Candidates(batch.item[part], batch.shelf[part], (Shelf("rule", "title"),) * SHELVES),
                batch.score[part],
                ROWS,
                COLUMNS,
                rng,
                raw_score=batch.raw_score[part],
            )
            r = len(page.shelf)
            np.testing.assert_array_equal(row_shelf[i, :r], page.shelf)
            np.testing.assert_array_equal(card[i, :r], page.card)
            assert np.all(row_shelf[i, r:] == -1)
            assert np.all(card[i, r:] == -1)


def test_first_slots_of_many_pages_match_the_marginals() -> None:
    candidates = Candidates(np.arange(9), np.repeat(np.arange(3), 3), (Shelf("rule", "title"),) * 3)
    score = np.array([0.5, 0.9, 0.2, 0.2, 0.1, 0.5, 0.9, 0.3, 0.7])
    b = 20_000
    row_shelf, card = batch_decide(
        np.arange(b + 1) * 9,
        np.tile(candidates.shelf, b),
        np.tile(score, b),
        2,
        2,
        0.3,
        0.4,
        np.random.default_rng(5),
    )
    shelf_marginal, card_marginal = PagePolicy(EpsilonGreedy(0.3), EpsilonGreedy(0.4)).marginal(candidates, score, 2, 2)
    for r in range(2):
        assert chisquare(np.bincount(row_shelf[:, r], minlength=3), b * shelf_marginal[:, r]).pvalue > 1e-3
        for c in range(2):
            expected = b * shelf_marginal[candidates.shelf, r] * card_marginal[:, c]
            assert chisquare(np.bincount(card[:, r, c], minlength=9), expected).pvalue > 1e-3


def test_an_empty_batch_gives_an_empty_answer() -> None:
    batch = batch_of(6).take(np.empty(0, dtype=np.int64))
    shelf, card = batch_propensity(batch, batch.score, 0.2, 0.2)
    assert shelf.shape == (0, ROWS)
    assert card.shape == (0, ROWS, COLUMNS)
    none = np.empty(0, dtype=np.int64)
    row_shelf, _ = batch_decide(
        np.zeros(1, dtype=np.int64), none, np.empty(0), 2, 2, 0.1, 0.1, np.random.default_rng(0)
    )
    assert row_shelf.shape == (0, 2)


def test_a_log_that_cannot_be_is_refused_by_page() -> None:
    batch = batch_of(7)
    card = batch.card.copy()
    card[11, 0, 0] = 1000
    with pytest.raises(ValueError, match=r"card\[11, 0, 0\] is 1000; expected a candidate of shelf \d that was not"):
        batch_propensity(replace(batch, card=card), batch.score, 0.2, 0.2)
    row_shelf = batch.row_shelf.copy()
    row_shelf[4, 0] = SHELVES
    with pytest.raises(ValueError, match=rf"shelf\[4, 0\] is {SHELVES}; expected a shelf that has cards left"):
        batch_propensity(replace(batch, row_shelf=row_shelf), batch.score, 0.2, 0.2)
    pinned = batch.pinned.copy()
    pinned[3, 0, 0] = True
    with pytest.raises(ValueError, match=r"card\[3, 0, 0\] is \d+; expected a pinned candidate"):
        batch_propensity(replace(batch, pinned=pinned), batch.score, 0.2, 0.2)


def test_bad_input_is_refused_by_name() -> None:
    batch = batch_of(8)
    score = batch.score.copy()
    score[5] = np.inf
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"score\[5\] is inf; expected a finite number"):
        batch_propensity(batch, score, 0.2, 0.2)
    with pytest.raises(ValueError, match=r"card_epsilon\[0, 0\] is 1.2; expected a number in"):
        batch_propensity(batch, batch.score, 0.2, 1.2)
    with pytest.raises(ValueError, match="shelf_epsilon has shape"):
        batch_propensity(batch, batch.score, np.full(2, 0.1), 0.2)
    with pytest.raises(ValueError, match="rows is 0"):
        batch_decide(batch.offset, batch.shelf, batch.score, 0, 2, 0.2, 0.2, rng)
    with pytest.raises(ValueError, match="shelf has shape"):
        batch_decide(batch.offset, batch.shelf[:3], batch.score, 2, 2, 0.2, 0.2, rng)
    with pytest.raises(ValueError, match="item has shape"):
        batch_decide(batch.offset, batch.shelf, batch.score, 2, 2, 0.2, 0.2, rng, item=batch.item[:3])


def test_arrays_that_may_not_be_written_are_taken() -> None:
    batch = batch_of(9)
    expected = batch_propensity(batch, batch.score, 0.2, 0.3)
    for name in ("offset", "item", "shelf", "score", "row_shelf", "card", "pinned"):
        getattr(batch, name).flags.writeable = False
    found = batch_propensity(batch, batch.score, 0.2, 0.3)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("name", ["shelf", "raw_score", "score", "row_shelf", "shelf_propensity", "card_epsilon"])
def test_arrays_of_another_length_are_refused_before_they_are_read(name: str) -> None:
    batch = batch_of(10)
    short = getattr(batch, name)[..., :-1]
    with pytest.raises(ValueError, match=rf"^{name} has shape .*; expected"):
        replace(batch, **{name: short})
    if name in ("shelf", "row_shelf"):
        object.__setattr__(batch, name, short)  # past the check of the batch itself
        with pytest.raises(ValueError, match=rf"^{name} has shape .*; expected"):
            batch_propensity(batch, batch.raw_score, 0.2, 0.2)


def test_floats_are_not_cut_off_to_shelf_numbers() -> None:
    batch = batch_of(11)
    with pytest.raises(ValueError, match="shelf has shape .* type float64; expected integers"):
        batch_decide(batch.offset, batch.shelf + 0.5, batch.score, 2, 2, 0.2, 0.2, np.random.default_rng(0))


def test_a_page_asked_for_fewer_columns_may_end_before_those_of_the_batch() -> None:
    batch = batch_of(12)
    page = int(np.argmax(batch.card[:, 0, -1] >= 0))
    card, card_epsilon = batch.card.copy(), batch.card_epsilon.copy()
    card[page, :, -1] = -1
    with pytest.raises(ValueError, match=rf"card\[{page}, 0, 3\] is -1; expected a card"):
        batch_propensity(replace(batch, card=card), batch.score, 0.2, 0.2)
    card_epsilon[page, -1] = np.nan
    batch_propensity(replace(batch, card=card, card_epsilon=card_epsilon), batch.score, 0.2, 0.2)
