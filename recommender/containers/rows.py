"""Rows of items.parquet for the containers that its items name: an album, a show, a playlist that has a title.

An item names its album and its show by the id of a row of that type, or by a name: the title of such a row (of an
album by the same main artist, or by nobody), or one that gets a row of its own, an album one for each main artist. The
id stands there from then on; so doing it again changes nothing. What holds others stands in nothing. A playlist
becomes a row where it has a title (or has a row already): a file of a million nameless lists is there to learn from,
not to be shown. What a container's own row leaves out follows from its members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Floats, Members
from bart.types.items import CONTAINERS, CREDITED
from recommender.containers.membership import BY_COLUMN, members_of
from recommender.events import columns as read


def with_containers(items: pa.Table, playlists: pa.Table | None = None) -> pa.Table:
    """items.parquet with a row for every container that is named, behind the others, and ids in place of names.

    items: in the layout of `recommender.shelves.items.ITEM_SCHEMA`; playlists: playlist_id, item_id and, of those to be
    shown, title.
    """
    for column in BY_COLUMN:
        if column in items.column_names and items[column].null_count < len(items):
            items = _named(items, column)
    items = _playlists(items, playlists)
    return _filled(items, playlists)


def container_popularity(items: pa.Table, members: Members, popularity: Floats, plays: Floats) -> Floats:
    """[n] popularity of containers in [0, 1], beside others of their type; `popularity` of what is none.

    popularity, plays: [n] of each item. An album, an artist and a show count the plays of their members, by the
    logarithm's share of the most played one's; a playlist has the mean popularity of its members, since most of their
    plays are none of it.
    """
    n = len(items)
    holder, member = members.pairs()
    size = members.size(n)
    out = popularity.copy()
    out[size > 0] = (np.bincount(holder, weights=popularity[member], minlength=n) / np.maximum(size, 1))[size > 0]
    counted = np.log1p(np.bincount(holder, weights=plays[member], minlength=n))
    for kind in CREDITED:
        of_type = (size > 0) & read.filled(pc.equal(read.one_chunk(items["type"]), kind))
        most = float(counted[of_type].max(initial=0.0))
        if most > 0:
            out[of_type] = counted[of_type] / most
    return out


def _named(items: pa.Table, column: str) -> pa.Table:
    """The table with rows for what `column` names; the column holds ids."""
    ids, artists = items["item_id"].to_pylist(), items["artist_ids"].to_pylist()
    kinds, titles = items["type"].to_pylist(), items["title"].to_pylist()

    def main(row: int) -> str | None:
        return artists[row][0] if column == "album" and artists[row] else None

    there = [row for row, kind in enumerate(kinds) if kind == column]
    known = {ids[row] for row in there}
    titled = {(titles[row], main(row)): ids[row] for row in reversed(there)}  # of two of one name the first
    made: dict[str, str] = {}
    out: list[str | None] = []
    for row, name in enumerate(items[column].to_pylist()):
        if not name or kinds[row] in CONTAINERS:
            out.append(None)
            continue
        own = main(row)
        item_id = name if name in known else titled.get((name, own), titled.get((name, None)))
        if item_id is None:
            item_id = ":".join([column, *([] if own is None else [own]), name])
            if item_id not in known:
                made.setdefault(item_id, name)
        out.append(item_id)
    items = items.set_column(items.column_names.index(column), column, pa.array(out, pa.string()))
    return _with_rows(items, column, made)


def _playlists(items: pa.Table, playlists: pa.Table | None) -> pa.Table:
    """The table with a row for each playlist that has a title."""
    if playlists is None or "title" not in playlists.column_names:
        return items
    titles = {
        playlist: title
        for playlist, title in zip(
            read.text(playlists["playlist_id"]).to_pylist(), read.text(playlists["title"]).to_pylist(), strict=True
        )
        if playlist and title
    }
    return _with_rows(items, "playlist", titles)


def _with_rows(items: pa.Table, kind: str, titles: Mapping[str, str]) -> pa.Table:
    """The table with a bare row for each id that it lacks."""
    there = set(items["item_id"].to_pylist())
    new = {item_id: title for item_id, title in titles.items() if item_id not in there}
    if not new:
        return items
    rows = [{"item_id": item_id, "title": title, "type": kind} for item_id, title in sorted(new.items())]
    return pa.concat_tables([items, pa.Table.from_pylist(rows, schema=items.schema)])


def _filled(items: pa.Table, playlists: pa.Table | None) -> pa.Table:
    """What the rows of containers leave out, from their members."""
    members = members_of(items, playlists)
    holders = np.flatnonzero(members.size(len(items)))
    if not len(holders):
        return items
    columns = {name: items[name].to_pylist() for name in ("artist_ids", "genres", "released_at", "explicit", "type")}
    for row in holders.tolist():
        held = members[row].tolist()
        if not columns["artist_ids"][row] and columns["type"][row] != "playlist":
            columns["artist_ids"][row] = _commonest(
                columns["artist_ids"][k][:1] for k in held if columns["artist_ids"][k]
            )
        if not columns["genres"][row]:
            columns["genres"][row] = _commonest(columns["genres"][k] for k in held if columns["genres"][k])
        if columns["released_at"][row] is None and columns["type"][row] != "artist":
            columns["released_at"][row] = max(
                (columns["released_at"][k] for k in held if columns["released_at"][k] is not None), default=None
            )
        columns["explicit"][row] = any(columns["explicit"][k] for k in (row, *held))
    for name, values in columns.items():
        at = items.column_names.index(name)
        items = items.set_column(at, name, pa.array(values, items.schema.field(name).type))
    return items


def _commonest(lists: Iterable[list[Any]]) -> list[Any]:
    counted = Counter(tuple(one) for one in lists)
    return list(counted.most_common(1)[0][0]) if counted else []
