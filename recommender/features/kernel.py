"""The inner loops of the features: values of all candidates of a visit, and their levels.

Sums run in lanes of a fixed width, which machine code adds side by side, never reordered.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bart.compiled import compiled, read, write

LANES = 8  # directions at most
BLOCK = 64  # candidates whose vectors are turned at once
# What is known of an item whoever asks, in one line of memory: codes of artist and genre (-1 for none), then numbers;
# length of its factor, plays and share of skips by all (NaN where not known), and 0 of what holds no others: the plays
# of a container are those of its members once more, so they count for it alone. Last what one step of its unit factor,
# kept in bytes, stands for.
ARTIST, GENRE, POPULARITY, LENGTH, ALL_PLAYS, ALL_SKIPS, CONTAINER, STEP = range(8)
_INT, _COUNT, _FLOAT = numba.int64, numba.uint16, numba.float32
_SPREAD = 0x9E3779B1  # multiplies neighbouring rows apart
_DAY_S = 86_400.0
_MOST_DAYS = 99.0


@compiled()
def places_of(item: Any) -> Any:
    """A hash table of rows: [2^k] places in `item`, -1 where none stands; at most half of it is filled."""
    size = 8
    while size < 2 * len(item):
        size *= 2
    table = np.full(size, -1, np.int32)
    for k in range(len(item)):
        at = (item[k] * _SPREAD) & (size - 1)
        while table[at] >= 0:
            at = (at + 1) & (size - 1)
        table[at] = k
    return table


@compiled(inline=True)
def place_of(row: Any, item: Any, table: Any) -> Any:
    """Where a row stands in `item`, -1 where it does not."""
    last = len(table) - 1
    at = (row * _SPREAD) & last
    while table[at] >= 0 and item[table[at]] != row:
        at = (at + 1) & last
    return table[at]


@compiled()
def touch(candidate: Any, vector: Any, factor: Any, fact_value: Any) -> Any:
    """Reads a line of each candidate's memory, so that the loop after it does not wait for one after the other."""
    touched = np.float32(0.0)
    for x in candidate:
        touched += fact_value[x, POPULARITY]
        for j in range(0, vector.shape[1], 16):
            touched += vector[x, j]
        if x < len(factor):
            for j in range(0, factor.shape[1], 64):
                touched += np.float32(factor[x, j])
    return touched


@compiled()
def add_up(item: Any, plays: Any, skips: Any, last_s: Any, fact: Any, label: int, count: Any) -> None:
    """Adds plays and skips of items to count [labels + 1, 3] of their labels fact [items, label], with the last play.

    -1, no label, is the last place. Items that the table does not hold are passed over.
    """
    for k in range(len(item)):
        if item[k] < len(fact) and fact[item[k], CONTAINER] == 0:
            place = fact[item[k], label]
            count[place, 0] += plays[k]
            count[place, 1] += skips[k]
            if plays[k] > 0:
                count[place, 2] = max(count[place, 2], last_s[k])


@compiled()
def fill_listener(item: Any, plays: Any, skips: Any, fact_value: Any, out: Any) -> Any:
    """Fills out [4] with the listener's own features, NaN of one who was not heard; returns the plays and skips."""
    total = skipped = distinct = fame = 0.0
    for k in range(len(item)):
        if item[k] < len(fact_value) and fact_value[item[k], CONTAINER] == 0:
            total += plays[k]
            skipped += skips[k]
            distinct += 1.0 if plays[k] > 0 else 0.0
            fame += plays[k] * fact_value[item[k], POPULARITY]
    out[:] = np.nan
    if total + skipped > 0:
        out[0] = total
        out[1] = skipped / (total + skipped)
    if total > 0:
        out[2] = 1.0 - distinct / total
        out[3] = fame / total
    return total, total + skipped


@compiled()
def fill_products(candidate: Any, vector: Any, direction: Any, c: int, out: Any) -> None:
    """Fills out [c, n] with the products of the candidates' vectors and the first c of direction [d, LANES].

    Sums go over d in order, of BLOCK candidates side by side.
    """
    d = vector.shape[1]
    turned = np.empty((d, BLOCK), np.float32)
    for start in range(0, len(candidate), BLOCK):
        size = min(BLOCK, len(candidate) - start)
        for i in range(size):
            x = candidate[start + i]
            for j in range(d):
                turned[j, i] = vector[x, j]
        for k in range(c):
            total = out[k, start : start + size]
            total[:] = 0.0
            for j in range(d):
                one, row = direction[j, k], turned[j]
                for i in range(size):
                    total[i] += row[i] * one


@compiled()
def fill_directions(candidate: Any, vector: Any, direction: Any, share: Any, out: Any) -> None:
    """Fills out [0] with the candidates' cosines to the listener's vector, out [2:5] with those to the nearest and the
    second nearest interest, and to all by their share [c].

    direction [d, LANES]: vector, c interests, zeros.
    """
    product = np.empty((1 + len(share), len(candidate)), np.float32)
    fill_products(candidate, vector, direction, 1 + len(share), product)
    out[0] = product[0]
    if len(share) == 0:
        out[2:5] = np.nan
        return
    for n in range(len(candidate)):
        best = second = np.float32(-2.0)
        mean = np.float32(0.0)
        for c in range(len(share)):
            value = product[1 + c, n]
            mean += share[c] * value
            second = max(second, min(best, value))
            best = max(best, value)
        out[2, n], out[3, n], out[4, n] = best, second if len(share) != 1 else best, mean


@compiled()
def cosine_of(x: int, own: Any, factor: Any) -> Any:
    """The sum of own [f] x factor [x, f], which is in bytes, in LANES lanes."""
    f = len(own)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    j = 0
    while j + 8 <= f:
        s0 += own[j] * np.float32(factor[x, j])
        s1 += own[j + 1] * np.float32(factor[x, j + 1])
        s2 += own[j + 2] * np.float32(factor[x, j + 2])
        s3 += own[j + 3] * np.float32(factor[x, j + 3])
        s4 += own[j + 4] * np.float32(factor[x, j + 4])
        s5 += own[j + 5] * np.float32(factor[x, j + 5])
        s6 += own[j + 6] * np.float32(factor[x, j + 6])
        s7 += own[j + 7] * np.float32(factor[x, j + 7])
        j += 8
    while j < f:
        s0 += own[j] * np.float32(factor[x, j])
        j += 1
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))


@compiled()
def fill_history(
    n: int, p: float, s: float, a: int, by_artist: Any, g: int, by_genre: Any, total: float, at_s: float, out: Any
) -> None:
    """Fills out [5:12, n] with plays and skips of an item, its artist a and its genre g; counts as of `add_up`."""
    out[5, n], out[6, n] = p, (s + 1.0) / (p + s + 2.0)
    p, s, last = by_artist[a, 0], by_artist[a, 1], by_artist[a, 2]
    out[7, n], out[8, n] = p, (s + 1.0) / (p + s + 2.0)
    out[9, n] = min(max((at_s - last) / _DAY_S, 0.0), _MOST_DAYS) if last > 0 else _MOST_DAYS
    p, s = by_genre[g, 0], by_genre[g, 1]
    out[10, n], out[11, n] = p / max(total, 1.0), (s + 2.0) / (p + s + 4.0)


@compiled(
    *(read(_INT), read(_COUNT), read(_COUNT), read(_INT)),  # the listener's items
    *(read(_FLOAT, 2), read(_FLOAT), read(_FLOAT), numba.float64),  # directions, shares, factor, at_s
    *(read(_INT), read(_FLOAT, 2), read(numba.int32, 2), read(_FLOAT, 2), _INT, _INT),  # candidates and items
    *(read(numba.int8, 2), write(_FLOAT, 2)),
)
def fill_values(
    item: Any,
    plays: Any,
    skips: Any,
    last_s: Any,
    direction: Any,
    share: Any,
    own_factor: Any,
    at_s: float,
    candidate: Any,
    vector: Any,
    fact: Any,
    fact_value: Any,
    n_artists: int,
    n_genres: int,
    factor: Any,
    out: Any,
) -> None:
    """Fills out [features, n], in the order of `DEFINITIONS`, NaN where a value is not known.

    item [k] ascending with plays, skips, last_s: of the listener. direction [d, LANES]: the listener's vector, then the
    interests, a column each; share [c]. own_factor [f], of unit length or zero. candidate [n] rows. Of each item vector
    [items, d] and fact [items, 8], see above; fact_value is the same memory read as float32. Of the first of them
    factor [<= items, f]: of unit length, in steps.
    """
    by_artist, by_genre = np.zeros((n_artists + 1, 3), np.float64), np.zeros((n_genres + 1, 3), np.float64)
    add_up(item, plays, skips, last_s, fact, ARTIST, by_artist)
    add_up(item, plays, skips, last_s, fact, GENRE, by_genre)
    own = np.empty(4, np.float32)
    total, heard = fill_listener(item, plays, skips, fact_value, own)
    known = np.any(own_factor != 0)
    if len(candidate):
        out[0, 0] = touch(candidate, vector, factor, fact_value)  # written over below
    fill_directions(candidate, vector, direction, share, out)
    table = places_of(item)
    nan = np.float32(np.nan)
    for n in range(len(candidate)):
        x = candidate[n]
        popularity = fact_value[x, POPULARITY]
        out[1, n] = popularity
        if heard > 0:
            at = place_of(x, item, table)
            p, s = (float(plays[at]), float(skips[at])) if at >= 0 else (0.0, 0.0)
            a, g = fact[x, ARTIST], fact[x, GENRE]  # -1, no label, is the last
            fill_history(n, p, s, a, by_artist, g, by_genre, total, at_s, out)
        else:
            for k in range(5, 12):
                out[k, n] = nan
        for k in range(4):
            out[12 + k, n] = own[k]
        out[16, n] = abs(popularity - own[3])
        out[17, n] = out[18, n] = nan
        if known and x < len(factor):
            cosine = cosine_of(x, own_factor, factor) * fact_value[x, STEP]
            out[17, n], out[18, n] = cosine * fact_value[x, LENGTH], cosine
        out[19, n], out[20, n] = fact_value[x, ALL_PLAYS], fact_value[x, ALL_SKIPS]


@compiled(read(_FLOAT, 2), read(_FLOAT, 2), _INT, write(numba.uint8, 2))
def fill_levels(value: Any, bound: Any, unknown: int, out: Any) -> None:
    """Fills out [n, f] with how many of the ascending bounds [f, 15] a value [f, n] has reached; `unknown` for NaN."""
    n = value.shape[1]
    level = np.empty(n, np.int32)
    for k in range(value.shape[0]):
        x, b = value[k], bound[k]
        for i in range(n):  # all bounds, side by side for many candidates: no way to go that could not be foreseen
            v = x[i]
            at = np.int32(v >= b[0]) + np.int32(v >= b[1]) + np.int32(v >= b[2]) + np.int32(v >= b[3])
            at += np.int32(v >= b[4]) + np.int32(v >= b[5]) + np.int32(v >= b[6]) + np.int32(v >= b[7])
            at += np.int32(v >= b[8]) + np.int32(v >= b[9]) + np.int32(v >= b[10]) + np.int32(v >= b[11])
            at += np.int32(v >= b[12]) + np.int32(v >= b[13]) + np.int32(v >= b[14])
            level[i] = at if v == v else unknown
        for i in range(n):
            out[i, k] = level[i]
