"""The inner loops of the features: values of all candidates of a visit, and their levels.

What is known of the listener's items, artists and genres stands in small tables, worked out once a visit; a candidate
looks its own up. Sums run in lanes of a fixed width, never reordered by the compiler, which makes machine code for many
numbers at once of loops over neighbours alone: hence what is turned or multiplied ahead of its sum.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bart.compiled import compiled, read, write

LANES = 8  # directions at most
BLOCK = 64  # candidates whose vectors are turned at once
# What is known of an item whoever asks, in one line of memory: codes of artist and genre (-1 for none), then numbers;
# length of its factor, plays and share of skips by all (NaN where not known). FLAGS: 1 for what holds others: the plays
# of a container are those of its members once more, so they count for it alone; then the levels of popularity and of
# plays and skips by all, four bits each. Last what one step of its unit factor, kept in bytes, stands for.
ARTIST, GENRE, POPULARITY, LENGTH, ALL_PLAYS, ALL_SKIPS, FLAGS, STEP = range(8)
CONTAINER = 1
LEVEL_BITS = 4
# Columns of the features, in the order of `DEFINITIONS`, of which some stand side by side.
OF_ITEM, OF_HISTORY, OF_ARTIST, OF_GENRE, OF_LISTENER, OF_ALL = 1, 5, 7, 10, 12, 19
COMPUTED = (0, 2, 3, 4, 16, 17, 18)  # those that are worked out for each candidate by itself
_INT, _COUNT, _FLOAT, _LEVEL = numba.int64, numba.uint16, numba.float32, numba.uint8
_SPREAD = 0x9E3779B1  # multiplies neighbouring rows apart
_DAY_S = 86_400.0
_MOST_DAYS = 99.0


@compiled(inline=True)
def place_of(row: Any, item: Any, table: Any) -> Any:
    """Where a row stands in `item`, -1 where it does not."""
    last = len(table) - 1
    at = (row * _SPREAD) & last
    while table[at] >= 0 and item[table[at]] != row:
        at = (at + 1) & last
    return table[at]


@compiled()
def distinct(row: Any) -> Any:
    """The distinct ones of rows [k], in order, and their hash table: [2^b] places among them, -1 where none stands; at
    most half of it is filled. Third the place [k] of each."""
    size = 8
    while size < 2 * len(row):
        size *= 2
    table = np.full(size, -1, np.int32)
    known, place, m = np.empty(len(row), np.int64), np.empty(len(row), np.int64), 0
    for k in range(len(row)):
        at = (row[k] * _SPREAD) & (size - 1)
        while table[at] >= 0 and known[table[at]] != row[k]:
            at = (at + 1) & (size - 1)
        if table[at] < 0:
            table[at], known[m] = m, row[k]
            m += 1
        place[k] = table[at]
    return known[:m], table, place


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
def of_label(item: Any, plays: Any, skips: Any, last_s: Any, fact: Any, label: int) -> Any:
    """Labels fact [items, label] of the listener's items, their hash table, and count [labels + 1, 3] of plays, skips
    and the last play; zeros last, of a label that was not heard. Containers are passed over."""
    of = np.empty(len(item), np.int64)
    for k in range(len(item)):
        of[k] = fact[item[k], label]
    known, table, place = distinct(of)
    count = np.zeros((len(known) + 1, 3), np.float64)
    for k in range(len(item)):
        if fact[item[k], FLAGS] & CONTAINER == 0:
            at = place[k]
            count[at, 0] += plays[k]
            count[at, 1] += skips[k]
            if plays[k] > 0:
                count[at, 2] = max(count[at, 2], last_s[k])
    return known, table, count


@compiled()
def fill_listener(item: Any, plays: Any, skips: Any, fact: Any, fact_value: Any, out: Any) -> Any:
    """Fills out [4] with the listener's own features, NaN of one who was not heard; returns the plays and skips."""
    total = skipped = distinct = fame = 0.0
    for k in range(len(item)):
        if fact[item[k], FLAGS] & CONTAINER == 0:
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
def fill_products(candidate: Any, vector: Any, direction: Any, c: int, turned: Any, out: Any) -> None:
    """Fills out [c, m] with the products of the candidates' vectors and the first c of direction [d, LANES].

    turned [d, m or more] is for it to write in. Sums go over d in order, of all candidates side by side.
    """
    d, m = vector.shape[1], len(candidate)
    for i in range(m):
        x = candidate[i]
        for j in range(d):
            turned[j, i] = vector[x, j]
    for k in range(c):
        for i in range(m):
            out[k, i] = 0.0
        j = 0
        while j + 4 <= d:  # a sum is read and kept once for four
            a, b, e, f = direction[j, k], direction[j + 1, k], direction[j + 2, k], direction[j + 3, k]
            for i in range(m):
                one = out[k, i] + turned[j, i] * a
                out[k, i] = ((one + turned[j + 1, i] * b) + turned[j + 2, i] * e) + turned[j + 3, i] * f
            j += 4
        while j < d:
            for i in range(m):
                out[k, i] += turned[j, i] * direction[j, k]
            j += 1


@compiled()
def fill_directions(product: Any, share: Any, m: int, out: Any) -> None:
    """Fills out [0] with the candidates' cosines to the listener's vector, out [1:4] with those to the nearest and the
    second nearest interest, and to all by their share [c]. product [1 + c, m]: of the vector and the interests."""
    for i in range(m):
        out[0, i] = product[0, i]
        out[1, i] = out[2, i] = -2.0
        out[3, i] = 0.0
    for c in range(len(share)):
        for i in range(m):
            value = product[1 + c, i]
            out[3, i] += share[c] * value
            out[2, i] = max(out[2, i], min(out[1, i], value))
            out[1, i] = max(out[1, i], value)
    if len(share) == 0:
        out[1:4] = np.nan
    if len(share) == 1:
        out[2] = out[1]


@compiled()
def cosine_of(x: int, own: Any, factor: Any, part: Any) -> Any:
    """The sum of own [f] x factor [x, f], which is in bytes, in eight lanes; part [f] is for it to write in."""
    f = len(own)
    for j in range(f):
        part[j] = own[j] * np.float32(factor[x, j])
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    j = 0
    while j + 8 <= f:
        s0 += part[j]
        s1 += part[j + 1]
        s2 += part[j + 2]
        s3 += part[j + 3]
        s4 += part[j + 4]
        s5 += part[j + 5]
        s6 += part[j + 6]
        s7 += part[j + 7]
        j += 8
    while j < f:
        s0 += part[j]
        j += 1
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))


@compiled()
def fill_computed(
    candidate: Any, vector: Any, direction: Any, share: Any, own: Any, factor: Any, fact_value: Any, usual: Any, to: Any
) -> None:
    """Fills the first of `scratch`, [COMPUTED, BLOCK], with the features that each of at most BLOCK candidates has by
    itself. usual: popularity of what the listener plays."""
    out, turned, product, part = to
    m = len(candidate)
    out[6, 0] = touch(candidate, vector, factor, fact_value)  # written over below
    fill_products(candidate, vector, direction, 1 + len(share), turned, product)
    fill_directions(product, share, m, out)
    known = np.any(own != 0)
    for i in range(m):
        x = candidate[i]
        out[4, i] = abs(fact_value[x, POPULARITY] - usual)
        out[5, i] = out[6, i] = np.nan
        if known and x < len(factor):
            cosine = cosine_of(x, own, factor, part) * fact_value[x, STEP]
            out[5, i], out[6, i] = cosine * fact_value[x, LENGTH], cosine


@compiled()
def scratch(d: int, f: int) -> Any:
    """What `fill_computed` writes in, for d dimensions and f factors."""
    f32 = np.float32
    out, turned = np.empty((len(COMPUTED), BLOCK), f32), np.empty((d, BLOCK), f32)
    return out, turned, np.empty((LANES, BLOCK), f32), np.empty(f, f32)


@compiled()
def tables_of(item: Any, plays: Any, skips: Any, last_s: Any, fact: Any, fact_value: Any, at_s: float) -> Any:
    """What is known of the listener's own: values [4]; the items, their hash table and values [2, items + 1]; the same
    of artists [3, ...] and genres [2, ...]. The last value is of what was not heard; all are NaN where nothing was.
    """
    there = 0
    while there < len(item) and item[there] < len(fact):  # ascending; the batch does not hold the others
        there += 1
    item = item[:there]
    own = np.empty(4, np.float32)
    total, heard = fill_listener(item, plays, skips, fact, fact_value, own)
    known, table, _ = distinct(item)
    by_item = np.empty((2, there + 1), np.float32)
    for k in range(there + 1):
        p, s = (float(plays[k]), float(skips[k])) if k < there else (0.0, 0.0)
        by_item[0, k], by_item[1, k] = p, (s + 1.0) / (p + s + 2.0)
    artist, artist_table, count = of_label(item, plays, skips, last_s, fact, ARTIST)
    by_artist = np.empty((3, len(count)), np.float32)
    for k in range(len(count)):
        p, s, last = count[k, 0], count[k, 1], count[k, 2]
        by_artist[0, k], by_artist[1, k] = p, (s + 1.0) / (p + s + 2.0)
        by_artist[2, k] = min(max((at_s - last) / _DAY_S, 0.0), _MOST_DAYS) if last > 0 else _MOST_DAYS
    genre, genre_table, count = of_label(item, plays, skips, last_s, fact, GENRE)
    by_genre = np.empty((2, len(count)), np.float32)
    for k in range(len(count)):
        p, s = count[k, 0], count[k, 1]
        by_genre[0, k], by_genre[1, k] = p / max(total, 1.0), (s + 2.0) / (p + s + 4.0)
    if not heard > 0:
        by_item[:], by_artist[:], by_genre[:] = np.nan, np.nan, np.nan
    return own, (known, table, by_item), (artist, artist_table, by_artist), (genre, genre_table, by_genre)


@compiled()
def look_up(candidate: Any, fact: Any, own: Any, items: Any, artists: Any, genres: Any, out: Any) -> None:
    """Fills the columns of out [m, features] that the listener's own tables give, of values or of levels."""
    item, item_table, by_item = items
    artist, artist_table, by_artist = artists
    genre, genre_table, by_genre = genres
    for n in range(len(candidate)):
        x = candidate[n]
        i = place_of(x, item, item_table)  # -1, not heard, is the last
        a = place_of(np.int64(fact[x, ARTIST]), artist, artist_table)
        g = place_of(np.int64(fact[x, GENRE]), genre, genre_table)
        out[n, OF_HISTORY], out[n, OF_HISTORY + 1] = by_item[0, i], by_item[1, i]
        out[n, OF_ARTIST], out[n, OF_ARTIST + 1], out[n, OF_ARTIST + 2] = (
            by_artist[0, a],
            by_artist[1, a],
            by_artist[2, a],
        )
        out[n, OF_GENRE], out[n, OF_GENRE + 1] = by_genre[0, g], by_genre[1, g]
        for k in range(4):
            out[n, OF_LISTENER + k] = own[k]


@compiled()
def fill_reached(value: Any, bound: Any, unknown: int, level: Any, out: Any) -> None:
    """Fills out [m] with how many of the ascending bounds [15] each value [m] has reached; `unknown` for NaN.

    level [m or more] int32 is for it to write in: all bounds are compared side by side for many values.
    """
    b = bound
    for i in range(len(value)):
        v = value[i]
        at = np.int32(v >= b[0]) + np.int32(v >= b[1]) + np.int32(v >= b[2]) + np.int32(v >= b[3])
        at += np.int32(v >= b[4]) + np.int32(v >= b[5]) + np.int32(v >= b[6]) + np.int32(v >= b[7])
        at += np.int32(v >= b[8]) + np.int32(v >= b[9]) + np.int32(v >= b[10]) + np.int32(v >= b[11])
        at += np.int32(v >= b[12]) + np.int32(v >= b[13]) + np.int32(v >= b[14])
        level[i] = at if v == v else unknown
    for i in range(len(value)):
        out[i] = level[i]


@compiled()
def levels_of(table: Any, bound: Any, unknown: int) -> Any:
    """The same rows and hash table of `tables_of`, with levels in the place of values [c, m]."""
    known, places, value = table
    out, level = np.empty(value.shape, np.uint8), np.empty(value.shape[1], np.int32)
    for k in range(len(value)):
        fill_reached(value[k], bound[k], unknown, level, out[k])
    return known, places, out


_GIVEN = (
    *(read(_INT), read(_COUNT), read(_COUNT), read(_INT)),  # the listener's items
    *(read(_FLOAT, 2), read(_FLOAT), read(_FLOAT), numba.float64),  # directions, shares, factor, at_s
    *(read(_INT), read(_FLOAT, 2), read(numba.int32, 2), read(_FLOAT, 2), read(numba.int8, 2)),  # candidates, items
)


@compiled(*_GIVEN, write(_FLOAT, 2))
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
    factor: Any,
    out: Any,
) -> None:
    """Fills out [n, features], in the order of `DEFINITIONS`, NaN where a value is not known.

    item [k] ascending with plays, skips, last_s: of the listener. direction [d, LANES]: the listener's vector, then the
    interests, a column each; share [c]. own_factor [f], of unit length or zero. candidate [n] rows. Of each item vector
    [items, d] and fact [items, 8], see above; fact_value is the same memory read as float32. Of the first of them
    factor [<= items, f]: of unit length, in steps.
    """
    own, items, artists, genres = tables_of(item, plays, skips, last_s, fact, fact_value, at_s)
    to = scratch(vector.shape[1], len(own_factor))
    for start in range(0, len(candidate), BLOCK):
        some, rows = candidate[start : start + BLOCK], out[start : start + BLOCK]
        fill_computed(some, vector, direction, share, own_factor, factor, fact_value, own[3], to)
        look_up(some, fact, own, items, artists, genres, rows)
        for i in range(len(some)):
            for k in range(len(COMPUTED)):
                rows[i, COMPUTED[k]] = to[0][k, i]
            x = some[i]
            rows[i, OF_ITEM] = fact_value[x, POPULARITY]
            rows[i, OF_ALL], rows[i, OF_ALL + 1] = fact_value[x, ALL_PLAYS], fact_value[x, ALL_SKIPS]


@compiled(*_GIVEN, read(_FLOAT, 2), _INT, write(_LEVEL, 2))
def fill_levels(
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
    factor: Any,
    bound: Any,
    unknown: int,
    out: Any,
) -> None:
    """Fills out [n, features] with the levels of the same values: how many of the bounds [features, 15] each has
    reached. What many candidates share is compared once, and what depends on the item alone is known (FLAGS)."""
    own, items, artists, genres = tables_of(item, plays, skips, last_s, fact, fact_value, at_s)
    mine, level = np.empty(4, np.uint8), np.empty(BLOCK, np.int32)
    for k in range(4):
        fill_reached(own[k : k + 1], bound[OF_LISTENER + k], unknown, level, mine[k : k + 1])
    by_item = levels_of(items, bound[OF_HISTORY:], unknown)
    by_artist = levels_of(artists, bound[OF_ARTIST:], unknown)
    by_genre = levels_of(genres, bound[OF_GENRE:], unknown)
    to = scratch(vector.shape[1], len(own_factor))
    for start in range(0, len(candidate), BLOCK):
        some, rows = candidate[start : start + BLOCK], out[start : start + BLOCK]
        fill_computed(some, vector, direction, share, own_factor, factor, fact_value, own[3], to)
        look_up(some, fact, mine, by_item, by_artist, by_genre, rows)
        for k in range(len(COMPUTED)):
            fill_reached(to[0][k, : len(some)], bound[COMPUTED[k]], unknown, level, rows[:, COMPUTED[k]])
        for i in range(len(some)):
            flags = fact[some[i], FLAGS] >> LEVEL_BITS
            rows[i, OF_ITEM] = flags & 15
            rows[i, OF_ALL], rows[i, OF_ALL + 1] = (flags >> LEVEL_BITS) & 15, (flags >> 2 * LEVEL_BITS) & 15
