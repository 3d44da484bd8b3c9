"""Bootstrap replicates of an estimate, from counts of rows, cells or users.

Every estimate is treated as a ratio, sum of a over sum of b (b is 1 for a plain mean), so a replicate and its standard
error need six sums, and all replicates are one product of counts [replicates, groups] with sums [groups, 5]. Groups
are the rows of a small log, cells of nearly equal rows of a large one (`bart.ope.intervals.cells`), or users when the
rows of one user are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.intervals.cells import cell_of, cell_sums
from bart.ope.records.terms import Terms
from bart.types import Floats, Ints

EXACT_ROWS = 5_000  # up to here every row is drawn by itself
CELL_BITS = 3  # an eighth to a sixteenth: takes at most .07 % of a standard error away
CHUNK = 2_000_000  # counts held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Replicates:
    """value: [replicates]. standard_error: [replicates], of each replicate, by the delta method.

    estimate, estimate_error: the same two of the log itself.
    """

    value: Floats
    standard_error: Floats
    estimate: float
    estimate_error: float


def bootstrap(terms: Terms, replicates: int, rng: np.random.Generator, user: NDArray[Any] | None = None) -> Replicates:
    """Replicates of the estimate: multinomial over rows, or Poisson over the users in `user` [n].

    Up to 5,000 rows every row is drawn; above, cells of rows within 6 to 12 % of one another. Estimators that
    normalise their weights and have a base or several positions enter by their linearised contributions.
    """
    if replicates < 2:
        raise ValueError(f"replicates is {replicates}; expected at least 2")
    a, b = _numerator_and_denominator(terms)
    n = len(terms)
    if user is not None:
        group, n_groups = _clusters(user, n)
        sums = cell_sums(group, n_groups, [a, b])
        moments = _moments(sums[:, 0], sums[:, 1])
        return _replicates(moments, moments.sum(axis=0), replicates, lambda size: rng.poisson(1.0, (size, n_groups)))
    if n <= EXACT_ROWS:
        moments = _moments(a, b)
        return _replicates(moments, moments.sum(axis=0), replicates, lambda size: _row_counts(n, size, rng))
    # Cells by weight and reward tell a ratio's rows apart; a mean needs its contributions alone.
    ratio = terms.normalised and _is_ratio(terms)
    cell, n_cells = cell_of([terms.weight, terms.residual] if ratio else [a], CELL_BITS)
    count = np.bincount(cell, minlength=n_cells)
    sums = cell_sums(cell, n_cells, _products(a, b))
    share = count / n
    return _replicates(
        sums / count[:, None], sums.sum(axis=0), replicates, lambda size: rng.multinomial(n, share, size=size)
    )


def _is_ratio(terms: Terms) -> bool:
    return terms.weight.ndim == 1 and terms.base_limits == (0.0, 0.0)


def _numerator_and_denominator(terms: Terms) -> tuple[Floats, Floats]:
    if terms.normalised and _is_ratio(terms):
        return terms.weight * terms.residual, terms.weight
    return terms.influence(), np.broadcast_to(np.float64(1), len(terms))


def _products(a: Floats, b: Floats) -> Iterator[Floats]:
    """a, b, a^2, a b, b^2, one at a time: all five together would be the largest thing in memory."""
    yield a
    yield b
    yield a * a
    yield a * b
    yield b * b


def _moments(a: Floats, b: Floats) -> Floats:
    """[rows, 5]: the five products side by side."""
    return np.stack(list(_products(a, b)), axis=1)


def _replicates(moments: Floats, whole: Floats, replicates: int, counts: Callable[[int], Ints]) -> Replicates:
    sums = np.empty((replicates, moments.shape[1]))
    chunk = max(CHUNK // len(moments), 1)
    for start in range(0, replicates, chunk):
        stop = min(start + chunk, replicates)
        sums[start:stop] = counts(stop - start).astype(np.float64) @ moments
    value, error = _ratio(sums)
    estimate, estimate_error = _ratio(whole[None, :])
    return Replicates(value, error, float(estimate[0]), float(estimate_error[0]))


def _ratio(sums: Floats) -> tuple[Floats, Floats]:
    """Ratio and its standard error from sums [m, 5]; NaN where nothing was drawn that has weight."""
    a, b, aa, ab, bb = sums.T
    safe = np.where(b > 0, b, np.nan)
    value = a / safe
    square = aa - 2 * value * ab + value**2 * bb
    return value, np.sqrt(np.maximum(square, 0.0)) / safe


def _row_counts(n: int, size: int, rng: np.random.Generator) -> Ints:
    """[size, n] how often each row is drawn in each replicate."""
    drawn = rng.integers(0, n, (size, n))
    drawn += (np.arange(size) * n)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def _clusters(user: Ints, n: int) -> tuple[Ints, int]:
    array = np.asarray(user)
    if array.shape != (n,):
        raise ValueError(f"user has shape {array.shape}; expected ({n},), one a row")
    distinct, group = np.unique(array, return_inverse=True)
    if len(distinct) < 2:
        raise ValueError(f"user has {len(distinct)} distinct value; expected at least 2 to draw from")
    return group.astype(np.int64), len(distinct)
