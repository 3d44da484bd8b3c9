"""What a listener's reaction to a seen card is worth, in [0, 1]: a table of named functions.

Each takes arrays of one shape: listened_s (seconds; NaN where nothing was reported), duration_s (NaN where unknown),
saved (bool), and returns an array of that shape. `register_reward` adds one's own; one of an installed package, named
under the entry point group `bart.rewards`, is found by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from bart.types import Bools, Floats

RewardFunction: TypeAlias = Callable[[Floats, Floats, Bools], Floats]

STREAM_S = 30.0  # what the services count as a stream
STREAM_SHARE = 0.5  # of the duration, where that is less than 30 s: a jingle of 40 s counts after 20 s
COMPLETED_SHARE = 0.9  # of the duration: the rest is fading out
DEFAULT_REWARD = "streamed_30s"
REWARD_GROUP = "bart.rewards"


def streamed_30s(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:
    """1 where at least min(30 s, half the duration) was listened to; 30 s where the duration is unknown."""
    del saved
    enough = np.fmin(STREAM_S, STREAM_SHARE * np.where(duration_s > 0, duration_s, np.nan))  # fmin ignores NaN
    return ((listened_s >= enough) & (listened_s > 0)).astype(np.float64)


def completed(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:
    """1 where at least nine tenths were listened to; 0 where the duration is unknown, since nobody can tell."""
    del saved
    return ((listened_s >= COMPLETED_SHARE * duration_s) & (duration_s > 0)).astype(np.float64)


def clicked(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:
    """1 where the card was acted upon: played for any time, or saved."""
    del duration_s
    return ((listened_s > 0) | saved).astype(np.float64)


def share_30s(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:
    """The share of 30 s that was listened to, at most 1: a reward by degrees, and how imported ones are kept."""
    del duration_s, saved
    return np.where(listened_s > 0, np.fmin(listened_s, STREAM_S) / STREAM_S, 0.0)


REWARDS: dict[str, RewardFunction] = {
    "streamed_30s": streamed_30s,
    "completed": completed,
    "clicked": clicked,
    "share_30s": share_30s,
}


def register_reward(name: str, function: RewardFunction) -> None:
    """Adds a reward of one's own to the table; its values are checked to lie in [0, 1] at every use."""
    if not name or name in REWARDS:
        raise ValueError(f"reward name {name!r} is empty or taken; taken are {', '.join(sorted(REWARDS))}")
    REWARDS[name] = function


def find_reward(name: str) -> RewardFunction:
    """The reward of this name: of the table, or else of an installed package, which is then in the table.

    Raises ValueError where there is none, and for an entry point that cannot be called.
    """
    if name not in REWARDS:
        from importlib.metadata import entry_points

        for point in entry_points(group=REWARD_GROUP):
            if point.name == name:
                function = point.load()
                if not callable(function):
                    raise ValueError(f"{REWARD_GROUP} {name!r} is a {type(function).__name__}; expected a function")
                register_reward(name, function)
                break
        else:
            raise ValueError(f"reward is {name!r}; expected one of {', '.join(sorted(REWARDS))}")
    return REWARDS[name]


def reward_of(name: str, listened_s: Floats, duration_s: Floats, saved: Bools, seen: Bools) -> Floats:
    """The reward of each card, 0 where it was not seen. All arrays of one shape; raises ValueError outside [0, 1]."""
    value = np.asarray(find_reward(name)(listened_s, duration_s, saved), dtype=np.float64)
    if value.shape != seen.shape:
        raise ValueError(f"reward {name!r} returned shape {value.shape}; expected {seen.shape}")
    bad = seen & ~((value >= 0) & (value <= 1))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"reward {name!r} is {value[at]} at {list(at)}; expected [0, 1]")
    return np.where(seen, value, 0.0)
