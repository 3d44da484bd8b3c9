"""A world of queries: items, listeners with taste, a caller that finds results by their text, and who streams what.

A result is streamed, where it is looked at, by how relevant it is, how close to the listener's taste, and how popular;
the caller knows a noisy relevance alone. Each effect has a switch (`SearchParams`), without which the advantage that
it feeds vanishes. Listeners read from the top, stop at what they stream, and lose patience.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats, Floats32, Ints, ItemTable, Labels
from simulator.world.catalogue import unit


@dataclass(frozen=True, slots=True)
class SearchParams:
    """taste, popularity: weights in logits of the truth, 0 switches an effect off. noise: of the caller's relevance,
    in standard deviations of the cosine's own. blur: of the listener vectors that are known. patience: chance to look
    one place further without a stream. results: a list's length."""

    items: int = 1_500
    listeners: int = 400
    queries: int = 80
    results: int = 20
    dimension: int = 16
    genres: int = 24
    relevance: float = 3.0
    taste: float = 3.0
    popularity: float = 1.5
    level: float = -4.0
    noise: float = 0.8
    blur: float = 0.5
    patience: float = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class SearchWorld:
    """items: the catalogue. taste, known [listeners, d]: the truth, and what a listener model would say. relevant
    [queries, items]: cosine of query and item. found, score [queries, results]: what the caller finds, best first."""

    params: SearchParams
    items: ItemTable
    taste: Floats32
    known: Floats32
    relevant: Floats
    found: Ints
    score: Floats
    asked: Floats

    @classmethod
    def make(cls, params: SearchParams, rng: np.random.Generator) -> SearchWorld:
        """A world; asked [queries]: the share of each query."""
        n, d = params.items, params.dimension
        centre = _unit(rng.normal(size=(params.genres, d)))
        genre = rng.integers(params.genres, size=n)
        vector = _unit(centre[genre] + 0.25 * rng.normal(size=(n, d)))
        own = rng.integers(params.genres, size=(params.listeners, 2))
        taste = _unit(centre[own].sum(axis=1) + 0.15 * rng.normal(size=(params.listeners, d)))
        intent = _unit(centre[rng.integers(params.genres, size=(params.queries, 2))].sum(axis=1))
        relevant = (intent @ vector.T).astype(np.float64)
        heard = relevant + params.noise * relevant.std() * rng.normal(size=relevant.shape)
        found = np.argsort(-heard, axis=1, kind="stable")[:, : params.results]
        share = 1.0 / (1.0 + np.arange(params.queries))
        return cls(
            params,
            _table(vector, genre, rng.permutation(n) / n),
            taste,
            _unit(taste + params.blur * rng.normal(size=taste.shape) / np.sqrt(d)),
            relevant,
            found,
            np.take_along_axis(heard, found, axis=1) * 10,  # on a scale of the caller's own
            share / share.sum(),
        )

    def visits(self, n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Who asks what: listeners and queries, [n] each."""
        return rng.integers(self.params.listeners, size=n), rng.choice(self.params.queries, size=n, p=self.asked)

    def likes(self, listener: int, query: int, row: Ints) -> Floats:
        """P(stream | looked at) of results, [k]."""
        params, vector = self.params, self.items.vector[row]
        logit = params.level + params.relevance * self.relevant[query, row]
        logit = logit + params.taste * (vector @ self.taste[listener]) + params.popularity * self.items.popularity[row]
        out: Floats = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
        return out

    def value(self, listener: int, query: int, row: Ints) -> float:
        """P(a stream within the results) of this order, exactly."""
        p = self.likes(listener, query, row)
        looks = np.concatenate([[1.0], np.cumprod((1.0 - p[:-1]) * self.params.patience)])
        return float((looks * p).sum())

    def read(self, listener: int, query: int, row: Ints, rng: np.random.Generator) -> tuple[int, bool]:
        """How many results were looked at, and whether the last of them was streamed."""
        for place, p in enumerate(self.likes(listener, query, row).tolist()):
            if rng.random() < p:
                return place + 1, True
            if rng.random() >= self.params.patience:
                return place + 1, False
        return len(row), False


def _table(vector: Floats32, genre: Ints, popularity: Floats) -> ItemTable:
    n = len(vector)
    return ItemTable(
        item_id=np.array([f"s{k:05d}" for k in range(n)], dtype=object),
        title=np.array([f"Song {k}" for k in range(n)], dtype=object),
        type=np.zeros(n, dtype=np.int8),
        artists=Labels.of([[f"artist {k % 300}"] for k in range(n)]),
        genres=Labels.of([[f"genre {g}"] for g in genre.tolist()]),
        released_at=np.full(n, np.datetime64("NaT"), dtype="datetime64[D]"),
        countries=Labels.of([()] * n),
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=popularity,
        duration_s=np.full(n, 200.0),
        vector=vector,
    )


def _unit(x: Floats) -> Floats32:
    return unit(x).astype(np.float32)
