"""The world: its configuration, its catalogue and listeners, and what a listener feels like hearing at a moment.

Everything follows from a configuration and a seed. What a listener wants is a point in the latent space of the tracks,
    taste = interests + drift + shifts by time of day, device and weekend, common to all and the listener's own,
and both the listening history and the reading of a home page start from it. Each effect has a switch.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from bart.types import Floats, Ints, Strings
from simulator.world.appeal import AppealConfig, appeal
from simulator.world.catalogue import Catalogue, make_catalogue, make_playlists, unit
from simulator.world.population import BUCKET_OF_HOUR, Population, make_population, utc_offsets

ZONES = (
    ("US", "America/New_York"), ("GB", "Europe/London"), ("DE", "Europe/Berlin"), ("BR", "America/Sao_Paulo"),
    ("MX", "America/Mexico_City"), ("FR", "Europe/Paris"), ("SE", "Europe/Stockholm"), ("ES", "Europe/Madrid"),
    ("IT", "Europe/Rome"), ("AU", "Australia/Sydney"), ("JP", "Asia/Tokyo"), ("IN", "Asia/Kolkata"),
)  # fmt: skip


HIDDEN_TERMS = ("quality", "explanation", "interest", "popularity_mismatch", "tired", "overplayed", "shown_again")


@dataclass(frozen=True, slots=True)
class Effects:
    """Switches, one an effect; off means that the effect does not exist, while all random draws stay the same.

    On listening: common_context (all listeners move alike with hour and device), own_context (each in a way of their
    own), drift (taste moves over weeks), persistence (a session resembles the last ones), mood (autoregressive noise),
    repeats (known tracks come again). On the home page: explanation (who takes which reason for a shelf), fatigue
    (artists one is tired of, hits heard too often, cards shown again and again), curved_taste (taste is not linear).
    """

    common_context: bool = True
    own_context: bool = True
    drift: bool = True
    persistence: bool = True
    mood: bool = True
    repeats: bool = True
    explanation: bool = True
    fatigue: bool = True
    curved_taste: bool = True

    @classmethod
    def without(cls, names: Iterable[str]) -> Effects:
        """All effects but the named ones; "context" and "sequence" name all of their kind (`EFFECT_GROUPS`).

        Raises ValueError for a name that is no effect.
        """
        known = [f.name for f in fields(cls)]
        off = [part for name in names for part in EFFECT_GROUPS.get(name, (name,))]
        for name in off:
            if name not in known:
                raise ValueError(f"effect {name!r} is unknown; expected one of {', '.join([*EFFECT_GROUPS, *known])}")
        return cls(**dict.fromkeys(off, False))


EFFECT_GROUPS = {
    "context": ("common_context", "own_context"),
    "sequence": ("drift", "persistence", "mood", "repeats"),
}


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Sizes and strengths; the defaults are calibrated to the published figures (docs/worlds.md).

    start: first day, UTC midnight. days: of listening; visit_days: of home-page visits after them.
    sessions_per_day: mean over listeners. The strengths (drift_strength and so on) are lengths of the offsets beside a
    taste of length 1. sharpness: how closely a session keeps to its target.
    """

    n_tracks: int = 30_000
    n_listeners: int = 1_000
    days: int = 60
    visit_days: int = 14
    start: dt.datetime = dt.datetime(2025, 1, 6, tzinfo=dt.timezone.utc)  # a Monday
    n_playlists: int = 0  # 0: two for three tracks
    playlist_length: float = 36.0  # before repeated draws are dropped
    playlist_sharpness: float = 14.0
    dimension: int = 40
    n_genres: int = 24
    n_clusters: int = 240
    cluster_spread: float = 0.9
    tracks_per_artist: int = 8
    artist_spread: float = 0.5
    track_spread: float = 0.35
    zipf_exponent: float = 0.9
    zipf_offset: float = 8.0
    new_release_share: float = 0.03
    n_interests: int = 4
    sessions_per_day: float = 3.67
    rate_shape: float = 2.5
    session_length: float = 10.0
    new_listener_share: float = 0.06
    sharpness: float = 16.0
    drift_strength: float = 0.9
    common_context_strength: float = 1.6
    own_context_strength: float = 0.3
    persistence_strength: float = 0.8
    mood_strength: float = 0.6
    surprise_strength: float = 0.5  # of a session, unforeseeable
    mass: float = 0.5  # how much big clusters draw: 0 not at all, 1 as a draw by popularity alone
    skip_level: float = -0.45  # logit
    skip_slope: float = 2.2
    effects: Effects = field(default_factory=Effects)
    appeal: AppealConfig = field(default_factory=AppealConfig)
    countries: tuple[str, ...] = tuple(c for c, _ in ZONES)
    zones: tuple[str, ...] = tuple(z for _, z in ZONES)

    def __post_init__(self) -> None:
        for name in ("n_tracks", "n_listeners", "days", "dimension", "n_genres", "n_clusters", "tracks_per_artist"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.n_playlists < 0 or self.visit_days < 0:
            raise ValueError("n_playlists and visit_days must be at least 0")
        if self.n_interests < 2:
            raise ValueError(f"n_interests is {self.n_interests}; expected at least 2")
        if self.playlist_length < 8 or self.session_length < 1:
            raise ValueError("playlist_length must be at least 8 and session_length at least 1")
        if self.start.tzinfo is None or self.start.astimezone(dt.timezone.utc).time() != dt.time(0):
            raise ValueError(f"start is {self.start.isoformat()}; expected midnight UTC, with its time zone")
        if len(self.countries) != len(self.zones) or not self.zones:
            raise ValueError(
                f"{len(self.countries)} countries and {len(self.zones)} zones; expected one zone a country"
            )
        if self.n_playlists == 0:
            object.__setattr__(self, "n_playlists", max(1, round(self.n_tracks * 2 / 3)))

    @property
    def end(self) -> dt.datetime:
        """When listening ends and visits begin."""
        return self.start + dt.timedelta(days=self.days)


@dataclass(frozen=True, eq=False)
class World:
    """A catalogue, its listeners and the truth about them. Made by `World.make`; the same seed makes the same world."""

    config: WorldConfig
    catalogue: Catalogue
    population: Population
    playlist_table: pa.Table
    salt: int  # for what is drawn from names: explanation fits, tired artists

    @classmethod
    def make(cls, config: WorldConfig, rng: np.random.Generator) -> World:
        """A world of the configured size."""
        music, people, lists, salt = rng.spawn(4)
        catalogue = make_catalogue(config, music)
        return cls(
            config=config,
            catalogue=catalogue,
            population=make_population(catalogue, config, people),
            playlist_table=make_playlists(catalogue, config, lists),
            salt=int(salt.integers(0, 2**31)),
        )

    @property
    def effects(self) -> Effects:
        return self.config.effects

    def items(self) -> pa.Table:
        """The catalogue in the layout of items.parquet, in the world's order."""
        return self.catalogue.items(self.config.countries)

    def playlists(self) -> pa.Table:
        """playlist_id, position, item_id."""
        return self.playlist_table

    def listeners(self) -> pa.Table:
        """user_id, joined_at, country, tz, onboarding."""
        return self.population.table(self.config)

    @cached_property
    def _row_of_item(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.catalogue.item_id)}

    def row_of(self, item_ids: Iterable[str]) -> Ints:
        """World rows of item ids; ValueError for an unknown one."""
        return _lookup(self._row_of_item, item_ids, "item_ids")

    @cached_property
    def _row_of_listener(self) -> dict[str, int]:
        return {user: row for row, user in enumerate(self.population.user_id)}

    def listener_of(self, user_ids: Iterable[str] | Strings) -> Ints:
        """Listener indices of user ids; ValueError for an unknown one."""
        return _lookup(self._row_of_listener, user_ids, "user_ids")

    @cached_property
    def utc_offset_min(self) -> Ints:
        """[days + visit days + 2, zones] minutes from UTC, by day since `config.start`."""
        days = self.config.days + self.config.visit_days + 2
        return utc_offsets(self.config.zones, self.config.start, days)

    def days_since_start(self, at_s: Ints) -> Floats:
        """Days between `config.start` and the given UTC seconds."""
        return (np.asarray(at_s, dtype=np.float64) - self.config.start.timestamp()) / 86_400.0

    def base_taste(self, listener: Ints, day: Floats) -> Floats:
        """[m, d] unit: interests with drift, whatever the context. day: since the start."""
        p = self.population
        out: Floats = np.einsum("mk,mkd->md", p.interest_share[listener], p.interest[listener].astype(np.float64))
        out = unit(out)
        if self.effects.drift:
            # One way for as long as the world lasts; later it stays.
            passed = np.clip(day / self.config.days, 0.0, 1.5) * p.drift_size[listener] * self.config.drift_strength
            out = unit(out + passed[:, None] * p.drift[listener])
        return out

    def context_shift(self, listener: Ints, hour: Ints, weekday: Ints, device: Ints) -> Floats:
        """[m, d] what hour, weekday and device add to the taste. device: index into DEVICES; others count as mobile."""
        p, c = self.population, self.config
        bucket = BUCKET_OF_HOUR[hour]
        device = np.where(np.asarray(device) < p.common_device.shape[0], device, 0)
        weekend = (np.asarray(weekday) >= 5).astype(np.int64)
        out = np.zeros((len(listener), c.dimension))
        if self.effects.common_context:
            shift = p.common_bucket[bucket] + 0.8 * p.common_device[device] + 0.4 * p.common_weekend[weekend]
            out += c.common_context_strength * shift
        if self.effects.own_context:
            out += c.own_context_strength * (p.by_bucket[listener, bucket] + 0.5 * p.by_device[listener, device])
        return out

    def taste(self, listener: Ints, hour: Ints, weekday: Ints, device: Ints, at_s: Ints) -> Floats:
        """[m, d] unit: what each listener feels like at that moment.

        listener [m] index; hour, weekday [m] local; device [m] index into DEVICES; at_s [m] UTC seconds.
        """
        base = self.base_taste(listener, self.days_since_start(at_s))
        return unit(base + self.context_shift(listener, hour, weekday, device))

    def appeal(
        self,
        listener: Ints,
        hour: Ints,
        weekday: Ints,
        device: Ints,
        item: Ints,
        rule: Strings | Sequence[str],
        at_s: Ints,
        *,
        shown_before: Ints | None = None,
    ) -> Floats:
        """[m] P(stream | the card is examined); see simulator/world/appeal.py."""
        return appeal(self, listener, hour, weekday, device, item, rule, at_s, shown_before=shown_before)


def with_hidden(config: WorldConfig, strength: float) -> WorldConfig:
    """The same configuration with the terms of the appeal that no feature of the product expresses, times `strength`.

    These are the hidden quality of a track, who takes which explanation, fatigue, and what is not linear in taste.
    """
    if not 0 <= strength < np.inf:
        raise ValueError(f"strength is {strength}; expected 0 (none) or more, 1 for the world as it is")
    terms = {name: strength * getattr(config.appeal, name) for name in HIDDEN_TERMS}
    return replace(config, appeal=replace(config.appeal, **terms))


def _lookup(table: dict[str, int], keys: Iterable[str] | Strings, name: str) -> Ints:
    get = table.get
    out = np.fromiter((get(k, -1) for k in keys), dtype=np.int64)
    if len(out) and out.min() < 0:
        raise ValueError(f"{name}[{int(np.argmin(out))}] is not of this world; expected an id from its tables")
    return out
