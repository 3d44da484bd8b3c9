"""Items that a new export names by another id than a run does, and their plays, whose times may differ by a minute.

Account data names a track by artist and title, the extended history by its uri; ListenBrainz gives a recording a
MusicBrainz id some time after its first listens. A run keeps the ids that it has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Floats, Ints

Name = tuple[str, ...]  # artists and title

NEAR_S = 61.0  # by so much differ the starts of one play, where one export says times to the minute
PAUSED_S = 86_400.0  # a play that was paused began so much earlier at most than its length says


def names_of(items: pa.Table) -> dict[str, Name]:
    """{item_id: artists and title} of items that have both. items: item_id, title, artist_ids."""
    columns = (items[name].to_pylist() for name in ("item_id", "artist_ids", "title"))
    return {item: (*artists, title) for item, artists, title in zip(*columns, strict=True) if artists and title}


def renamed(known: Mapping[str, Name], found: Mapping[str, Name]) -> bool:
    """Whether `known_as` may find anything: an item that is not known has the name of one that is."""
    names = set(known.values())
    return any(item not in known and name in names for item, name in found.items())


def known_as(old: pa.Table, new: pa.Table, known: Mapping[str, Name], found: Mapping[str, Name]) -> dict[str, str]:
    """{id of a new item: the id that the run has for it}.

    old, new: event tables. known, found: names of the run's items and of the new file's. An item is one of the same
    artists and title if one of the two ids is made of these alone, or if both were played at one instant.
    """
    plays = dict(zip(*(column.to_pylist() for column in pc.value_counts(old["item_id"]).flatten()), strict=True))
    by_name: dict[Name, list[str]] = defaultdict(list)
    for item, name in known.items():
        by_name[name].append(item)
    out: dict[str, str] = {}
    open_ids: dict[str, Name] = {}
    for item, name in found.items():
        there = by_name.get(name, [])
        if item in known or not there:
            continue
        if made_of(item, name):
            out[item] = max(there, key=lambda one: plays.get(one, 0))
        elif any(made_of(one, name) for one in there):
            out[item] = next(one for one in there if made_of(one, name))
        else:
            open_ids[item] = name
    for ours, theirs in _at_once(old, new, [one for name in open_ids.values() for one in by_name[name]], open_ids):
        if known[ours] == open_ids[theirs]:
            out.setdefault(theirs, ours)
    return out


def made_of(item: str, name: Name) -> bool:
    """Whether an id is made of artist and title, for want of another."""
    return len(name) > 1 and item == f"{name[0]} - {name[-1]}"


def _at_once(old: pa.Table, new: pa.Table, ours: list[str], theirs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of an old and a new item that a listener began at one instant."""
    if not ours:
        return
    sides = []
    for table, ids in ((old, ours), (new, list(theirs))):
        part = table.select(["user_id", "started_at", "item_id"])
        sides.append(part.filter(pc.is_in(part["item_id"], pa.array(ids, pa.string()))))
    keys = ["user_id", "started_at"]
    both = sides[0].join(sides[1], keys, join_type="inner", right_suffix="_new", use_threads=False)
    yield from zip(both["item_id"].to_pylist(), both["item_id_new"].to_pylist(), strict=True)


def near_pairs(user: Ints, item: Ints, at_us: Ints, length_s: Floats, is_new: Bools, where: Bools) -> Ints:
    """[pairs, 2]: an old row and a new row that are one play, of those `where` says.

    user, item, at_us, length_s (NaN where not known), is_new, where: [n]. They began within a minute, the likest length
    first; or are of one length to the millisecond, within a day, where one of them was paused.
    """
    groups: dict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    rows = np.flatnonzero(where)
    for row in rows[np.argsort(at_us[rows], kind="stable")].tolist():
        groups[int(user[row]), int(item[row])][int(is_new[row])].append(row)
    found: list[tuple[int, int]] = []
    for ours, theirs in groups.values():
        if ours and theirs:
            found += _of_one_item(ours, theirs, at_us / 1e6, length_s)
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _of_one_item(ours: list[int], theirs: list[int], at_s: Floats, length_s: Floats) -> list[tuple[int, int]]:
    """Pairs of old and new rows, each row at most once; both in order of time."""
    out: list[tuple[int, int]] = []
    free = list(ours)
    for within_s, alike in ((NEAR_S, False), (PAUSED_S, True)):
        left = []
        for row in theirs:
            first = bisect_left(free, at_s[row] - within_s, key=at_s.__getitem__)
            last = bisect_left(free, at_s[row] + within_s, key=at_s.__getitem__)
            near = [one for one in free[first:last] if not alike or abs(length_s[one] - length_s[row]) < 1e-3]
            if not near:
                left.append(row)
                continue
            best = min(near, key=lambda one: _unlike(one, row, at_s, length_s))
            free.remove(best)
            out.append((best, row))
        theirs = left
    return out


def _unlike(one: int, other: int, at_s: Floats, length_s: Floats) -> tuple[bool, bool, float]:
    apart_s = abs(at_s[one] - at_s[other])
    return bool(apart_s >= 1), not abs(length_s[one] - length_s[other]) < 1e-3, float(apart_s)
