"""The listeners of the world: what they like, when and on what they listen, and how they differ.

A listener has a few interests (points near clusters), a direction in which the taste drifts, and a shift for each time
of day and device. All offsets are made of cluster vectors, so that they point to music that exists.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from bart.types import DEVICES, Floats, Floats32, Ints
from simulator.world.catalogue import Catalogue, around, draw_in_range, unit
from simulator.world.config import WorldConfig

BUCKETS = ("early morning", "morning", "afternoon", "evening", "late evening", "night")  # of the day, as in the paper
_HOURS = ((6, 9), (9, 12), (12, 17), (17, 21), (21, 25), (25, 30))
BUCKET_OF_HOUR: Ints = np.array(
    [next(b for b, (lo, hi) in enumerate(_HOURS) if lo <= h < hi or lo <= h + 24 < hi) for h in range(24)]
)
# Shares of sessions by local hour: 53.6 % in the afternoon and the evening.
_HOUR_WEIGHT = (
    20.0, 9.5, 7.0, 5.5, 5.5, 10.5, 27.0, 44.0, 51.0, 52.0, 53.0, 54.0,
    60.0, 60.5, 61.0, 62.0, 63.0, 65.5, 63.0, 60.0, 56.0, 49.0, 42.5, 33.5,
)  # fmt: skip
HOUR_SHARE: Floats = np.array(_HOUR_WEIGHT) / np.sum(_HOUR_WEIGHT)
_BUCKET_SHARE: Floats = np.array([HOUR_SHARE[b == BUCKET_OF_HOUR].sum() for b in range(len(BUCKETS))])
DEVICE_SHARE: Floats = np.array([0.883, 0.086, 0.013, 0.010, 0.008])  # in the order of DEVICES
_NOT_MOBILE: Floats = (np.arange(len(DEVICES)) != DEVICES.index("mobile"))[:, None].astype(np.float64)
N_TYPES = 4  # kinds of listeners: which explanations they take, how much they repeat
# Repeats, taste for the known, per type.
_REPEAT: Floats = np.array([0.16, -0.14, 0.02, -0.02])
_WISHED_POPULARITY: Floats = np.array([0.55, 0.35, 0.75, 0.30])


@dataclass(frozen=True, eq=False)
class Population:
    """L listeners. Arrays by listener; vectors point into the catalogue's latent space of d dimensions.

    interest [L, K, d] unit, interest_share [L, K]; drift [L, d] and drift_size [L]: where the taste has moved, relative
    to its start, when `days` have passed. by_bucket [L, 6, d], by_device [L, 5, d]: own shifts. common_bucket [6, d],
    common_device [5, d], common_weekend [2, d]: shifts that all listeners share. rate [L]: sessions a day. hour_share
    [L, 24], device_share [L, 5]. kind [L]: loyal, explorer, mainstream or specialist. repeat, skip,
    openness [L]: propensities. wished_popularity [L].
    patience [L]: standard normal, used by some ways of browsing. joined_at_s [L] UTC seconds. zone [L] into the zones.
    """

    interest: Floats32
    interest_share: Floats
    drift: Floats32
    drift_size: Floats
    by_bucket: Floats32
    by_device: Floats32
    common_bucket: Floats
    common_device: Floats
    common_weekend: Floats
    rate: Floats
    hour_share: Floats
    device_share: Floats
    kind: Ints
    repeat: Floats
    skip: Floats
    openness: Floats
    wished_popularity: Floats
    patience: Floats
    joined_at_s: Ints
    zone: Ints
    onboarding: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.rate)

    @cached_property
    def user_id(self) -> tuple[str, ...]:
        return tuple(f"u{i:06d}" for i in range(len(self)))

    def table(self, config: WorldConfig) -> pa.Table:
        """user_id, joined_at, country, tz, onboarding (item ids picked when the account was made)."""
        zone = self.zone.tolist()
        return pa.table(
            {
                "user_id": pa.array(self.user_id, pa.string()),
                "joined_at": pa.array(self.joined_at_s * 1_000_000, pa.timestamp("us", tz="UTC")),
                "country": pa.array([config.countries[z] for z in zone], pa.string()),
                "tz": pa.array([config.zones[z] for z in zone], pa.string()),
                "onboarding": pa.array([list(picks) for picks in self.onboarding], pa.list_(pa.string())),
            }
        )


def make_population(catalogue: Catalogue, config: WorldConfig, rng: np.random.Generator) -> Population:
    """`config.n_listeners` listeners of the given catalogue."""
    n, k = config.n_listeners, config.n_interests
    where, taste, shift, habit, picks = rng.spawn(5)
    zone = where.choice(len(config.zones), size=n, p=_falling(len(config.zones)))

    # Countries prefer some genres; interests come from two genres a listener as a rule.
    genre_log = 0.7 * where.standard_normal((len(config.zones), config.n_genres))
    cluster_log = 0.5 * catalogue.cluster_log_mass(catalogue.draw_table)[None] + genre_log[:, catalogue.cluster_genre]
    cluster_share = np.exp(cluster_log - cluster_log.max(axis=1, keepdims=True))
    cluster_share /= cluster_share.sum(axis=1, keepdims=True)
    cumulative = np.cumsum(cluster_share, axis=1)
    cluster = np.empty((n, k), dtype=np.int64)
    for j in range(k):
        u = taste.random(n)
        cluster[:, j] = np.minimum((cumulative[zone] < u[:, None]).sum(axis=1), config.n_clusters - 1)
        if j % 2:  # a neighbour: the cluster closest to a point near the interest before
            near = around(catalogue.cluster_vector[cluster[:, j - 1]], 0.9, taste)
            cluster[:, j] = np.argmax(near @ catalogue.cluster_vector.T, axis=1)
    interest = around(catalogue.cluster_vector[cluster], 0.4, taste)
    share = taste.dirichlet(np.array([4.0, 2.5] + [1.5] * (k - 2))[:k], size=n)

    def somewhere(shape: tuple[int, ...], parts: int) -> Floats:
        """Unit vectors made of a few clusters each."""
        picked = catalogue.cluster_vector[shift.integers(0, config.n_clusters, size=(*shape, parts))]
        return unit(picked.sum(axis=-2))

    age_d = habit.gamma(1.2, 700.0, size=n)
    during = habit.random(n) < config.new_listener_share
    joined_d = np.where(during, habit.random(n) * (config.days + config.visit_days), -np.minimum(age_d, 5_000.0))
    start_s = int(config.start.timestamp())
    kind = habit.integers(0, N_TYPES, size=n)
    # Parts of the day differ between listeners (a quarter never listens at night), hours within them do not.
    by_bucket = habit.dirichlet(_BUCKET_SHARE * 10.0, size=n)
    # The long tail is cut where a day would be full.
    rate = np.minimum(habit.gamma(config.rate_shape, 1.0 / config.rate_shape, size=n), 3.6)
    popularity = _WISHED_POPULARITY[kind] + 0.08 * habit.standard_normal(n)
    return Population(
        interest=interest.astype(np.float32),
        interest_share=share,
        drift=somewhere((n,), 1).astype(np.float32),
        drift_size=taste.uniform(0.2, 1.0, size=n),
        by_bucket=_centred(somewhere((n, len(BUCKETS)), 2)).astype(np.float32),
        by_device=(somewhere((n, len(DEVICES)), 2) * _NOT_MOBILE).astype(np.float32),
        common_bucket=_centred(somewhere((len(BUCKETS),), 3)),
        common_device=somewhere((len(DEVICES),), 3) * _NOT_MOBILE,
        common_weekend=somewhere((2,), 3) * np.array([[0.0], [1.0]]),
        rate=rate / rate.mean() * config.sessions_per_day,
        hour_share=by_bucket[:, BUCKET_OF_HOUR] * HOUR_SHARE / _BUCKET_SHARE[BUCKET_OF_HOUR],
        device_share=habit.dirichlet(DEVICE_SHARE * 6.0, size=n),
        kind=kind,
        repeat=np.clip(0.38 + _REPEAT[kind] + 0.05 * habit.standard_normal(n), 0.05, 0.8),
        skip=0.5 * habit.standard_normal(n),
        openness=0.25 * habit.standard_normal(n),
        wished_popularity=np.clip(popularity, 0.1, 0.95),
        patience=habit.standard_normal(n),
        joined_at_s=(start_s + (joined_d * 86_400).astype(np.int64)).astype(np.int64),
        zone=zone,
        onboarding=_onboarding(catalogue, cluster, picks),
    )


def _onboarding(catalogue: Catalogue, cluster: Ints, rng: np.random.Generator) -> tuple[tuple[str, ...], ...]:
    """Four well-known tracks from each listener's first clusters; different ones."""
    n = len(cluster)
    draws = cluster[np.arange(n)[:, None], rng.integers(0, min(3, cluster.shape[1]), size=(n, 4))]
    row = draw_in_range(catalogue.draw_table, catalogue.cluster_start, draws.ravel(), rng.random(4 * n)).reshape(n, 4)
    return tuple(tuple(catalogue.item_id[i] for i in dict.fromkeys(r)) for r in row.tolist())


def utc_offsets(zones: tuple[str, ...], start: dt.datetime, days: int) -> Ints:
    """[days, zones] minutes from UTC at noon of each day, daylight saving included."""
    noon = [start + dt.timedelta(days=d, hours=12) for d in range(days)]
    out = np.empty((days, len(zones)), dtype=np.int64)
    for z, name in enumerate(zones):
        info = ZoneInfo(name)
        for d, at in enumerate(noon):
            offset = at.astimezone(info).utcoffset()
            out[d, z] = 0 if offset is None else int(offset.total_seconds()) // 60
    return out


def _centred(by_bucket: Floats) -> Floats:
    """[..., 6, d] without their mean over the day: a shift is what differs from the usual, not one more taste."""
    out: Floats = by_bucket - np.einsum("b,...bd->...d", _BUCKET_SHARE, by_bucket)[..., None, :]
    return out


def _falling(n: int) -> Floats:
    share = 1.0 / np.arange(1, n + 1)
    out: Floats = share / share.sum()
    return out
