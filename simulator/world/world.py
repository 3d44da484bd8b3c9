"""The world: its catalogue and listeners, and what a listener feels like hearing at a moment.

Everything follows from a configuration and a seed. What a listener wants is a point in the latent space of the tracks,
    taste = interests + drift + shifts by time of day, device and weekend, common to all and the listener's own,
and both the listening history and the reading of a home page start from it. Each effect has a switch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from bart.types import Floats, Ints, Strings
from simulator.world.catalogue import Catalogue, make_catalogue, make_playlists, unit
from simulator.world.config import Effects, WorldConfig
from simulator.world.containers import Cards, Containers, make_containers, with_container_rows, with_titles
from simulator.world.population import BUCKET_OF_HOUR, Population, make_population, utc_offsets


@dataclass(frozen=True, eq=False)
class World:
    """A catalogue, its listeners and the truth about them. Made by `World.make`; the same seed makes the same world."""

    config: WorldConfig
    catalogue: Catalogue
    population: Population
    playlist_table: pa.Table
    salt: int  # for what is drawn from names: explanation fits, tired artists
    containers: Containers | None = None

    @classmethod
    def make(cls, config: WorldConfig, rng: np.random.Generator) -> World:
        """A world of the configured size."""
        music, people, lists, salt = rng.spawn(4)
        catalogue = make_catalogue(config, music)
        population = make_population(catalogue, config, people)
        playlists = make_playlists(catalogue, config, lists)
        containers = None
        if config.containers is not None:  # of a stream of their own: the rest of the world stays the same
            containers = make_containers(catalogue, population, playlists, config, rng.spawn(1)[0])
            playlists = with_titles(playlists, containers)
        return cls(config, catalogue, population, playlists, int(salt.integers(0, 2**31)), containers)

    @property
    def effects(self) -> Effects:
        return self.config.effects

    @cached_property
    def cards(self) -> Cards:
        """All that can stand on a page: the tracks, then what the containers add."""
        return Cards.of(self.catalogue, self.containers)

    def items(self) -> pa.Table:
        """All cards in the layout of items.parquet, in the world's order."""
        tracks = self.catalogue.items(self.config.countries)
        return tracks if self.containers is None else with_container_rows(tracks, self.catalogue, self.containers)

    def playlists(self) -> pa.Table:
        """playlist_id, position, item_id; and the titles of those that are cards."""
        return self.playlist_table

    def listeners(self) -> pa.Table:
        """user_id, joined_at, country, tz, onboarding."""
        return self.population.table(self.config)

    @cached_property
    def _row_of_item(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.cards.item_id)}

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


def _lookup(table: dict[str, int], keys: Iterable[str] | Strings, name: str) -> Ints:
    get = table.get
    out = np.fromiter((get(k, -1) for k in keys), dtype=np.int64)
    if len(out) and out.min() < 0:
        raise ValueError(f"{name}[{int(np.argmin(out))}] is not of this world; expected an id from its tables")
    return out
