"""Each factorization and each network puts listeners of one taste nearer together than listeners of two."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recommender.transfer.factorizations import FACTORIZATIONS, als
from recommender.transfer.networks import NETWORKS, Sides, network_vectors


def two_tastes(rng: np.random.Generator, n: int = 60, m: int = 80) -> sp.csr_matrix:
    """Listeners of even and of odd number play items of even and of odd number."""
    chance = np.where((np.arange(n)[:, None] + np.arange(m)) % 2 == 0, 0.5, 0.03)
    return sp.csr_matrix((rng.random((n, m)) < chance).astype(np.float32) * rng.integers(1, 5, (n, m)))


def vectors(name: str, seed: int) -> np.ndarray:
    """Of listeners of two tastes; nothing is known of anybody, so that plays alone tell them apart."""
    plays = two_tastes(np.random.default_rng(0))
    if name in FACTORIZATIONS:
        return FACTORIZATIONS[name](plays, 4, np.random.default_rng(seed))[0]
    nothing = Sides(plays, np.full((60, 1), -1), np.full((80, 2), -1), np.zeros((60, 1), np.float32))
    # Networks make as many passes over few plays as over many: of so few they need more.
    return NETWORKS[name](nothing, 4, seed, epochs={"VAE-CF": 150, "LightFM": 150, "DLRM": 300}[name])  # type: ignore[call-arg]


@pytest.mark.parametrize("name", [*FACTORIZATIONS, *NETWORKS])
def test_listeners_of_one_taste_lie_together(name: str) -> None:
    u = vectors(name, 1)
    assert u.shape == (60, 4)
    u = u - u.mean(axis=0)  # what is the same for all tells nobody apart
    unit = u / np.linalg.norm(u, axis=1, keepdims=True)
    near = unit @ unit.T
    same = (np.arange(60)[:, None] + np.arange(60)) % 2 == 0
    assert near[same & ~np.eye(60, dtype=bool)].mean() > near[~same].mean() + 0.3


@pytest.mark.parametrize("name", FACTORIZATIONS)
def test_equal_seeds_give_equal_factors(name: str) -> None:
    plays = two_tastes(np.random.default_rng(0))
    one, other = (FACTORIZATIONS[name](plays, 4, np.random.default_rng(2))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_seeds_give_equal_networks_and_leave_the_generator_of_others_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    sides = Sides(
        two_tastes(rng), rng.integers(-1, 3, (60, 1)), rng.integers(-1, 5, (80, 2)), np.eye(60, dtype=np.float32)
    )
    before = torch.random.get_rng_state()
    one, other = (network_vectors(name, sides, 4, 2) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_als_comes_to_the_least_squares_solution_of_each_listener() -> None:
    plays = two_tastes(np.random.default_rng(3))
    u, v = als(plays, 4, np.random.default_rng(4), ridge=1.0, alpha=2.0)
    confidence = 2.0 * np.log1p(plays.toarray())
    for row in (0, 7):
        gram = v.T @ v + (v * confidence[row][:, None]).T @ v + np.eye(4)
        right = ((1 + confidence[row]) * (confidence[row] > 0)) @ v
        np.testing.assert_allclose(u[row], np.linalg.solve(gram, right), atol=0.02)
