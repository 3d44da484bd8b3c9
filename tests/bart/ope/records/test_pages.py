"""Logged pages: what the record holds, its weights against the page policy's own, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest

from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import replay_error
from bart.ope.weights.marginals import MarginalTables, marginal_tables
from bart.ope.weights.pages import cascade_weight, joint_weight, marginal_propensity, page_propensity
from bart.page.batch import batch_propensity
from bart.page.policy import PagePolicy
from bart.ranking.marginals import marginal_table
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, PageBatch, Shelf


def of(batch, score=None, epsilon=0.1, **more) -> LoggedPages:
    return logged_pages(batch, batch.score if score is None else score, epsilon, epsilon, **more)


def test_tables_of_many_rates_are_those_of_each_rate() -> None:
    epsilon = np.array([[0.2, 0.2, 0.2], [1.0, 0.5, 0.0], [0.05, 0.1, 0.3]])
    tables = marginal_tables(6, epsilon)
    for row, table in zip(epsilon, tables, strict=True):
        assert table == pytest.approx(marginal_table(6, 3, row), abs=1e-14)
    assert tables.sum(axis=1) == pytest.approx(1.0)


def test_tied_cards_share_the_marginals_of_their_ranks() -> None:
    table = marginal_table(4, 2, 0.3)
    found = MarginalTables(np.full((1, 2), 0.3)).of(
        np.full(4, 4), np.zeros(4, dtype=np.int64), np.array([0, 1, 1, 3], dtype=np.int32), np.array([1, 2, 2, 1])
    )
    assert found[1] == pytest.approx(table[1:3].mean(axis=0))
    assert (found[1] == found[2]).all()
    assert found[[0, 3]] == pytest.approx(table[[0, 3]])


def test_a_position_that_a_page_did_not_ask_for_has_no_marginal() -> None:
    epsilon = np.array([[0.2, 0.2, np.nan]])
    found = MarginalTables(epsilon).of(
        np.array([5]), np.array([0]), np.array([0], dtype=np.int32), np.array([1], dtype=np.int32)
    )
    assert found[0, 2] == 0
    assert found[0, :2] == pytest.approx(marginal_table(5, 2, 0.2)[0])


def test_recorded_propensities_follow_from_ranks_and_rates_alone() -> None:
    rng = np.random.default_rng(1)
    batch = world.batch(rng, raw_score=rng.normal(size=300 * 35))
    assert replay_error(of(batch)) < 1e-12


def test_target_propensities_are_those_of_the_page_policy() -> None:
    rng = np.random.default_rng(2)
    batch = world.batch(rng)
    score = np.round(rng.normal(size=len(batch.item)), 1)  # with ties
    shelf, card = page_propensity(of(batch, score, 0.15), "target")
    expected_shelf, expected_card = batch_propensity(batch, score, 0.15, 0.15)
    assert shelf == pytest.approx(expected_shelf, abs=1e-13)
    assert card == pytest.approx(expected_card, abs=1e-13)


def test_marginals_of_shown_cards_are_those_of_the_page_policy() -> None:
    rng = np.random.default_rng(3)
    batch = world.batch(rng, pages=1)
    score = rng.normal(size=len(batch.item))
    found = marginal_propensity(of(batch, score, 0.2), "target")
    candidates = Candidates(batch.item, batch.shelf, tuple(Shelf("rule", str(e)) for e in range(5)))
    shelf, card = PagePolicy(EpsilonGreedy(0.2), EpsilonGreedy(0.2)).marginal(candidates, score, 3, 3)
    for r, c in np.ndindex(3, 3):
        k = batch.card[0, r, c]
        assert found[0, r, c] == pytest.approx(shelf[batch.row_shelf[0, r], r] * card[k, c])


def test_joint_weights_are_the_last_cascade_weights() -> None:
    rng = np.random.default_rng(4)
    batch = world.batch(rng)
    data = of(batch, rng.normal(size=len(batch.item)))
    assert cascade_weight(data)[:, -1, -1] == pytest.approx(joint_weight(data))


def test_the_order_of_candidates_in_the_log_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    batch = world.batch(rng, pages=40)
    score, q = rng.normal(size=len(batch.item)), rng.random(len(batch.item))
    n = 35
    shuffle = np.array([rng.permutation(n) for _ in range(40)])  # new place -> old place
    flat = (np.arange(40)[:, None] * n + shuffle).reshape(-1)
    inverse = np.argsort(shuffle, axis=1)
    moved = replace(
        batch,
        item=batch.item[flat],
        shelf=batch.shelf[flat],
        score=batch.score[flat],
        raw_score=batch.raw_score[flat],
        card=inverse[np.arange(40)[:, None, None], batch.card],
    )
    a, b = of(batch, score, q_target=q), of(moved, score[flat], q_target=q[flat])
    assert (joint_weight(a) == joint_weight(b)).all()
    assert a.q_target is not None
    assert b.q_target is not None
    shown = a.offset[:-1, None, None] + a.order, b.offset[:-1, None, None] + b.order
    assert (a.q_target[shown[0]] == b.q_target[shown[1]]).all()


def test_forced_open_and_undisplayed_pages_are_left_out_and_counted() -> None:
    batch = world.batch(np.random.default_rng(6), pages=20)
    forced, displayed, closed = batch.forced.copy(), batch.displayed.copy(), batch.closed.copy()
    forced[:3], displayed[3:5], closed[5] = True, False, False
    data = of(replace(batch, forced=forced, displayed=displayed, closed=closed))
    assert len(data) == 14
    assert data.left_out == {"forced": 3, "not displayed": 2, "open": 1, "empty": 0}


def test_pages_of_different_sizes_stand_in_one_record() -> None:
    small, large = world.batch(np.random.default_rng(7), pages=30, columns=2), world.batch(np.random.default_rng(8))

    def wider(a, fill):
        return np.concatenate([a, np.full((*a.shape[:-1], 1), fill, dtype=a.dtype)], axis=-1)

    padded = replace(
        small,
        card=wider(small.card, -1),
        card_propensity=wider(small.card_propensity, np.nan),
        card_epsilon=wider(small.card_epsilon, np.nan),
        pinned=wider(small.pinned, False),
        seen=wider(small.seen, False),
        listened_s=wider(small.listened_s, 0),
        reward=wider(small.reward, 0),
    )
    narrow, wide = of(small), of(padded)
    assert marginal_propensity(wide, "target")[:, :, :2] == pytest.approx(marginal_propensity(narrow, "target"))
    both = of(PageBatch.concat([padded, large]))
    assert len(both) == 330
    assert replay_error(both) < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"reward": d.reward - 0.5}, r"reward\[0, 0, 0\] is -?[0-9.]+; expected \[0, 1\]"),
        (lambda d: {"card_propensity": d.card_propensity * 0}, r"card_propensity\[0, 0, 0\] is 0.0; expected \(0, 1\]"),
        (lambda d: {"card_epsilon_target": d.card_epsilon_target + 1}, r"card_epsilon_target\[0, 0\] is 1.1; expected"),
        (lambda d: {"rank_target": d.rank_target + 7}, "rank_target"),
        (lambda d: {"user": d.user[:-1]}, r"user has shape \(299,\); expected \(300,\)"),
        (lambda d: {"q_target": np.full(len(d.shelf), 1.5)}, r"q_target\[0\] is 1.5; expected a probability"),
        (lambda d: {"q_target": np.full(len(d.shelf), np.nan)}, r"q_target\[0\] is nan"),
        (lambda d: {"order": np.zeros_like(d.order)}, "stands in a row of another shelf|twice on one page"),
        (lambda d: {"seen": np.ones_like(d.seen), "order": np.full_like(d.order, -1)}, "seen"),
    ],
)
def test_a_bad_record_is_refused_with_what_is_wrong(change, message) -> None:
    data = of(world.batch(np.random.default_rng(12)))
    with pytest.raises(ValueError, match=message):
        replace(data, **change(data))


def test_scores_of_another_length_and_empty_logs_are_refused() -> None:
    batch = world.batch(np.random.default_rng(13), pages=4)
    with pytest.raises(ValueError, match=r"target_score has shape \(139,\); expected \(140,\)"):
        of(batch, batch.score[:-1])
    with pytest.raises(ValueError, match=r"target_score\[5\] is not finite"):
        of(batch, np.where(np.arange(140) == 5, np.nan, batch.score))
    with pytest.raises(ValueError, match="target_card_epsilon has shape"):
        logged_pages(batch, batch.score, 0.1, np.full(7, 0.1))
    with pytest.raises(ValueError, match=r"no page is left to evaluate \(4 not displayed\)"):
        of(replace(batch, displayed=np.zeros(4, dtype=bool)))
