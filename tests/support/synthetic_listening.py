"""The smallest listening data with the effects that the listener models are about.

Taste is a direction of each listener, moved by the hour in the same way for everybody and by a slow drift of their own.
The simulator has a whole world; this is a few lines whose truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bart.types import Floats32
from recommender.sessions.table import unit

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Synthetic:
    """events: the event table. item_id: [n] ids; vector: [n, d] unit vectors."""

    events: pa.Table
    item_id: tuple[str, ...]
    vector: Floats32


def synthetic_listening(
    rng: np.random.Generator,
    *,
    users: int = 24,
    days: int = 30,
    items: int = 400,
    dimension: int = 8,
    context_effect: float = 1.0,
    drift: float = 0.3,
) -> Synthetic:
    """Two sessions a day for each listener, mornings on a desktop and evenings on a mobile, of six tracks each.

    context_effect: how far the hour moves taste (0 switches it off). drift: standard deviation of the step that taste
    takes from one session to the next, as a share of it (0 switches sequence effects off).
    """
    import pyarrow as pa

    vector = unit(rng.standard_normal((items, dimension)).astype(np.float32))
    taste = unit(rng.standard_normal((users, dimension)).astype(np.float32))
    moved = context_effect * unit(rng.standard_normal((2, dimension)).astype(np.float32))
    midnight = np.datetime64("2024-03-01T00:00:00", "us")
    user, item, started, skipped, device = [], [], [], [], []
    for day in range(days):
        for part, hour in enumerate((8, 19)):
            taste = unit(taste + drift * rng.standard_normal(taste.shape).astype(np.float32) / np.sqrt(dimension))
            score = unit(taste + moved[part]) @ vector.T  # [users, items]
            chosen = np.argsort(-score - 0.3 * rng.gumbel(size=score.shape), axis=1)[:, :6]
            start = midnight + np.timedelta64(day * 24 * 60 + hour * 60, "m")
            late = rng.integers(0, 60, users).astype("timedelta64[m]")
            for u in range(users):
                user += [f"listener-{u:03d}"] * 6
                item += [f"item-{i:05d}" for i in chosen[u]]
                started += [start + late[u] + np.timedelta64(200 * k, "s") for k in range(6)]
                skipped += (np.argsort(np.argsort(score[u, chosen[u]])) < 2).tolist()  # the two liked least
                device += [("desktop", "mobile")[part]] * 6
    events = pa.table(
        {
            "user_id": user,
            "item_id": item,
            "started_at": pa.array(np.array(started), pa.timestamp("us", "UTC")),
            "utc_offset_min": pa.array([0] * len(user), pa.int32()),
            "listened_s": np.where(skipped, 10.0, 190.0),
            "skipped": skipped,
            "device": device,
            "source": ["playlist" if s else "library" for s in rng.random(len(user)) < 0.5],
            "duration_s": np.full(len(user), 190.0),
        }
    )
    return Synthetic(events, tuple(f"item-{i:05d}" for i in range(items)), vector)
