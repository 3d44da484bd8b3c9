"""Vectors for items that nobody has played yet: what their artists and genres let expect.

An item's vector is the mean of its artists' known items, drawn towards the mean of its genres where an artist has few,
and that towards the mean of all: the posterior mean of a two-level normal model with fixed strengths. It is measured by
hiding items that have a vector and asking whether the prediction finds their true neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bart.types import Bools, Floats32, Ints, ItemTable, Labels
from recommender.vectors.track import unit


@dataclass(frozen=True, slots=True)
class ContentConfig:
    """artist_strength, genre_strength: known items that weigh as much as what the level above expects."""

    artist_strength: float = 1.0
    genre_strength: float = 10.0

    def __post_init__(self) -> None:
        for name in ("artist_strength", "genre_strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")


def fill_vectors(items: ItemTable, config: ContentConfig | None = None) -> Floats32:
    """The items' vectors, [n, d], with an expected one where an item has none but has an artist or a genre in common
    with one that does; the others stay zero.
    """
    known = _has_vector(items)
    out = items.vector.copy()
    out[~known] = expected_vectors(items, known, config)[~known]
    return out


def expected_vectors(items: ItemTable, known: Bools, config: ContentConfig | None = None) -> Floats32:
    """What artists and genres let expect of every item, [n, d], learnt from the `known` ones: unit length or zero."""
    config = config or ContentConfig()
    vector = np.where(known[:, None], items.vector, 0).astype(np.float64)
    overall = vector[known].mean(axis=0) if known.any() else np.zeros(items.dimension)
    genre, artist = _membership(items.genres), _membership(items.artists)
    count = known.astype(np.float64)

    # [genres, d]: a genre's mean, drawn towards the mean of all
    genre_mean = (genre.T @ vector + config.genre_strength * overall) / (genre.T @ count + config.genre_strength)[
        :, None
    ]
    n_genres = np.asarray(genre.sum(axis=1)).reshape(-1, 1)
    by_genre = np.where(n_genres > 0, (genre @ genre_mean) / np.maximum(n_genres, 1), overall)

    # [artists, d]: how an artist's known items differ from their genres, drawn towards no difference
    differs = np.where(known[:, None], vector - by_genre, 0)
    artist_mean = (artist.T @ differs) / (artist.T @ count + config.artist_strength)[:, None]
    n_artists = np.asarray(artist.sum(axis=1)).reshape(-1, 1)
    expected = by_genre + (artist @ artist_mean) / np.maximum(n_artists, 1)

    support = (artist @ (artist.T @ count)) + (genre @ (genre.T @ count))
    return unit(np.where(support[:, None] > 0, expected, 0).astype(np.float32))


@dataclass(frozen=True, slots=True)
class ColdRecall:
    """Share of a hidden item's k true neighbours among the first `found` of its prediction, and of a random list."""

    recall: float
    chance: float
    hidden: int


def cold_recall(
    items: ItemTable,
    rng: np.random.Generator,
    *,
    share: float = 0.1,
    k: int = 10,
    found: int = 100,
    most: int = 2_000,
    config: ContentConfig | None = None,
) -> ColdRecall:
    """Hides a share of the items that have a vector and looks for their neighbours among the rest."""
    able = np.flatnonzero(items.vector.any(axis=1))
    hidden: Ints = np.sort(rng.permutation(able)[: min(max(int(share * len(able)), 1), most)])
    known = _has_vector(items)
    known[hidden] = False
    rest = np.flatnonzero(known)
    if len(rest) < found:
        raise ValueError(f"{len(rest)} items stay known; expected at least found = {found}")
    expected = expected_vectors(items, known, config)[hidden]
    truth = np.argpartition(-(items.vector[hidden] @ items.vector[rest].T), k - 1, axis=1)[:, :k]
    guess = np.argpartition(-(expected @ items.vector[rest].T), found - 1, axis=1)[:, :found]
    hit = [np.isin(t, g, assume_unique=True).mean() for t, g in zip(truth, guess, strict=True)]
    # an item of unknown artist and genre finds nothing, whatever the order of equal scores
    return ColdRecall(float(np.mean(np.array(hit) * expected.any(axis=1))), found / len(rest), len(hidden))


def _membership(labels: Labels) -> sp.csr_matrix:
    """[n, labels] of ones."""
    shape = (len(labels), len(labels.vocabulary))
    return sp.csr_matrix((np.ones(len(labels.code)), labels.code, labels.offset), shape=shape)


def _has_vector(items: ItemTable) -> Bools:
    has: Bools = np.asarray(items.vector.any(axis=1))
    return has
