"""How often items stand near each other in sentences, and how much oftener than chance would have it.

Pointwise mutual information of windowed co-occurrence, positive part, context counts smoothed (Levy, Goldberg and Dagan
2015, "Improving Distributional Similarity with Lessons Learned from Word Embeddings"). Departures: the smoothing is
shared by both sides, so that the matrix is symmetric and half the products suffice; and observed and expected counts
both get a pseudo-count, since of a pair that met once little is known (the information of rare pairs is overstated).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from recommender.vectors.sentences import Sentences

_PAIRS_TOGETHER = 4_000_000  # pairs added to the counts at once: 50 MB


def cooccurrences(sentences: Sentences, n_items: int, window: int) -> Any:
    """[n, n] symmetric sparse counts of pairs at most `window` apart in a sentence; no item meets itself."""
    size = np.diff(sentences.offset)
    row = sentences.row.astype(np.int32)
    sentence = np.repeat(np.arange(len(size), dtype=np.int32), size)
    shape = (n_items, n_items)
    total = sp.csr_matrix(shape, dtype=np.float32)
    left, right, waiting = [], [], 0
    furthest = min(window, int(size.max(initial=0)) - 1)
    for apart in range(1, furthest + 1):
        near = np.flatnonzero((sentence[apart:] == sentence[:-apart]) & (row[apart:] != row[:-apart]))
        left.append(row[near])
        right.append(row[near + apart])
        waiting += len(near)
        if waiting > _PAIRS_TOGETHER or apart == furthest:
            a, b = np.concatenate(left), np.concatenate(right)
            total = total + sp.coo_matrix((np.ones(len(a), dtype=np.float32), (a, b)), shape=shape).tocsr()
            left, right, waiting = [], [], 0
    return _both_ways(total)


def _both_ways(total: Any) -> Any:
    """A matrix and its transpose added up; the former is given up."""
    other = total.T.tocsr()
    return total + other


def positive_information(count: Any, smoothing: float, pseudo_count: float, shift: float) -> Any:
    """[n, n] sparse, max(0, log((count + c) / (expected + c)) - shift), c the pseudo-count; 0 where nothing met.

    expected: of pairs drawn at random, each item by its count to the power (1 + smoothing) / 2. smoothing: 1 for the
    counts as they are; below it frequent items are expected less often. count: symmetric, [n, n].
    """
    total = np.asarray(count.sum(axis=1), dtype=np.float64).ravel()
    share = total ** ((1 + smoothing) / 2)
    share *= np.sqrt(total.sum()) / max(share.sum(), 1e-300)
    share = share.astype(np.float32)
    value = np.empty(count.nnz, dtype=np.float32)
    ends = count.indptr
    first = 0
    while first < len(total):  # some rows at once: many pairs take memory four times over
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + _PAIRS_TOGETHER, side="right")) - 1)
        some = slice(int(ends[first]), int(ends[last]))
        expected = np.repeat(share[first:last], np.diff(ends[first : last + 1])) * share[count.indices[some]]
        met = (count.data[some] + np.float32(pseudo_count)) / (expected + np.float32(pseudo_count))
        value[some] = np.maximum(np.log(met) - np.float32(shift), 0)
        first = last
    out = sp.csr_matrix((value, count.indices, count.indptr), shape=count.shape)
    out.eliminate_zeros()
    return out
