"""Item tables on disk: one Parquet file, written and read to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bart.errors import BundleError
from bart.types import ITEM_TYPES, ItemTable, Labels, Members

FILE = "items.parquet"
MEMBERS = "members"  # a list of rows an item; a table without it holds no containers
IMAGE = "image"  # where the cover is; a table without it has no covers


def save_items(items: ItemTable, directory: Path) -> None:
    """Writes `directory`/items.parquet; ids are strings, types are written out, vectors are fixed-size lists."""
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(items_to_arrow(items), directory / FILE, compression="zstd")


def load_items(directory: Path) -> ItemTable:
    """The table that `save_items` wrote. Raises BundleError where the file is missing or lacks a column."""
    path = directory / FILE
    if not path.is_file():
        raise BundleError(f"{path} is missing; expected an item table")
    try:
        with pq.ParquetFile(path) as file:  # `read_table` loads what reads datasets, for a file
            return items_from_arrow(file.read())
    except (pa.ArrowInvalid, KeyError) as error:
        raise BundleError(f"{path} is not an item table: {error}") from error


def items_to_arrow(items: ItemTable) -> pa.Table:
    """The table with one row an item, in row order."""
    vector = pa.FixedSizeListArray.from_arrays(pa.array(items.vector.reshape(-1)), items.dimension)
    size = items.members.size(len(items))
    offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int32)
    rows = pa.ListArray.from_arrays(pa.array(offset), pa.array(items.members.row.astype(np.int32)))
    members = {MEMBERS: rows} if size.any() else {}  # as before there were any, where there are none
    image = {} if items.image is None else {IMAGE: pa.array(items.image, pa.string())}
    return pa.table(
        {
            "item_id": pa.array(items.item_id, pa.string()),
            "title": pa.array(items.title, pa.string()),
            "type": pa.array(np.array(ITEM_TYPES, dtype=object)[items.type], pa.string()),
            "artists": _label_lists(items.artists),
            "genres": _label_lists(items.genres),
            "released_at": pa.array(items.released_at.astype("datetime64[D]")),
            "countries": _label_lists(items.countries),
            "explicit": pa.array(items.explicit),
            "popularity": pa.array(items.popularity),
            "duration_s": pa.array(items.duration_s),
            "vector": vector,
            **members,
            **image,
        }
    )


def items_from_arrow(table: pa.Table) -> ItemTable:
    """The item table of an Arrow table with the columns of `items_to_arrow`."""
    code = {name: number for number, name in enumerate(ITEM_TYPES)}
    vector = table["vector"].combine_chunks()
    if isinstance(vector, pa.ChunkedArray):
        vector = vector.chunk(0) if vector.num_chunks else pa.array([], vector.type)
    return ItemTable(
        item_id=_strings(table["item_id"]),
        title=_strings(table["title"]),
        type=np.array([code[name] for name in table["type"].to_pylist()], dtype=np.int8),
        artists=_labels(table["artists"]),
        genres=_labels(table["genres"]),
        released_at=table["released_at"].to_numpy().astype("datetime64[D]"),
        countries=_labels(table["countries"]),
        explicit=np.asarray(table["explicit"].to_numpy(zero_copy_only=False), dtype=np.bool_),
        popularity=table["popularity"].to_numpy().astype(np.float64),
        duration_s=table["duration_s"].to_numpy().astype(np.float64),
        vector=np.ascontiguousarray(
            vector.flatten()
            .to_numpy(zero_copy_only=False)
            .astype(np.float32)
            .reshape(len(table), vector.type.list_size)
        ),
        members=Members.of_lists(table[MEMBERS].to_pylist()) if MEMBERS in table.column_names else Members.none(),
        image=_strings(table[IMAGE]) if IMAGE in table.column_names else None,
    )


def _label_lists(labels: Labels) -> pa.Array:
    flat = pa.DictionaryArray.from_arrays(
        pa.array(labels.code.astype(np.int32)), pa.array(list(labels.vocabulary), pa.string())
    ).cast(pa.string())
    return pa.ListArray.from_arrays(pa.array(labels.offset.astype(np.int32)), flat)


def _labels(column: pa.ChunkedArray) -> Labels:
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    encoded = lists.flatten().dictionary_encode()
    offset = np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))])
    return Labels(
        encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        offset.astype(np.int64),
        tuple(encoded.dictionary.to_pylist()),
    )


def _strings(column: pa.ChunkedArray) -> Any:
    return np.array(column.to_pylist(), dtype=object)
