"""How long a play lasted, as far as that can be believed, and where a session begins.

Players get stuck, clocks jump, and columns of seconds hold milliseconds. A length is bounded by the item, by the
listener's next start and by now; one that these contradict by hours is no length at all, because a session must not go
on over a night for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bart.types import Bools, Floats, Ints
from recommender.sessions.table import DAY_S

GAP_S = 20 * 60  # inactivity that ends a session
SURE_S = (
    4 * 3600
)  # a longer play is believed only where neither the listener's next start nor the item speaks against it
CLOCK_S = 60.0  # by so much may clocks and times written to the minute disagree; a length is then left as it is


@dataclass(frozen=True, slots=True, eq=False)
class PlayLengths:
    """length_s: [n], NaN where not known. bounded: {reason: [n], where it was bounded or dropped for that}."""

    length_s: Floats
    bounded: dict[str, Bools]


def play_lengths(
    user: Ints, started_us: Ints, length_s: Floats, item_s: Floats | None = None, now_us: int | None = None
) -> PlayLengths:
    """Lengths that can be believed.

    user, started_us: [n], sorted by both. length_s: [n] as reported, NaN where not. item_s: [n] of the item, NaN where
    not known. now_us: nothing was listened to after it.
    """
    length = length_s.copy()
    day = length > DAY_S
    length[day] = np.nan
    item = np.full(len(length), np.nan) if item_s is None else np.where(item_s > DAY_S, np.nan, item_s)
    long_item = length > item + CLOCK_S
    length[long_item] = item[long_item]

    way_s, last = _way_s(user, started_us)
    unlikely = length > SURE_S
    nonsense = unlikely & np.where(last, ~(item >= length), length > way_s + CLOCK_S)
    length[nonsense] = np.nan
    long_way = length > way_s + CLOCK_S
    length[long_way] = way_s[long_way]

    future = np.zeros(len(length), dtype=bool)
    if now_us is not None:
        left_s = np.maximum(now_us - started_us, 0) / 1e6
        future = length > left_s + CLOCK_S
        length[future] = left_s[future]
    return PlayLengths(
        length,
        {
            "longer than a day: not known": day,
            "longer than the item: bounded by it": long_item,
            f"over {SURE_S // 3600} hours, which nothing bears out: not known": nonsense,
            "longer than the way to the listener's next start: bounded by it": long_way,
            "longer than until now: bounded by it": future,
        },
    )


def parts_by_listener(user: Ints, size: int = 1 << 20) -> Iterator[slice]:
    """Slices of about `size` rows that part no listener; `user` [n] sorted. For work that takes memory by the row."""
    n, first = len(user), 0
    while first < n:
        last = n if first + size >= n else int(np.searchsorted(user, user[first + size - 1], side="right"))
        yield slice(first, last)
        first = last


def begins_session(user: Ints, started_us: Ints, ended_us: Ints, gap_s: float = GAP_S) -> Bools:
    """[n], where a session begins: another listener, or `gap_s` after the end of the play before. Sorted by both."""
    new = np.ones(len(user), dtype=np.bool_)
    new[1:] = (user[1:] != user[:-1]) | (started_us[1:] - ended_us[:-1] >= gap_s * 1e6)
    return new


def ends_us(user: Ints, started_us: Ints, listened_s: Floats, duration_s: Floats) -> Ints:
    """[n], when each play ended, at the listener's next start at the latest: a length that is not known is the item's,
    else none. Sorted by both."""
    length = np.maximum(np.where(np.isnan(listened_s), duration_s, listened_s), 0.0)
    believed = np.nan_to_num(play_lengths(user, started_us, length, duration_s).length_s)
    way_s, _ = _way_s(user, started_us)
    return np.asarray(started_us + (np.minimum(believed, way_s) * 1e6).astype(np.int64))


def _way_s(user: Ints, started_us: Ints) -> tuple[Floats, Bools]:
    """Seconds to the listener's next later start [n], infinite where there is none; and where there is none."""
    n = len(user)
    way = np.full(n, np.inf)
    if n:
        moved = np.flatnonzero((user[1:] != user[:-1]) | (started_us[1:] != started_us[:-1])) + 1
        first = np.concatenate([[0], moved])  # of the plays that began together
        later = np.full(len(first), np.inf)
        same = user[first[1:]] == user[first[:-1]]
        step = (started_us[first[1:]] - started_us[first[:-1]]) / 1e6
        later[:-1] = np.where(same, step, np.inf)
        way = np.repeat(later, np.diff(np.append(first, n)))
    return way, np.isinf(way)
