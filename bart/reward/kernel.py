"""The inner loop of the compiled reward model: contract the context, then the listener, then all candidates.

One function serves a single page and a batch of many, so both give the same bits. Sums run in eight fixed lanes, never
reordered by the compiler. The facts of an item share one cache line, and they and its vector are touched for all
candidates of a page before they are used: waiting for memory one candidate at a time would take three times as long.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bart.compiled import compiled, read, write
from bart.reward.feature_hash import FNV_PRIME

_INT, _UINT, _INT32, _FLOAT = numba.int64, numba.uint64, numba.int32, numba.float32
_PRIME = np.uint64(FNV_PRIME)
FINE, NOT_FINITE = -1, -2
BLOCK = 64  # candidates whose memory is read ahead: as much as stays near


@compiled()
def contract(u: Any, c0: int, c1: int, c2: int, full: Any, full_context: Any, lane: Any) -> None:
    """Fills lane [d] with the weights of an item's vector by its crosses with the listener u [d] and the context."""
    d = len(lane)
    for k in range(d):
        lane[k] = 0.0
    for j in range(full.shape[0]):
        for k in range(d):
            lane[k] += u[j] * full[j, k]
    if full_context.shape[0] > 0 and full.shape[0] > 0:
        for j in range(d):
            for k in range(d):
                lane[k] += u[j] * (full_context[c0, j, k] + full_context[c1, j, k] + full_context[c2, j, k])


@compiled()
def touch(item: Any, vector: Any, fact: Any) -> Any:
    """Reads a line of each item's memory, so that the loop after it does not wait for one after the other."""
    d = vector.shape[1]
    touched: Any = np.float32(0.0)
    code = 0
    for x in item:
        if x >= 0:
            code += fact[x, 0]
            for k in range(0, d, 16):
                touched += vector[x, k]
            touched += vector[x, d - 1]
    return touched + code


@compiled(inline=True)
def age_bucket(day: Any, released: Any, unknown_day: int, age_edge: Any) -> Any:
    """The bucket of an item's age on a day; the one after the last where its day of release is not known."""
    n_edge = age_edge.shape[0]
    if released == unknown_day:
        return n_edge + 1
    bucket = 0
    for k in range(n_edge):  # all of the ascending edges: no way to go that could not be foreseen
        bucket += day - released >= age_edge[k]
    return bucket


@compiled(inline=True)
def product(v: Any, z: Any, part: Any) -> Any:
    """The sum of v [d] x z [d], in eight lanes; part [d] is for it to write in: multiplied ahead, many at once."""
    d = len(part)
    for k in range(d):
        part[k] = v[k] * z[k]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    k = 0
    while k + 8 <= d:
        s0 += part[k]
        s1 += part[k + 1]
        s2 += part[k + 2]
        s3 += part[k + 3]
        s4 += part[k + 4]
        s5 += part[k + 5]
        s6 += part[k + 6]
        s7 += part[k + 7]
        k += 8
    while k < d:
        s0 += part[k]
        k += 1
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))


@compiled(inline=True)
def of_levels(level: Any, column: Any, table: Any) -> Any:
    """What the levels of a candidate add, each from its column, in four lanes that do not wait for each other."""
    f = len(column)
    s0 = s1 = s2 = s3 = np.float32(0.0)
    k = 0
    while k + 4 <= f:
        s0 += table[k, level[column[k]]]
        s1 += table[k + 1, level[column[k + 1]]]
        s2 += table[k + 2, level[column[k + 2]]]
        s3 += table[k + 3, level[column[k + 3]]]
        k += 4
    while k < f:
        s0 += table[k, level[column[k]]]
        k += 1
    return (s0 + s2) + (s1 + s3)


@compiled(inline=True)
def of_pair(own: Any, other: Any, hashed: Any, known: Any) -> Any:
    """What the cross of two identities adds."""
    return known * hashed[np.int64(((own * _PRIME) ^ other) & np.uint64(hashed.shape[0] - 1))]


@compiled()
def alone_and_by_genre(own: Any, partners: int, genre_index: Any, hashed: Any, known: Any, row: Any) -> Any:
    """What a listener adds to every card; adds to row what each genre does."""
    if partners & 4:
        for k in range(len(genre_index)):
            row[k] += of_pair(own, genre_index[k], hashed, known)
    alone = known * hashed[np.int64(own & np.uint64(hashed.shape[0] - 1))]
    return alone if partners & 1 else np.float32(0.0)


@compiled()
def by_artist(own: Any, item: Any, fact: Any, hashed: Any, known: Any, out: Any) -> None:
    """Fills out [n] with what a listener adds to the artist of each item: in a loop of its own, since each weight lies
    anywhere in memory, and many are then waited for at once."""
    half, mask = own * _PRIME, np.uint64(hashed.shape[0] - 1)
    for n in range(len(item)):
        index = half ^ np.uint64(np.uint32(fact[max(item[n], 0), 5]))
        out[n] = known * hashed[np.int64(index & mask)]


@compiled()
def fault_of(item: Any, n_items: int, listener: Any) -> int:
    """FINE, the place of an item that is neither a row of the table nor -1, or NOT_FINITE for a listener."""
    for n in range(len(item)):
        if item[n] < -1 or item[n] >= n_items:
            return n
    return FINE if np.all(np.isfinite(listener)) else NOT_FINITE


@compiled(
    *(read(_INT, 2), read(_INT), read(_FLOAT, 2)),  # page_context, page_day, listener
    *(read(_INT), read(_INT), read(_INT), read(_INT), read(_INT), _INT),  # candidates and shelves
    *(read(_FLOAT, 2), read(_INT32, 2), read(_FLOAT, 2)),  # items
    *(read(_INT), _INT, numba.float64, read(_FLOAT), read(_FLOAT), read(_FLOAT, 2), read(_FLOAT, 2)),  # weights
    *(read(_FLOAT, 2), read(_FLOAT, 3), _INT, read(numba.uint8, 2), read(_INT), read(_FLOAT, 2)),
    *(read(_UINT), _INT, read(_UINT), read(_UINT), _INT, read(_FLOAT), _FLOAT, write(numba.float64)),  # listeners' own
)
def logits(
    page_context: Any,
    page_day: Any,
    listener: Any,
    offset: Any,
    item: Any,
    shelf: Any,
    shelf_offset: Any,
    shelf_rule: Any,
    no_rule: int,
    vector: Any,
    fact: Any,
    fact_value: Any,
    age_edge: Any,
    unknown_day: int,
    bias: float,
    base: Any,
    listener_weight: Any,
    context_table: Any,
    rule_table: Any,
    full: Any,
    full_context: Any,
    n_fact: int,
    card_level: Any,
    level_column: Any,
    level_table: Any,
    owner: Any,
    partners: int,
    rule_index: Any,
    genre_index: Any,
    genre_start: int,
    hashed: Any,
    known: Any,
    out: Any,
) -> int:
    """Fills out [N] with the logit of each candidate and returns FINE, or what `fault_of` found.

    Per page: page_context [b, 3] context positions, page_day [b], listener [b, d] float32 (already scaled), candidates
    offset[i]:offset[i + 1] of item and shelf, shelves shelf_offset[i]:shelf_offset[i + 1] of shelf_rule (rows of
    rule_table; no_rule for candidates without a shelf). Of each item vector [n, d], and fact [n, 6]: codes of genre and
    type, popularity, day of release (unknown_day where not known), weight of the item itself, index of its artist;
    fact_value is the same memory read as float32.
    A row of weights holds [own, facts (n_fact), item vector (d), match (d)]: `base` for the features alone,
    context_table [contexts, ...] for their crosses with each context feature; rule_table [rules, ...] goes on with
    [listener (d), contexts]. full: [d or 0, d] crosses of the vectors, full_context [contexts or 0, d, d] those with
    context. card_level [N, names] of each candidate; level_column [levels] where each that is read stands
    there, level_table [levels, LEVELS] their weights.
    owner [b] indices of the listeners, whose own weights are found in `hashed` [2^bits] and count `known` times: alone,
    by rule_index [rows of rule_table], genre_index [genres] and artist, as `bart.reward.identity.partners_of` says.
    """
    fault = fault_of(item, len(fact), listener)
    if fault != FINE:
        return fault
    d = listener.shape[1]
    width = base.shape[0]
    at_v = 1 + n_fact
    at_m = at_v + d
    row = np.empty(width, dtype=np.float32)
    lane, part = np.empty(d, dtype=np.float32), np.empty(d, dtype=np.float32)
    most = 0
    for i in range(offset.shape[0] - 1):
        most = max(most, shelf_offset[i + 1] - shelf_offset[i])
    coefficient = np.empty((most + 1, d), dtype=np.float32)
    constant = np.empty(most + 1, dtype=np.float32)
    rule_of = np.empty(most + 1, dtype=np.int64)
    for i in range(offset.shape[0] - 1):
        c0, c1, c2 = page_context[i, 0], page_context[i, 1], page_context[i, 2]
        for k in range(width):
            row[k] = base[k] + (context_table[c0, k] + context_table[c1, k] + context_table[c2, k])
        u = listener[i]
        own = owner[i]
        level = np.float32(bias) + row[0]
        level += alone_and_by_genre(own, partners, genre_index, hashed, known, row[1 + genre_start :])
        for k in range(d):
            level += u[k] * listener_weight[k]
        contract(u, c0, c1, c2, full, full_context, lane)
        n_shelf = shelf_offset[i + 1] - shelf_offset[i]
        for s in range(n_shelf + 1):
            r = no_rule if s == n_shelf else shelf_rule[shelf_offset[i] + s]
            rule_of[s] = r
            weight = rule_table[r]
            at_u = width
            value = level + weight[0]
            if partners & 2:
                value += of_pair(own, rule_index[r], hashed, known)
            value += weight[at_u + d + c0] + weight[at_u + d + c1] + weight[at_u + d + c2]
            for k in range(d):
                value += u[k] * weight[at_u + k]
            constant[s] = value
            for k in range(d):
                coefficient[s, k] = (row[at_v + k] + weight[at_v + k] + lane[k]) + u[k] * (
                    row[at_m + k] + weight[at_m + k]
                )
        day = page_day[i]
        for start in range(offset[i], offset[i + 1], BLOCK):
            end = min(start + BLOCK, offset[i + 1])
            out[start] = touch(item[start:end], vector, fact)  # written over below
            if partners & 8:
                by_artist(own, item[start:end], fact, hashed, known, out[start:end])
            for n in range(start, end):
                s = shelf[n] if shelf[n] >= 0 else n_shelf
                value = constant[s] + of_levels(card_level[n], level_column, level_table)
                x = item[n]
                if x >= 0:
                    weight = rule_table[rule_of[s]]
                    bucket = age_bucket(day, fact[x, 3], unknown_day, age_edge)
                    g, t, a = 1 + fact[x, 0], 1 + fact[x, 1], 2 + bucket
                    value += (row[g] + weight[g]) + (row[t] + weight[t]) + (row[a] + weight[a])
                    value += fact_value[x, 2] * (row[1] + weight[1]) + fact_value[x, 4]
                    value += product(vector[x], coefficient[s], part)
                    if partners & 8:
                        value += np.float32(out[n])
                out[n] = value
    return FINE
