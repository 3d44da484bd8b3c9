"""What is told of an item, the item table of a publication, and the run's own catalogue that the next build reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from api.wire.schemas import Country, Id, Seconds, Text, Wire
from bart.types import ITEM_TYPES, ItemTable

if TYPE_CHECKING:
    import pyarrow as pa

MAX_MEMBERS = 10_000  # of a playlist
ItemType = Annotated[str, Field(pattern=f"^({'|'.join(ITEM_TYPES)})$")]


class ItemBody(Wire):
    """What is known of an item; what is not given is unknown, also of one that was there before."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"title": "Wake Up", "artists": ["The Holy Ravens"], "genres": ["folk"], "released_at": "2026-11-20"}
            ]
        }
    )

    title: Text = ""
    type: ItemType = "track"
    artists: Annotated[list[Id], Field(max_length=50)] = Field(default_factory=list)
    genres: Annotated[list[Id], Field(max_length=50)] = Field(default_factory=list)
    released_at: Annotated[date, Field(strict=False)] | None = None
    duration_s: Seconds | None = None
    explicit: bool = False
    countries: Annotated[list[Country], Field(max_length=300)] = Field(default_factory=list)
    popularity: Annotated[float, Field(ge=0, le=1)] = 0.0
    album: Id | None = Field(None, description="of a track: id of an album, or its name")
    show: Id | None = Field(None, description="of an episode: id of a show, or its name")
    image: Text | None = Field(None, description="cover: https address, or file below RUN/covers")
    members: Annotated[list[Id], Field(max_length=MAX_MEMBERS)] | None = Field(
        None, description="of a playlist: ids in order; not given: those it has"
    )


def extended(items: ItemTable, bodies: Mapping[str, ItemBody]) -> ItemTable:
    """The table with other facts for items that it holds and new rows, in order of their ids, for those it does not.

    Rows and vectors of what was there stay, but that a container has the mean of the members that it has now. A new
    item has the vector that its artists and genres let expect, or none; a container that a body names and nobody holds
    gets a row behind them.
    """
    import pyarrow as pa

    from recommender.containers.rows import container_popularity, with_containers
    from recommender.containers.vectors import with_container_vectors
    from recommender.shelves.items import ITEM_SCHEMA, item_table
    from recommender.vectors.content import fill_vectors

    columns = _columns(items)
    new = sorted(item_id for item_id in bodies if item_id not in items.row_of)
    for item_id in (*(i for i in bodies if i in items.row_of), *new):
        row, facts = items.row_of.get(item_id), _facts(item_id, bodies[item_id])
        for name, values in columns.items():
            if row is None:
                values.append(facts[name])
            else:
                values[row] = facts[name]
    playlists = _playlists(items, bodies)
    rows = with_containers(pa.table(columns, schema=ITEM_SCHEMA), playlists)
    vector = np.zeros((len(rows), items.dimension), dtype=np.float32)
    vector[: len(items)] = items.vector
    table = item_table(rows, vector, playlists=playlists)
    expected = container_popularity(rows, table.members, table.popularity, np.zeros(len(rows)))
    named = np.arange(len(rows)) >= len(columns["item_id"])  # containers that only their names brought
    vector[len(items) :] = fill_vectors(table)[len(items) :]
    table = replace(table, popularity=np.where(named, expected, table.popularity))
    return replace(table, vector=with_container_vectors(table, vector))


def update_catalogue(root: Path, bodies: Mapping[str, ItemBody]) -> None:
    """items.parquet and playlists.parquet of a run, where it has them, say what the bodies say."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from bart.log.store.files import write_atomically
    from recommender.shelves.items import ITEM_SCHEMA

    def put(file: Path, key: str, gone: list[str], fresh: pa.Table) -> pa.Table:
        stored = pq.read_table(file)
        kept = stored.filter(pc.invert(pc.is_in(stored[key].cast(pa.string()), pa.array(gone, pa.string()))))
        return pa.concat_tables([kept, fresh], promote_options="permissive")

    file = root / "items.parquet"
    if file.is_file():
        rows = [{**body.model_dump(), "item_id": key, "artist_ids": body.artists} for key, body in bodies.items()]
        merged = put(file, "item_id", list(bodies), pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)).sort_by("item_id")
        write_atomically(file, lambda beside: pq.write_table(merged, beside, compression="zstd"))
    lists = {key: body.members for key, body in bodies.items() if body.type == "playlist" and body.members is not None}
    file = root / "playlists.parquet"
    if lists and file.is_file():
        merged = put(file, "playlist_id", list(lists), _entries(lists))
        write_atomically(file, lambda beside: pq.write_table(merged, beside, compression="zstd"))


def _columns(items: ItemTable) -> dict[str, list[Any]]:
    """The table as columns of items.parquet, in row order."""
    from bart.item_store import items_to_arrow

    stored = items_to_arrow(items)
    columns = {name: stored[name].to_pylist() for name in stored.column_names if name not in ("vector", "members")}
    columns["artist_ids"] = columns.pop("artists")
    columns.setdefault("image", [None] * len(items))
    for kind in ("album", "show"):
        columns[kind] = [None] * len(items)
        for holder in np.flatnonzero(items.is_container & (items.type == ITEM_TYPES.index(kind))).tolist():
            for member in items.members[holder].tolist():
                columns[kind][member] = columns[kind][member] or items.item_id[holder]
    return columns


def _playlists(items: ItemTable, bodies: Mapping[str, ItemBody]) -> pa.Table:
    """playlists.parquet of the playlists that the table or a body holds."""
    lists = {
        str(items.item_id[row]): [str(items.item_id[member]) for member in items.members[row].tolist()]
        for row in np.flatnonzero(items.is_container & (items.type == ITEM_TYPES.index("playlist"))).tolist()
    }
    given = {key: body.members for key, body in bodies.items() if body.members is not None}
    return _entries({**lists, **given})


def _entries(lists: Mapping[str, list[str]]) -> pa.Table:
    import pyarrow as pa

    rows = [(key, place, member) for key, held in lists.items() for place, member in enumerate(held)]
    playlist, position, item = ([row[side] for row in rows] for side in range(3))
    return pa.table(
        {
            "playlist_id": pa.array(playlist, pa.string()),
            "position": pa.array(position, pa.int32()),
            "item_id": pa.array(item, pa.string()),
        }
    )


def _facts(item_id: str, body: ItemBody) -> dict[str, Any]:
    facts = body.model_dump()
    facts["title"] = facts["title"] or item_id
    facts["duration_s"] = np.nan if facts["duration_s"] is None else facts["duration_s"]
    return {**facts, "item_id": item_id, "artist_ids": facts["artists"]}
