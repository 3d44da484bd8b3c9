"""Saves and follows that a service was told of, as rows of the event table: they count in plays, as a file's do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from bart.types import ITEM_TYPES, Ints, ItemTable
from recommender.events.schema import FURTHER

Signal = tuple[str, str, int]  # user id, item id, microseconds UTC


def with_signals(events: pa.Table, signals: Mapping[str, Iterable[Signal]], weight: Mapping[str, float]) -> pa.Table:
    """The event table with rows of given types behind it. weight: in plays, by type."""
    rows = [(*one, kind) for kind, told in signals.items() for one in told]
    if not rows:
        return events
    for name in ("type", "weight"):
        if name not in events.column_names:
            events = events.append_column(name, pa.nulls(len(events), FURTHER[name]))
    user, item, at_us, kind = zip(*rows, strict=True)
    given = {
        "user_id": user,
        "item_id": item,
        "started_at": pa.array(at_us, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "type": kind,
        "weight": [weight[name] for name in kind],
    }
    columns = {
        field.name: pa.array(given[field.name], field.type) if field.name in given else pa.nulls(len(rows), field.type)
        for field in events.schema
    }
    return pa.concat_tables([events, pa.table(columns, schema=events.schema)])


def stands_for(items: ItemTable, artist: str) -> str | None:
    """Id of the item that stands for an artist: the artist's own card, else the most popular item; None without any."""
    row: Ints = items.artists.rows_with(artist)
    if not len(row):
        return None
    cards = row[items.type[row] == ITEM_TYPES.index("artist")]
    among = cards if len(cards) else row
    return str(items.item_id[among[int(np.argmax(items.popularity[among]))]])
