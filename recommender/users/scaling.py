"""How features become numbers for the encoder: about zero, each group of unit size, and a sign of what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bart.types import Floats32, Ints
from recommender.users.features import GROUP_NAMES, VECTORS, presence


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """mean, factor [width] of features; slices of their groups, in the order of `GROUPS`.

    A group of directions is scaled as one, so that its geometry stays; others are scaled each by its own deviation.
    """

    mean: Floats32
    factor: Floats32
    slices: Mapping[str, slice]

    @classmethod
    def of(cls, value: Floats32, slices: Mapping[str, slice]) -> Scaling:
        """From features [n, width], NaN where not known."""
        known = np.isfinite(value)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, value, 0).astype(np.float64)
        mean = filled.sum(axis=0) / count
        square = np.where(known, (filled - mean) ** 2, 0).sum(axis=0) / count
        factor = np.zeros(value.shape[1])
        for name, of in slices.items():
            size = square[of].mean() if name in VECTORS else square[of]
            factor[of] = np.where(size > 1e-12, 1.0 / np.sqrt(np.maximum(size, 1e-12)), 0.0)
        return cls(mean.astype(np.float32), factor.astype(np.float32), dict(slices))

    def inputs(self, value: Floats32) -> Floats32:
        """[n, width + groups] scaled features, 0 where not known, and 1 for each group of which something is."""
        known = np.isfinite(value)
        scaled = np.where(known, (value - self.mean) * self.factor, 0).astype(np.float32)
        np.clip(scaled, -8, 8, out=scaled)
        return np.concatenate([scaled, presence(value, self.slices).astype(np.float32)], axis=1)

    @property
    def width(self) -> int:
        return len(self.mean)

    def group_of(self) -> Ints:
        """[width + groups] number of the group of each input."""
        own = np.empty(self.width, dtype=np.int64)
        for number, name in enumerate(GROUP_NAMES):
            own[self.slices[name]] = number
        return np.concatenate([own, np.arange(len(GROUP_NAMES))])
