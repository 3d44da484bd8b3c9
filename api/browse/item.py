"""What is known of one item, and items as a list tells them."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from api.wire.covers import NO_COVERS, Covers
from api.wire.why import neighbours
from bart.types import ITEM_TYPES, Ints, ItemTable
from recommender.features.source import HistoryFeatures
from recommender.shelves.candidates import ShelfCandidates

if TYPE_CHECKING:
    from api.browse.exposure import Window
    from api.service.service import HomeService

NEIGHBOURS = 12
MEMBERS = 100  # told of a container, in order
LISTS = ("popular", "rising")  # of the shelf tables, best first


def in_short(
    items: ItemTable, row: Ints, taken_down: Collection[str], covers: Covers = NO_COVERS
) -> list[dict[str, Any]]:
    """Items as a list tells them."""
    return [
        {
            "item_id": items.item_id[i],
            "title": items.title[i],
            "type": ITEM_TYPES[items.type[i]],
            "artists": list(items.artists[i]),
            "popularity": float(items.popularity[i]),
            "taken_down": items.item_id[i] in taken_down,
            **covers.fact(items, i),
        }
        for i in np.asarray(row).tolist()
    ]


def item_document(service: HomeService, item_id: str, window: Window) -> dict[str, Any] | None:
    """Facts, plays, containers, neighbours, shelves and exposure of an item of the batch; None for another one.

    plays: by all listeners until the batch was built, None where it did not count them. standing: its places on lists
    that shelves are made of.
    """
    items = service.run.items
    row = items.row_of.get(item_id, -1)
    if row < 0:
        return None
    in_list = partial(in_short, items, taken_down=service.control.read().taken_down, covers=service.writer.covers)
    released = items.released_at[row]
    return {
        **in_list(np.array([row]))[0],
        "batch_id": service.run.bundle.batch_id,
        "genres": list(items.genres[row]),
        "released_at": None if np.isnat(released) else str(released),
        "duration_s": None if np.isnan(items.duration_s[row]) else float(items.duration_s[row]),
        "explicit": bool(items.explicit[row]),
        "countries": list(items.countries[row]),
        "has_vector": bool(items.vector[row].any()),
        "plays": _plays(service, row),
        "holders": in_list(items.held_by[row]),
        "members": in_list(items.members[row][:MEMBERS]),
        "members_count": len(items.members[row]),
        "neighbours": neighbours(items, item_id, NEIGHBOURS, service.writer.covers),
        "standing": _standing(service, row),
        "exposure": window.of(item_id),
    }


def _plays(service: HomeService, row: int) -> int | None:
    features = service.run.ranker.features
    if not isinstance(features, HistoryFeatures) or row >= len(features.tables.of_all):
        return None
    return round(float(features.tables.of_all[row, 0]))


def _standing(service: HomeService, row: int) -> list[dict[str, Any]]:
    source = service.run.ranker.source
    if not isinstance(source, ShelfCandidates):
        return []
    tables = source.tables
    lists = [(name, getattr(tables, name)) for name in LISTS]
    lists += [(f"mood: {', '.join(words)}", rows) for words, rows in zip(tables.mood_words, tables.mood, strict=True)]
    found = [(name, np.flatnonzero(rows == row)) for name, rows in lists]
    return [{"list": name, "place": int(at[0]) + 1, "of": len(rows)}
            for (name, at), (_, rows) in zip(found, lists, strict=True) if len(at)]  # fmt: skip
