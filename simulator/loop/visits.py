"""Visits to the home page in the days after the listening history."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from bart.types import DEVICES, Context, Ints
from simulator.world.listening import draw_devices
from simulator.world.world import World


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """n visits in the order of time.

    listener [n] index; at_s [n] UTC seconds, not decreasing; utc_offset_min [n]; device [n] index into DEVICES; zone
    [n] index into the world's countries; hour, weekday [n] local.
    """

    listener: Ints
    at_s: Ints
    utc_offset_min: Ints
    device: Ints
    zone: Ints
    countries: tuple[str, ...]
    user_ids: tuple[str, ...]
    surface: str = "default"

    def __len__(self) -> int:
        return len(self.listener)

    @property
    def hour(self) -> Ints:
        return (self.at_s + 60 * self.utc_offset_min) // 3_600 % 24

    @property
    def weekday(self) -> Ints:
        return ((self.at_s + 60 * self.utc_offset_min) // 86_400 + 3) % 7  # 1970-01-01 was a Thursday

    def user_id(self, visit: int) -> str:
        return self.user_ids[int(self.listener[visit])]

    def country(self, visit: int) -> str:
        return self.countries[int(self.zone[visit])]

    def context(self, visit: int) -> Context:
        """What a client would send with one visit."""
        return Context(
            at=dt.datetime.fromtimestamp(int(self.at_s[visit]), tz=dt.timezone.utc),
            utc_offset_min=int(self.utc_offset_min[visit]),
            device=DEVICES[int(self.device[visit])],
            surface=self.surface,
            country=self.country(visit),
        )


def simulate_visits(
    world: World,
    n: int,
    rng: np.random.Generator,
    start: dt.datetime | None = None,
    *,
    surface: str = "default",
    among: Ints | None = None,
) -> Visits:
    """n visits over `config.visit_days` days from `start` (by default where listening ends).

    Listeners come as often as they listen, at their own hours and on their own devices, and not before they joined.
    among: listeners who may come, everybody where None.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1 visit")
    config, p = world.config, world.population
    start = config.end if start is None else start
    if start.tzinfo is None:
        raise ValueError(f"start is {start.isoformat()}, without a time zone; expected an aware datetime")
    first_s = int(start.timestamp())
    span = max(config.visit_days, 1)
    who = np.arange(len(p)) if among is None else among
    share = np.cumsum(p.rate[who] / p.rate[who].sum())
    parts: list[tuple[Ints, Ints, Ints]] = []
    found = 0
    while found < n:
        m = int(1.2 * (n - found)) + 16
        listener = who[np.minimum(np.searchsorted(share, rng.random(m), side="right"), len(who) - 1)]
        hour = (np.cumsum(p.hour_share[listener], axis=1) < rng.random(m)[:, None]).sum(axis=1)
        day_s = first_s + 86_400 * rng.integers(0, span, size=m)
        day = np.clip(world.days_since_start(day_s).astype(np.int64), 0, len(world.utc_offset_min) - 1)
        offset = world.utc_offset_min[day, p.zone[listener]]
        local_s = 3_600 * np.minimum(hour, 23) + rng.integers(0, 3_600, size=m)
        # The local hour, on the UTC day: the two weeks stay two weeks in every zone.
        at_s = day_s + (local_s - 60 * offset) % 86_400
        there = at_s >= p.joined_at_s[listener]
        parts.append((listener[there], at_s[there], offset[there]))
        found += int(there.sum())
    listener, at_s, offset = (np.concatenate(a)[:n] for a in zip(*parts, strict=True))
    order = np.argsort(at_s, kind="stable")
    listener, at_s, offset = listener[order], at_s[order], offset[order]
    hour = (at_s + 60 * offset) // 3_600 % 24
    return Visits(
        listener=listener,
        at_s=at_s,
        utc_offset_min=offset,
        device=draw_devices(world, listener, hour, rng.random(n)),
        zone=p.zone[listener],
        countries=config.countries,
        user_ids=p.user_id,
        surface=surface,
    )
