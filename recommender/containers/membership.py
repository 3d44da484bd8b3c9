"""Which items stand in which containers, from the columns of items.parquet and from playlists.parquet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Ints
from bart.types.items import CONTAINERS
from bart.types.members import Members
from recommender.events.columns import filled, numbers, one_chunk, text

BY_COLUMN = ("album", "show")  # columns of items that name the container of that type


def members_of(items: pa.Table, playlists: pa.Table | None = None) -> Members:
    """Rows of the members of each row of items.parquet.

    Tracks of an album and episodes of a show are those that name its id, the earliest release first; tracks of an
    artist those whose `artist_ids` hold the id or the title of the artist's row; of a playlist those of
    playlists.parquet, in their order. No container stands in a container.
    """
    n = len(items)
    kind = one_chunk(items["type"])
    held = filled(pc.invert(pc.is_in(kind, pa.array(CONTAINERS, pa.string()))))
    by_date = np.argsort(_days(items), kind="stable")
    pairs = []
    for name in BY_COLUMN:
        if name in items.column_names:
            pairs.append(_by_column(items, kind, name, by_date, held))
    pairs.append(_by_artist(items, kind, held))
    if playlists is not None:
        pairs.append(_by_playlist(items, kind, playlists, held))
    holder, member = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return Members.of_pairs(holder, member, n) if len(holder) else Members.none()


def _by_column(items: pa.Table, kind: pa.Array, name: str, order: Ints, held: Bools) -> tuple[Ints, Ints]:
    container = _rows_of_type(items, kind, name)
    place = _index_in(one_chunk(items[name]), container[0])
    member = order[(place[order] >= 0) & held[order]]
    return container[1][place[member]], member


def _by_artist(items: pa.Table, kind: pa.Array, held: Bools) -> tuple[Ints, Ints]:
    ids, row = _rows_of_type(items, kind, "artist")
    lists = one_chunk(items["artist_ids"])
    owner = np.repeat(np.arange(len(items)), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    label = lists.flatten()
    title = one_chunk(items["title"]).take(pa.array(row))
    place = _index_in(label, ids)
    by_title = _index_in(label, title)
    place = np.where(place >= 0, place, by_title)
    known = (place >= 0) & held[owner]
    return row[place[known]], owner[known]


def _by_playlist(items: pa.Table, kind: pa.Array, playlists: pa.Table, held: Bools) -> tuple[Ints, Ints]:
    ids, row = _rows_of_type(items, kind, "playlist")
    place = _index_in(text(playlists["playlist_id"]), ids)
    member = _index_in(text(playlists["item_id"]), one_chunk(items["item_id"]))
    position = np.arange(len(playlists), dtype=np.float64)
    if "position" in playlists.column_names:
        position, _ = numbers(playlists["position"])
    order = np.argsort(position, kind="stable")
    order = order[(place[order] >= 0) & (member[order] >= 0)]
    order = order[held[member[order]]]
    return row[place[order]], member[order]


def _rows_of_type(items: pa.Table, kind: pa.Array, name: str) -> tuple[pa.Array, Ints]:
    """Ids and rows of the items of one type."""
    row = np.flatnonzero(filled(pc.equal(kind, name)))
    return one_chunk(items["item_id"]).take(pa.array(row)), row


def _index_in(values: Any, among: pa.Array) -> Ints:
    """[m] place of each value, -1 where it is not there."""
    found = pc.index_in(values, value_set=among, skip_nulls=True)
    out: Ints = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return out


def _days(items: pa.Table) -> Ints:
    """[n] days since 1970 of the release; an unknown one comes last."""
    days = one_chunk(items["released_at"]).cast(pa.int32())
    out: Ints = pc.fill_null(days, 2**31 - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return out
