"""Truths of co-occurrence: counts equal counting by hand, and information is a logarithm of more than chance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recommender.vectors.cooccurrence import cooccurrences, positive_information
from recommender.vectors.factors import leading_factors
from recommender.vectors.sentences import Sentences


def counted(sentences: Sentences, n: int, window: int) -> np.ndarray:
    out = np.zeros((n, n))
    for start, end in zip(sentences.offset[:-1], sentences.offset[1:], strict=True):
        words = sentences.row[start:end]
        for i in range(len(words)):
            for j in range(len(words)):
                out[words[i], words[j]] += 0 < abs(i - j) <= window and words[i] != words[j]
    return out


@pytest.mark.parametrize("window", [1, 3, 50])
def test_counts_are_those_of_counting_every_pair(window: int) -> None:
    rng = np.random.default_rng(window)
    size = rng.integers(0, 9, 40)
    offset = np.concatenate([[0], np.cumsum(size)])
    said = Sentences(rng.integers(7, size=offset[-1]), offset)
    np.testing.assert_array_equal(cooccurrences(said, 7, window).toarray(), counted(said, 7, window))


def test_items_that_meet_by_chance_carry_no_information() -> None:
    share = np.array([0.1, 0.2, 0.3, 0.4])
    by_chance = sp.csr_matrix(1000 * np.outer(share, share))
    assert positive_information(by_chance, 1.0, 0.0, 0.0).toarray() == pytest.approx(0, abs=1e-6)


def test_information_without_smoothing_is_the_logarithm_of_observed_over_expected() -> None:
    count = np.array([[0, 6, 1], [6, 0, 2], [1, 2, 0]], dtype=float)
    total = count.sum(axis=1)
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(count * count.sum() / np.outer(total, total)), 0)
    np.testing.assert_allclose(positive_information(sp.csr_matrix(count), 1.0, 0.0, 0.0).toarray(), expected, rtol=1e-6)
    shifted = positive_information(sp.csr_matrix(count), 1.0, 0.0, 0.1).toarray()
    np.testing.assert_allclose(shifted, np.maximum(expected - 0.1, 0), atol=1e-6)


def test_a_pseudo_count_holds_back_rare_pairs_more_than_frequent_ones() -> None:
    once = np.kron(np.eye(2), [[0, 1], [1, 0]])
    told = [positive_information(sp.csr_matrix(k * once), 1.0, 1.0, 0.0).toarray()[0, 1] for k in (1, 10, 1000)]
    assert told[0] < told[1] < told[2]
    assert told[2] == pytest.approx(np.log(4), abs=0.01)


@pytest.mark.parametrize("n", [30, 500])
def test_factors_are_the_leading_eigenvectors(n: int) -> None:
    rng = np.random.default_rng(n)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    value = np.concatenate([[9, -8, 7, 6], np.linspace(1, -1, n - 4)])
    matrix = sp.csr_matrix(((basis * value) @ basis.T).astype(np.float32))
    found = leading_factors(matrix, 4, 0.5, rng)
    for k in range(4):
        assert abs(found[:, k] @ basis[:, k]) == pytest.approx(np.sqrt(abs(value[k])), rel=1e-3)


def test_rows_without_an_entry_and_columns_beyond_the_rows_are_zero() -> None:
    matrix = sp.csr_matrix(np.diag([0.0, 3.0, 0.0, 2.0, 1.0]))
    matrix.eliminate_zeros()
    found = leading_factors(matrix, 4, 0.5, np.random.default_rng(0))
    np.testing.assert_allclose((found**2).sum(axis=1), [0, 3, 0, 2, 1], rtol=1e-5)
    assert not found[:, 3].any()
    assert not leading_factors(sp.csr_matrix((3, 3)), 2, 0.5, np.random.default_rng(0)).any()
