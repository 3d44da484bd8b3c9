"""Maximal Marginal Relevance as a change of score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bart.page.policy import diversify
from bart.types import Floats, Floats32, Ints


def vectors(n: int, rng: np.random.Generator) -> Floats32:
    drawn = rng.normal(size=(n, 5))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def by_definition(score: Floats, vector: Floats32, relevance: float) -> list[int]:
    """The list that Carbonell and Goldstein build for one shelf."""
    picked: list[int] = []
    while len(picked) < len(score):
        left = [c for c in range(len(score)) if c not in picked]
        similarity = [max([0.0, *(float(vector[c] @ vector[p]) for p in picked)]) for c in left]
        value = [relevance * score[c] - (1 - relevance) * s for c, s in zip(left, similarity, strict=True)]
        picked.append(left[int(np.argmax(value))])
    return picked


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.6, 0.9]))
def test_descending_order_in_each_shelf_is_the_list_by_definition(seed: int, relevance: float) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    score, shelf, vector = rng.random(n), rng.integers(0, 4, size=n), vectors(n, rng)
    out = diversify(score, shelf, vector, relevance)
    for s in np.unique(shelf):
        member = np.flatnonzero(shelf == s)
        assert np.argsort(-out[member], kind="stable").tolist() == by_definition(
            score[member], vector[member], relevance
        )


def test_relevance_one_leaves_scores_and_the_input_alone() -> None:
    rng = np.random.default_rng(0)
    score, shelf, vector = rng.random(10), np.zeros(10, dtype=np.int64), vectors(10, rng)
    kept = score.copy()
    np.testing.assert_array_equal(diversify(score, shelf, vector, 1.0), score)
    diversify(score, shelf, vector)
    np.testing.assert_array_equal(score, kept)


def test_a_near_copy_of_the_best_card_falls_behind_a_different_one() -> None:
    vector = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    out = diversify(np.array([0.9, 0.8, 0.5]), np.zeros(3, dtype=np.int64), vector)
    assert out[0] > out[2] > out[1]


def test_shelves_do_not_affect_one_another_and_held_out_cards_keep_their_score() -> None:
    rng = np.random.default_rng(1)
    score, vector = rng.random(8), vectors(8, rng)
    shelf = np.array([0, 1, 0, -1, 1, 0, -1, 1])
    out = diversify(score, shelf, vector)
    np.testing.assert_array_equal(out[shelf == -1], score[shelf == -1])
    alone = diversify(score[shelf == 1], np.zeros(3, dtype=np.int64), vector[shelf == 1])
    np.testing.assert_allclose(out[shelf == 1], alone, rtol=0, atol=1e-7)


def test_cards_without_a_vector_are_ranked_by_score() -> None:
    score = np.array([0.2, 0.9, 0.5])
    out = diversify(score, np.zeros(3, dtype=np.int64), np.zeros((3, 4), dtype=np.float32))
    np.testing.assert_allclose(out, 0.6 * score)
    none: Ints = np.empty(0, dtype=np.int64)
    assert len(diversify(np.empty(0), none, np.empty((0, 4), dtype=np.float32))) == 0


def test_bad_input_is_refused_by_name() -> None:
    score, shelf, vector = np.zeros(2), np.zeros(2, dtype=np.int64), np.ones((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"relevance is 1.5; expected a number in \[0, 1\]"):
        diversify(score, shelf, vector, 1.5)
    with pytest.raises(ValueError, match=r"vectors \(1, 3\) must be"):
        diversify(score, shelf, vector[:1])
    with pytest.raises(ValueError, match=r"score\[0\] is nan"):
        diversify(np.array([np.nan, 0]), shelf, vector)
    vector[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"vectors\[1\] is not finite"):
        diversify(score, shelf, vector)
