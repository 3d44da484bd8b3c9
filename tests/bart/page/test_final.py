"""Final scores: what serving draws by is what the evaluation of another model on the same page draws by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest

from bart.page.final import batch_final_scores, final_score

PAGES, N = 8, 35


def log():
    rng = np.random.default_rng(1)
    batch = world.batch(rng, pages=PAGES, raw_score=rng.normal(size=PAGES * N))
    vector = rng.normal(size=(N, 4)).astype(np.float32)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    factor = np.where(rng.random(PAGES * N) < 0.3, 2.0, 1.0)
    add = np.where(factor > 1, 0.1, 0.0)
    relevance = np.where(np.arange(PAGES) % 2, 0.6, np.nan)
    return replace(batch, boost_factor=factor, boost_add=add, relevance=relevance, vector=vector)


def test_another_models_scores_are_moved_as_serving_would_move_them() -> None:
    batch = log()
    other = np.random.default_rng(2).random(PAGES * N)
    found = batch_final_scores(batch, other)
    for i in range(PAGES):
        part = slice(i * N, (i + 1) * N)
        expected = final_score(
            other[part],
            batch.shelf[part],
            batch.boost_factor[part],
            batch.boost_add[part],
            None if np.isnan(batch.relevance[i]) else float(batch.relevance[i]),
            batch.vector[batch.item[part]],
        )
        assert (found.card[part] == expected).all()
    assert (found.shelf == other).all()
    assert not found.logging.any()
    assert not found.untold.any()


@pytest.mark.parametrize("which", ["raw_score", "score"])
def test_the_recorded_scores_are_those_of_the_policy_that_served(which: str) -> None:
    batch = log()
    found = batch_final_scores(batch, getattr(batch, which) * (1 + 1e-14))
    assert found.logging.all()
    assert (found.card == batch.score).all()
    assert (found.shelf == batch.raw_score).all()


def test_pages_that_do_not_say_what_moved_their_scores_are_told() -> None:
    batch = replace(log(), boost_factor=None, boost_add=None)
    other = np.random.default_rng(2).random(PAGES * N)
    assert (batch_final_scores(batch, other).untold == np.isnan(batch.relevance)).all()
    assert batch_final_scores(replace(batch, vector=None), other).untold.all()


def test_a_score_beyond_the_largest_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score\[1\] of 1e\+308 is inf after boosts"):
        final_score(np.array([0.0, 1e308]), np.zeros(2, np.int64), np.full(2, 10.0), np.zeros(2), None, None)
