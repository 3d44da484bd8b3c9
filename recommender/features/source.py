"""The features of a visit's candidates: a `bart.types.FeatureSource` over the tables of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bart.types import Candidates, CardFeatures, Context, Floats32, ItemTable, Listener
from bart.types.levels import UNKNOWN
from recommender.features.definitions import NAMES, bounds_of
from recommender.features.history import History
from recommender.features.tables import FeatureTables, Histories


def open_features(folder: Path, items: ItemTable) -> tuple[HistoryFeatures, Histories] | tuple[None, None]:
    """The features and the histories of a batch from its folder; none where it was built without."""
    tables = FeatureTables.load(folder)
    return (None, None) if tables is None else (HistoryFeatures(items, tables), Histories(items, tables))


class HistoryFeatures:
    """What is known of candidates from the history of whoever asks. Safe to use from several threads."""

    def __init__(self, items: ItemTable, tables: FeatureTables) -> None:
        self.items, self.tables = items, tables
        self._vector = np.ascontiguousarray(items.vector, dtype=np.float32)
        length = np.linalg.norm(tables.factor, axis=1).astype(np.float32)
        # In bytes, a step of its own for each item: fewer lines of memory to wait for.
        step = np.maximum(np.abs(tables.factor).max(axis=1, initial=0.0), 1e-12) / 127.0
        self._factor = np.rint(tables.factor / step[:, None]).astype(np.int8)
        self._fact_value = np.full((len(items), 8), np.nan, dtype=np.float32)  # see the kernel
        self._fact_value[:, 2] = items.popularity
        self._fact_value[: len(length), 3] = length[: len(items)]
        self._fact_value[: len(tables.of_all), 4:6] = tables.of_all[: len(items)]
        self._fact_value[: len(length), 7] = (step / np.maximum(length, 1e-12))[: len(items)]
        self._fact = self._fact_value.view(np.int32)
        self._fact[:, 0], self._fact[:, 1] = items.artists.first, items.genres.first
        self._bound = np.full((len(NAMES), UNKNOWN), np.inf, dtype=np.float32)  # padded, for the kernel
        self._bound[:, : tables.bound.shape[1]] = tables.bound
        self._fact[:, 6] = items.is_container
        for place, (name, column) in enumerate((("popularity", 2), ("all_plays", 4), ("all_skips", 5)), start=1):
            value = self._fact_value[:, column]
            level = np.searchsorted(self._bound[NAMES.index(name)], value, side="right")
            self._fact[:, 6] |= np.where(np.isnan(value), UNKNOWN, level).astype(np.int32) << 4 * place
        self._nobody = History.empty(items.dimension, tables.factor.shape[1]).arrays

    def features(self, listener: Listener, context: Context, candidates: Candidates) -> CardFeatures:
        from recommender.features.kernel import fill_levels  # numba loads only where pages are decided

        out = np.empty((len(candidates), len(NAMES)), dtype=np.uint8)
        given: tuple[Any, ...] = (*self._given(listener, context, candidates), self._bound, UNKNOWN, out)
        fill_levels(*given)
        return CardFeatures(NAMES, out)

    def values(self, listener: Listener, context: Context, candidates: Candidates) -> Floats32:
        """[n, features] the values behind the levels, NaN where not known."""
        from recommender.features.kernel import fill_values

        out = np.empty((len(candidates), len(NAMES)), dtype=np.float32)
        given: tuple[Any, ...] = (*self._given(listener, context, candidates), out)
        fill_values(*given)
        return out

    def _given(self, listener: Listener, context: Context, candidates: Candidates) -> tuple[Any, ...]:
        """What the kernels read."""
        from recommender.features.kernel import LANES

        of = listener.history or self._nobody
        interest = of["interest"][: LANES - 1]
        direction = np.zeros((len(listener.vector), LANES), dtype=np.float32)
        direction[:, 0], direction[:, 1 : 1 + len(interest)] = listener.vector, interest.T
        return (
            of["item"],
            of["plays"],
            of["skips"],
            of["last_s"],
            direction,
            of["weight"],
            of["factor"],
            context.at.timestamp(),
            candidates.item,
            self._vector,
            self._fact,
            self._fact_value,
            self._factor,
        )

    def calibrated(self, visits: Iterable[tuple[Listener, Context, Candidates]]) -> HistoryFeatures:
        """The same with the bounds of levels that the candidates of these visits give."""
        values = [self.values(*visit) for visit in visits]
        value = np.concatenate(values) if values else np.empty((0, len(NAMES)), dtype=np.float32)
        bound = np.stack([bounds_of(column, UNKNOWN) for column in value.T])
        return HistoryFeatures(self.items, self.tables.with_bounds(bound))
