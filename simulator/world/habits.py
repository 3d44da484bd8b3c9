"""Listening to albums, playlists and shows: by habit, at a part of the day, and to shows that are tried.

It is laid between the sessions of music of `simulator.world.listening` and changes none of them: a session for which
there is no room before the next one does not take place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Bools, Floats, Ints
from simulator.world.config import ContainerConfig
from simulator.world.containers import HABITS, SHOW, Containers
from simulator.world.event_batches import Events
from simulator.world.population import BUCKET_OF_HOUR, HOUR_SHARE
from simulator.world.world import World

FIRST_NUMBER = 50_000  # of these sessions, so that those of music keep theirs
_OF_A_LIST = 8  # tracks that are heard of a playlist
_SKIPPED = 0.1  # share of their tracks


@dataclass(eq=False)
class Habits:
    """Who has heard how much of what. following [L, 4]: the next episode of a habitual show; sessions [L]."""

    world: World
    containers: Containers
    rng: np.random.Generator
    following: Ints
    sessions: Ints

    @classmethod
    def of(cls, world: World, rng: np.random.Generator) -> Habits | None:
        """Before the first day; None in a world without containers."""
        made = world.containers
        if made is None:
            return None
        backlog = int((made.released_at[: _episodes(made)] <= np.datetime64(world.config.start.date())).sum())
        following = rng.integers(0, max(backlog, 1), size=made.habit.shape)
        return cls(world, made, rng, following, np.zeros(len(made.habit), dtype=np.int64))

    def day(self, listener: Ints, day: int, music: Events | None, busy_until_s: Ints, gap_s: int) -> Events | None:
        """The sessions of one day of some listeners; None where there are none.

        music: what they play of music on that day; busy_until_s: [listeners] end of what they played before it.
        """
        who, slot, start_s, offset_min = self._wished(listener, day)
        plays: list[tuple[int, Ints]] = []
        for k, (one, number) in enumerate(zip(who.tolist(), slot.tolist(), strict=True)):
            rows = self._tracks(one, number, int(start_s[k]))
            if len(rows):
                plays.append((k, rows))
        if not plays:
            return None
        length: Ints = np.array([len(rows) for _, rows in plays], dtype=np.int64)
        at: Ints = np.array([k for k, _ in plays], dtype=np.int64)
        row = np.concatenate([rows for _, rows in plays])
        event = np.repeat(np.arange(len(plays)), length)
        duration = self.world.cards.duration_s[row]
        skipped = self.rng.random(len(row)) < _SKIPPED * (length[event] > 1)
        listened_ds = np.floor(10 * np.where(skipped, 1 + 25 * self.rng.random(len(row)), duration)).astype(np.int64)
        begin = np.cumsum(length) - length
        elapsed = np.cumsum(listened_ds) - listened_ds
        started_ds = 10 * start_s[at][event] + elapsed - elapsed[begin][event]
        end_s = (started_ds + listened_ds)[begin + length - 1] // 10 + 1
        free = _free(who[at], start_s[at], end_s, music, listener, busy_until_s, gap_s)
        free &= end_s + gap_s <= self._day_s(day) + 86_400 - 60 * offset_min[at]  # before the next day's sessions
        self._heard(who[at][free], slot[at][free])
        number = self._numbered(who[at], free)
        kept = free[event]
        container = self._container(who, slot)[at]
        return Events(
            listener=who[at][event][kept],
            row=row[kept],
            started_ds=started_ds[kept],
            listened_ds=listened_ds[kept],
            skipped=skipped[kept],
            device=np.zeros(int(kept.sum()), dtype=np.int64),
            source=np.zeros(int(kept.sum()), dtype=np.int64),  # the library
            session=number[event][kept],
            offset_min=offset_min[at][event][kept],
            container=container[event][kept],
        )

    def _day_s(self, day: int) -> int:
        return int(self.world.config.start.timestamp()) + 86_400 * day

    def _wished(self, listener: Ints, day: int) -> tuple[Ints, Ints, Ints, Ints]:
        """Listener, slot (of a show that is tried: 4 and more), start in UTC seconds and offset of each session that is
        wished for, by listener and time."""
        effects, people = self.world.effects, self.world.population
        asked = self.world.config.containers or ContainerConfig()
        n, h = len(listener), len(HABITS)
        habitual = self.rng.random((n, h)) < asked.habit_share * effects.habitual
        tries = self.rng.random(n) < asked.tries * effects.non_habitual
        which = h + self.rng.integers(0, self.containers.tried.shape[1], size=n)
        u = self.rng.random((n, h + 1, 2))
        place, slot = np.nonzero(np.concatenate([habitual, tries[:, None]], axis=1))
        who = listener[place]
        chance = u[place, slot]
        bucket = self.containers.habit_bucket[who, np.minimum(slot, h - 1)]
        hour = np.where(slot < h, _hour_within(bucket, chance[:, 0]), _any_hour(chance[:, 0]))
        offset = self.world.utc_offset_min[day][people.zone[who]]
        start = self._day_s(day) - 60 * offset + 3_600 * hour + (3_600 * chance[:, 1]).astype(np.int64)
        slot = np.where(slot < h, slot, which[place])
        there = start >= people.joined_at_s[who]
        order = np.lexsort((start[there], who[there]))
        kept = np.flatnonzero(there)[order]
        return who[kept], slot[kept], start[kept], offset[kept]

    def _container(self, who: Ints, slot: Ints) -> Ints:
        """World row of what each slot of a listener stands for."""
        made, h = self.containers, len(HABITS)
        tried = made.tried[who, np.maximum(slot - h, 0)]
        return np.where(slot < h, made.habit[who, np.minimum(slot, h - 1)], tried)

    def _tracks(self, who: int, slot: int, start_s: int) -> Ints:
        """World rows of what is played; none where every episode was heard."""
        made, h = self.containers, len(HABITS)
        container = int(made.habit[who, slot] if slot < h else made.tried[who, slot - h])
        member = made.members[container]
        first = len(self.world.catalogue)
        if slot < h and HABITS[slot] != SHOW:
            start = int(self.rng.integers(0, len(member))) if len(member) > _OF_A_LIST else 0
            return np.roll(member, -start)[:_OF_A_LIST]
        if slot < h:
            member = member[self.following[who, slot] :]
        out = made.released_at[member - first] <= np.datetime64(start_s, "s")
        member = member[out]
        return member[:1] if slot < h else member[-1:]

    def _heard(self, who: Ints, slot: Ints) -> None:
        show = np.isin(slot, [k for k, kind in enumerate(HABITS) if kind == SHOW])
        np.add.at(self.following, (who[show], slot[show]), 1)

    def _numbered(self, who: Ints, free: Bools) -> Ints:
        """Numbers of sessions within their listeners; `who` ascending."""
        number = np.zeros(len(who), dtype=np.int64)
        mine = who[free]
        nth = np.arange(len(mine)) - np.searchsorted(mine, mine)
        number[free] = FIRST_NUMBER + self.sessions[mine] + nth
        np.add.at(self.sessions, mine, 1)
        return number


def _free(
    who: Ints, start_s: Ints, end_s: Ints, music: Events | None, listener: Ints, busy_until_s: Ints, gap_s: int
) -> Bools:
    """[s] which sessions neither meet music nor an earlier one of theirs; `who` ascending, by time within."""
    free: Bools = start_s >= busy_until_s[np.searchsorted(listener, who)] + gap_s
    same = np.concatenate([[False], who[1:] == who[:-1]])
    free &= ~same | (start_s >= np.concatenate([[0], end_s[:-1]]) + gap_s)
    if music is None or not len(music):
        return free
    key, asked = (music.listener << 36) + music.started_ds // 10, (who << 36) + start_s
    after = np.searchsorted(key, asked, side="right")
    before = np.maximum(after - 1, 0)
    follows = (after > 0) & (music.listener[before] == who)
    ended = (music.started_ds + music.listened_ds)[before] // 10 + 1
    free &= ~follows | (start_s >= ended + gap_s)
    next_one = np.minimum(after, len(music) - 1)
    precedes = (after < len(music)) & (music.listener[next_one] == who)
    free &= ~precedes | (end_s + gap_s <= music.started_ds[next_one] // 10)
    return free


def _hour_within(bucket: Ints, u: Floats) -> Ints:
    hours = [np.flatnonzero(b == BUCKET_OF_HOUR) for b in range(int(BUCKET_OF_HOUR.max()) + 1)]
    chosen = [int(hours[b][int(x * len(hours[b]))]) for b, x in zip(bucket.tolist(), u.tolist(), strict=True)]
    return np.array(chosen, dtype=np.int64)


def _any_hour(u: Floats) -> Ints:
    out: Ints = np.minimum(np.searchsorted(np.cumsum(HOUR_SHARE), u), 23)
    return out


def _episodes(made: Containers) -> int:
    return int((made.kind == 0).sum()) // max(int((made.kind == SHOW).sum()), 1)
