"""Each factorization puts listeners of one taste nearer together than listeners of two."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recommender.transfer.factorizations import FACTORIZATIONS, als


def two_tastes(rng: np.random.Generator, n: int = 60, m: int = 80) -> sp.csr_matrix:
    """Listeners of even and of odd number play items of even and of odd number."""
    chance = np.where((np.arange(n)[:, None] + np.arange(m)) % 2 == 0, 0.5, 0.03)
    return sp.csr_matrix((rng.random((n, m)) < chance).astype(np.float32) * rng.integers(1, 5, (n, m)))


@pytest.mark.parametrize("name", FACTORIZATIONS)
def test_listeners_of_one_taste_lie_together(name: str) -> None:
    plays = two_tastes(np.random.default_rng(0))
    u, v = FACTORIZATIONS[name](plays, 4, np.random.default_rng(1))
    assert u.shape == (60, 4)
    assert v.shape[0] == 80
    unit = u / np.linalg.norm(u, axis=1, keepdims=True)
    near = unit @ unit.T
    same = (np.arange(60)[:, None] + np.arange(60)) % 2 == 0
    assert near[same & ~np.eye(60, dtype=bool)].mean() > near[~same].mean() + 0.3


@pytest.mark.parametrize("name", FACTORIZATIONS)
def test_equal_seeds_give_equal_factors(name: str) -> None:
    plays = two_tastes(np.random.default_rng(0))
    one, other = (FACTORIZATIONS[name](plays, 4, np.random.default_rng(2))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_als_comes_to_the_least_squares_solution_of_each_listener() -> None:
    plays = two_tastes(np.random.default_rng(3))
    u, v = als(plays, 4, np.random.default_rng(4), ridge=1.0, alpha=2.0)
    confidence = 2.0 * np.log1p(plays.toarray())
    for row in (0, 7):
        gram = v.T @ v + (v * confidence[row][:, None]).T @ v + np.eye(4)
        right = ((1 + confidence[row]) * (confidence[row] > 0)) @ v
        np.testing.assert_allclose(u[row], np.linalg.solve(gram, right), atol=0.02)
