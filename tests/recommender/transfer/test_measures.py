"""AUC and nDCG are what their definitions say, worked out by counting."""

from __future__ import annotations

import numpy as np
import pytest

from recommender.transfer.clusters import ndcg
from recommender.transfer.protocol import aucs
from recommender.transfer.task import Pairs


@pytest.fixture
def pairs() -> Pairs:
    rng = np.random.default_rng(0)
    return Pairs(rng.integers(0, 5, 200), rng.integers(0, 9, 200), (rng.random(200) < 0.4).astype(np.float32))


def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: Pairs) -> None:
    score = np.random.default_rng(1).permutation(200).astype(np.float64) - 100
    found = aucs(score, pairs)
    for user in range(5):
        yes, no = (score[(pairs.user == user) & (pairs.played == played)] for played in (1, 0))
        assert found["auc"][user] == pytest.approx(np.mean(yes[:, None] > no))
    yes, no = (score[pairs.played == played] for played in (1, 0))
    assert found["pooled"][0] == pytest.approx(np.mean(yes[:, None] > no))
    own = pairs.user == 3
    assert found["accuracy"][3] == pytest.approx(np.mean((score > 0)[own] == (pairs.played > 0)[own]))


def test_a_listener_without_both_kinds_has_no_auc() -> None:
    pairs = Pairs(np.array([0, 0, 4]), np.array([1, 2, 3]), np.array([1, 0, 1], np.float32))
    assert aucs(np.array([2.0, 1.0, 1.0]), pairs)["auc"].tolist()[:1] == [1.0]
    assert np.isnan(aucs(np.array([2.0, 1.0, 1.0]), pairs)["auc"][1])


def test_neighbours_who_share_most_come_first_or_cost_their_discount() -> None:
    shared = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    near = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    assert ndcg(near, shared).tolist() == pytest.approx([1.0] * 4)
    far = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], np.float32)
    worst = ndcg(far, shared, first=3)
    assert (worst < 1).all()
    assert worst[0] == pytest.approx(1 / np.log2(worst_place(far, 0, 1) + 2))


def worst_place(vector: np.ndarray, own: int, other: int) -> int:
    """At which place, from 0, another row stands among the nearest."""
    unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    near = unit @ unit[own]
    near[own] = -np.inf
    return int(np.argsort(-near, kind="stable").tolist().index(other))


def test_who_shares_nothing_with_anybody_has_no_ndcg() -> None:
    assert np.isnan(ndcg(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))).all()
