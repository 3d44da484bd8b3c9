"""Which items carry a label, and which shelves are explained by one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bart.types import ITEM_TYPES, Bools, Ints, ItemTable, Labels


def carries(labels: Labels, item: Ints, wanted: frozenset[str] | set[str]) -> Bools:
    """Which of the rows carry any of the wanted labels, [n]."""
    codes = [labels.index[label] for label in wanted if label in labels.index]
    out = np.zeros(len(item), dtype=np.bool_)
    if not codes:
        return out
    start = labels.offset[item]
    size = labels.offset[item + 1] - start
    owner = np.repeat(np.arange(len(item)), size)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(start, size)
    code = labels.code[place]
    hit = code == codes[0] if len(codes) == 1 else np.isin(code, codes)
    out[owner[hit]] = True
    return out


def is_artist(items: ItemTable, item: Ints, wanted: frozenset[str]) -> Bools:
    """Which of the rows are cards of the wanted artists themselves, by title or id, [n]."""
    out: Bools = items.type[item] == ITEM_TYPES.index("artist")
    for k in np.flatnonzero(out).tolist():
        out[k] = items.title[item[k]] in wanted or items.item_id[item[k]] in wanted
    return out


def is_named(items: ItemTable, words: Mapping[str, str], hidden: frozenset[str], artists: frozenset[str]) -> bool:
    """Whether the words of a shelf name a hidden item, one of a blocked artist, or such an artist."""
    item = words.get("item", "")
    row = items.row_of.get(item, -1)
    of = items.artists[row] if row >= 0 else ()
    if item in hidden or not artists.isdisjoint((*of, words.get("artist", ""))):
        return True
    told = f" and {words['words']} and " if "words" in words else ""
    return bool(told) and any(f" and {name} and " in told for name in artists)
