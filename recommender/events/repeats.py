"""The same play twice, and the order of plays that began in the same second.

A repeat is a play of the same listener, item and time. The fuller of two is kept. Where times are written to the
minute, a second play within it is no repeat if the lengths leave room for both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bart.types import Bools, Floats, Ints

MINUTE_S = 60.0


def newest_first(user: Ints, at_us: Ints, file: Ints) -> Bools:
    """[files], where a file's plays go back in time; a listener's neighbours in the file count, more one way than the
    other. user, at_us, file: [n] in the order of the rows."""
    by_user = np.argsort(user, kind="stable")
    step = np.sign(np.diff(at_us[by_user]))
    same = (np.diff(user[by_user]) == 0) & (np.diff(file[by_user]) == 0)
    down = np.bincount(file[by_user][1:][same], weights=step[same], minlength=int(file.max(initial=-1)) + 1)
    return np.asarray(down < 0)


def by_listener(user: Ints, at_us: Ints, order: Floats | None, file: Ints) -> Ints:
    """[n], the rows by listener, time, the order given and the file's own: a file that is newest first is turned."""
    keys = (at_us, user) if order is None else (np.nan_to_num(order), at_us, user)
    rows = np.lexsort(keys)
    tied = _tied(rows, user, at_us)
    if not tied.any():
        return np.asarray(rows)
    back = newest_first(user, at_us, file)[file]
    if back.any():
        own = np.where(back, -np.arange(len(user)), np.arange(len(user)))
        rows = np.lexsort((own, file, *keys))
    return np.asarray(rows)


def repeats(
    rows: Ints,
    user: Ints,
    item: Ints,
    at_us: Ints,
    order: Floats | None,
    file: Ints,
    to_minute: Bools,
    listened_s: Floats | None,
    known: Callable[[Ints], Ints],
) -> Bools:
    """[n], the rows that are a play again of which a fuller row, else a longer or the first, is kept.

    rows: as `by_listener` gives them. known: how many columns some rows fill.
    """
    out = np.zeros(len(user), dtype=bool)
    tied = rows[_tied(rows, user, at_us)]
    if not len(tied):
        return out
    rank = np.zeros(len(user)) if order is None else np.nan_to_num(order)
    listened = np.full(len(user), np.nan) if listened_s is None else listened_s
    length = np.nan_to_num(listened[tied], nan=-1.0)
    best = np.lexsort((tied, -length, -known(tied), rank[tied], item[tied], at_us[tied], user[tied]))
    tied = tied[best]
    same = np.ones(max(len(tied) - 1, 0), dtype=bool)
    for key in (user, item, at_us, rank):
        same &= key[tied[1:]] == key[tied[:-1]]
    out[tied[1:][same]] = True
    twins = out & to_minute
    if twins.any():
        group = np.concatenate([[0], np.cumsum(~same)])
        for number in np.unique(group[twins[tied]]):
            members = tied[group == number] if len(tied) < 10_000 else _slice(tied, group, number)
            out[members] = True
            out[_room_for(members, file, listened)] = False
    return out


def _slice(tied: Ints, group: Ints, number: int) -> Ints:
    first, last = np.searchsorted(group, [number, number + 1])
    return tied[first:last]


def _room_for(members: Ints, file: Ints, listened_s: Floats) -> list[int]:
    """The plays of one item in one minute that can all have been: the fullest first in `members`.

    What one file holds twice are two plays; what two files hold are the same.
    """
    length = listened_s[members]
    if np.isnan(length).any():
        return [int(members[0])]
    distinct: dict[tuple[float, int], int] = {}
    seen: dict[tuple[int, float], int] = {}
    for row, seconds in zip(members.tolist(), length.tolist(), strict=True):
        number = seen.get((int(file[row]), seconds), 0)
        seen[int(file[row]), seconds] = number + 1
        distinct.setdefault((seconds, number), row)
    plays = sorted((seconds, row) for (seconds, _), row in distinct.items())
    longest = plays.pop()
    kept, filled = [longest[1]], 0.0
    for seconds, row in plays:
        filled += seconds
        if filled >= MINUTE_S:
            break
        kept.append(row)
    return kept


def _tied(rows: Ints, user: Ints, at_us: Ints) -> Bools:
    """[n], the places in `rows` whose listener and time another row shares."""
    same = (user[rows[1:]] == user[rows[:-1]]) & (at_us[rows[1:]] == at_us[rows[:-1]])
    out = np.zeros(len(rows), dtype=bool)
    out[1:] |= same
    out[:-1] |= same
    return out
