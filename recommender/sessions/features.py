"""How a session becomes numbers for a sequence model: codes, scaled logarithms and their order (section 5.1.2).

Shared by the network and by its serving form, and free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bart.types import Floats, Floats32, Ints
from recommender.sessions.table import N_DEVICES

PATHWAYS = ("played", "skipped", "all")  # session vectors that a pathway may read
FEATURES = ("last", "context", "tracks", "gap", "source")  # groups of the paper's Table 3; "current_source" on top
AGE_EDGES_D = (1.0, 7.0, 30.0, 90.0, 365.0, 1095.0)  # account ages told apart in the initial state
N_AGES = len(AGE_EDGES_D) + 2  # bucket 0 is an unknown age


def feature_slices(features: Sequence[str], dimension: int, n_sources: int) -> dict[str, slice]:
    """Where each of the given groups stands in a pathway's feature vector; the order is fixed, not the caller's."""
    width = {"weekday": 7, "hour": 24, "device": N_DEVICES, "last": dimension, "tracks": 1, "gap": 1}
    out: dict[str, slice] = {}
    start = 0
    for name in ("weekday", "hour", "device", "last", "tracks", "gap", "source", "current_source"):
        if (name if name not in ("weekday", "hour", "device") else "context") in features:
            out[name] = slice(start, start + width.get(name, n_sources))
            start = out[name].stop
    return out


def vector_scale(dimension: int) -> float:
    """What unit vectors are multiplied by as features: their components then vary by about one, as one-hots do.

    Unscaled they hardly reach an LSTM through weights of the usual size, and learning to read them takes many epochs.
    """
    return float(np.sqrt(dimension))


def log_tracks(n_tracks: Ints) -> Floats32:
    """The number of tracks as a feature: log1p, about centred."""
    return np.asarray(np.log1p(n_tracks) - 2, dtype=np.float32)


def log_gap(gap_s: Floats) -> Floats32:
    """The time since the last session as a feature: half the log of hours; 0 where there was none (NaN)."""
    return np.where(np.isnan(gap_s), 0, np.log(np.nan_to_num(gap_s) / 3600 + 0.1) / 2).astype(np.float32)


def log_gap_of(gap_s: float | None) -> float:
    """`log_gap` of one listener, None where there was no session."""
    return 0.0 if gap_s is None else math.log(gap_s / 3600 + 0.1) / 2


def age_bucket(account_age_d: Floats) -> Ints:
    """Bucket of each account's age, [users]; 0 where unknown."""
    bucket = 1 + np.searchsorted(AGE_EDGES_D, np.nan_to_num(account_age_d), side="right")
    return np.where(np.isnan(account_age_d), 0, bucket).astype(np.int64)
