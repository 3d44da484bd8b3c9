"""A head finds what its representation carries, and says so on listeners that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from bart.errors import DataError
from recommender.transfer.heads import VECTOR, Labelled, auc, fit_head, judged, r2


def world(rng: np.random.Generator, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Vectors that carry a truth, and others that do not."""
    return tuple(rng.standard_normal((n, 6)).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def test_two_values_are_told_apart_by_the_vector_that_carries_them_alone() -> None:
    rng = np.random.default_rng(0)
    carries, empty = world(rng)
    told = Labelled(np.arange(300), None, np.where(carries[:, 0] + 0.3 * rng.standard_normal(300) > 0, 7.0, 2.0))
    head, lines = judged({VECTOR: carries, "noise": empty}, None, told, rng)
    ours, theirs = lines
    assert ours["measure"] == "auc"
    assert ours["value"] > 0.9
    assert abs(theirs["value"] - 0.5) < 0.25
    assert theirs["interval"][0] > 0
    assert head.values == (2.0, 7.0)
    assert auc(head.predict(carries, None), told.label) > 0.9


def test_numbers_are_predicted_and_a_constant_shift_of_them_shifts_the_predictions() -> None:
    rng = np.random.default_rng(1)
    carries, _ = world(rng)
    label = carries @ np.arange(6) + 0.1 * rng.standard_normal(300)
    told, moved = (Labelled(np.arange(300), None, label + shift) for shift in (0.0, 50.0))
    one, other = (fit_head(carries, None, part, 1.0).predict(carries, None) for part in (told, moved))
    assert r2(one, label) > 0.98
    np.testing.assert_allclose(other - one, 50.0, atol=1e-6)


def test_pairs_are_predicted_from_the_product_of_both_sides() -> None:
    rng = np.random.default_rng(2)
    user, _ = world(rng, 80)
    side = rng.standard_normal((50, 6)).astype(np.float32)
    who, what = rng.integers(0, 80, 4000), rng.integers(0, 50, 4000)
    label = ((user[who] * side[what]).sum(axis=1) > 0).astype(float)
    _, lines = judged({VECTOR: user}, side, Labelled(who, what, label), rng)
    assert lines[0]["value"] > 0.9


def test_few_listeners_and_one_label_alone_are_refused() -> None:
    rng = np.random.default_rng(3)
    carries, _ = world(rng)
    with pytest.raises(DataError, match="expected at least 20"):
        judged({VECTOR: carries}, None, Labelled(np.arange(9), None, np.arange(9.0) % 2), rng)
    rare = (np.arange(300) == 5).astype(float)
    with pytest.raises(DataError, match="one label"):
        judged({VECTOR: carries}, None, Labelled(np.arange(300), None, rare), rng)


def test_auc_counts_ties_as_half() -> None:
    assert auc(np.zeros(4), np.array([0, 1, 0, 1.0])) == 0.5
    assert auc(np.array([1, 2, 3.0]), np.array([0, 1, 1.0])) == 1.0
