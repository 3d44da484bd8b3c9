"""The item table of a batch: from a user's file, from what the events say of their items, or from both.

The stored form is items.parquet (`ITEM_SCHEMA`); only item_id is required of users. Popularity is counted from plays
where the file gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import ITEM_TYPES, Bools, Floats, Floats32, ItemTable, Labels, Strings
from recommender.containers.membership import members_of
from recommender.containers.rows import container_popularity, with_containers
from recommender.events import columns as read
from recommender.sessions.codes import coded
from recommender.sessions.plays import worth

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        ("title", pa.string()),
        ("type", pa.string()),
        ("artist_ids", pa.list_(pa.string())),
        ("genres", pa.list_(pa.string())),
        ("released_at", pa.date32()),
        ("duration_s", pa.float64()),
        ("explicit", pa.bool_()),
        ("countries", pa.list_(pa.string())),
        ("popularity", pa.float64()),
        ("album", pa.string()),
        ("show", pa.string()),
        ("image", pa.string()),
    ]
)
# One artist or genre a row, under the names that event files use, is a list of one.
_SINGULAR = {"artist_ids": "artist", "genres": "genre"}
_LISTS = ("artist_ids", "genres", "countries")
_SEPARATORS = r"\s*[;|]\s*"
_FIRST_DAY, _LAST_DAY = (day.toordinal() - date(1970, 1, 1).toordinal() for day in (date.min, date.max))


@dataclass(frozen=True, slots=True, eq=False)
class LoadedItems:
    """items.parquet as a table, and notes on rows that were left out or mended."""

    items: pa.Table
    notes: tuple[str, ...]


def read_items(table: pa.Table, mapping: Mapping[str, str] | None = None) -> LoadedItems:
    """The item table of a user's file, sorted by id.

    mapping: {our column: the file's column}. Lists may be lists or text separated by `;` or `|`. A repeated id keeps
    its first row. Raises DataError where item_id is missing or a column cannot be read.
    """
    known = (*ITEM_SCHEMA.names, *_SINGULAR.values())
    for ours, theirs in (mapping or {}).items():
        if ours not in known:
            raise DataError(f"column mapping names {ours!r}; expected one of {', '.join(known)}")
        if theirs not in table.column_names:
            raise DataError(f"{ours} is mapped to {theirs!r}; columns: {', '.join(table.column_names)}")
    source = {name: name for name in known if name in table.column_names} | dict(mapping or {})
    if "item_id" not in source:
        raise DataError(f"no column for item_id; columns: {', '.join(table.column_names)}")
    columns = {ours: table.column(theirs) for ours, theirs in source.items()}
    keep, notes = _first_of_each(_readable(ITEM_SCHEMA.field("item_id"), columns["item_id"]))
    out: dict[str, pa.Array] = {}
    for entry in ITEM_SCHEMA:
        name = entry.name if entry.name in columns else _SINGULAR.get(entry.name, entry.name)
        out[entry.name] = (
            _readable(entry, columns[name].take(keep)) if name in columns else pa.nulls(len(keep), entry.type)
        )
    return LoadedItems(pa.table(out, schema=ITEM_SCHEMA).sort_by("item_id"), notes)


def items_of_events(item_text: pa.Table) -> pa.Table:
    """items.parquet made from what the events said of their items (`LoadedEvents.item_text`)."""
    return read_items(item_text).items


def complete(
    items: pa.Table, events: pa.Table, item_text: pa.Table | None = None, playlists: pa.Table | None = None
) -> pa.Table:
    """items.parquet with a row for every played item and every container that is named, titles for all, and popularity
    from plays where it is null.

    items: of `read_items`; events: the event table; item_text: fills what `items` leaves null; playlists: the lists
    that are items too. An item without a title shows its id.
    """
    said = items_of_events(item_text) if item_text is not None else read_items(pa.table({"item_id": []})).items
    played = pa.table({"item_id": coded(events["item_id"])[0]})
    ids = pc.unique(pa.concat_arrays([read.one_chunk(t["item_id"]) for t in (items, said, played)]))
    ids = ids.take(pc.array_sort_indices(ids))
    out: dict[str, pa.Array] = {"item_id": ids}
    for entry in list(ITEM_SCHEMA)[1:]:
        first, second = (_looked_up(t, entry.name, ids) for t in (items, said))
        out[entry.name] = (
            pc.if_else(pc.is_valid(first), first, second)
            if not pa.types.is_list(entry.type)
            else (_first_list(first, second))
        )
    out["title"] = pc.coalesce(out["title"], ids)
    out["type"] = pc.fill_null(out["type"], "track")
    table = with_containers(pa.table(out, schema=ITEM_SCHEMA), playlists).sort_by("item_id")
    plays = counts(events, read.one_chunk(table["item_id"]))
    counted = container_popularity(table, members_of(table, playlists), popularity(plays), plays)
    at = table.column_names.index("popularity")
    return table.set_column(at, "popularity", pc.coalesce(read.one_chunk(table["popularity"]), pa.array(counted)))


def counts(events: pa.Table, item_ids: pa.Array) -> Floats:
    """What the events of each item count together, in plays, [n], at least 0; a skipped play is none."""
    row = read.rows_of(events["item_id"], item_ids.to_pylist())
    known = row >= 0
    total = np.bincount(row[known], weights=worth(events)[known], minlength=len(item_ids))
    return np.maximum(total, 0.0)


def popularity(plays: Floats) -> Floats:
    """Plays on a scale of 0 to 1: the logarithm's share of the most played item's."""
    most = float(np.log1p(plays.max(initial=0)))
    return np.log1p(plays) / most if most > 0 else np.zeros(len(plays))


def item_table(
    items: pa.Table, vector: Floats32 | None = None, dimension: int = 40, playlists: pa.Table | None = None
) -> ItemTable:
    """The records of `bart.types` for items.parquet; vector: [n, d] in row order, zeros where there are none.

    playlists: playlists.parquet, whose entries are the members of those that are items.
    """
    n = len(items)
    if vector is None:
        vector = np.zeros((n, dimension), dtype=np.float32)
    if vector.shape[0] != n:
        raise ValueError(f"vector has {vector.shape[0]} rows; expected {n}, one an item")
    kinds = pc.index_in(read.one_chunk(pc.fill_null(items["type"], "track")), pa.array(ITEM_TYPES))
    if kinds.null_count:
        bad = items["type"][int(np.flatnonzero(~read.present(kinds))[0])]
        raise DataError(f"item type is {bad.as_py()!r}; expected one of {', '.join(ITEM_TYPES)}")
    return ItemTable(
        item_id=_strings(items["item_id"]),
        title=_strings(pc.coalesce(items["title"], items["item_id"])),
        type=kinds.to_numpy().astype(np.int8),
        artists=_labels(items["artist_ids"]),
        genres=_labels(items["genres"]),
        released_at=read.one_chunk(items["released_at"]).to_numpy(zero_copy_only=False).astype("datetime64[D]"),
        countries=_labels(items["countries"]),
        explicit=read.filled(read.one_chunk(items["explicit"])),
        popularity=pc.fill_null(read.one_chunk(items["popularity"]), 0.0).to_numpy(),
        duration_s=read.one_chunk(items["duration_s"]).to_numpy(zero_copy_only=False).astype(np.float64),
        vector=np.ascontiguousarray(vector, dtype=np.float32),
        members=members_of(items, playlists),
        image=_images(items),
    )


def _readable(entry: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    """One column of a user's file in the stored type. Raises DataError for a type that cannot be read as it."""
    kind = column.type
    if not pa.types.is_nested(kind.value_type if pa.types.is_list(entry.type) and _holds_lists(kind) else kind):
        try:
            return _column(entry, column)
        except pa.ArrowException:  # such as bytes that are no text
            pass
    raise DataError(f"{entry.name} holds {kind}; expected {_WANTED.get(entry.name, 'text')}")


def _holds_lists(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _column(entry: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    """One column in the stored type; DataError naming the first value that cannot be read."""
    if pa.types.is_list(entry.type):
        if _holds_lists(column.type):
            return _labels_of(read.one_chunk(column.cast(entry.type)))
        return _labels_of(pc.split_pattern_regex(read.text(column), _SEPARATORS).cast(entry.type))
    if pa.types.is_boolean(entry.type):
        value, bad = read.truths(column)
    elif pa.types.is_floating(entry.type):
        number, bad = read.numbers(column)
        if entry.name == "popularity":
            number = _scaled(number)
        elif entry.name == "duration_s":
            bad = bad | (np.nan_to_num(number) < 0)
        value = pa.array(number, mask=np.isnan(number))
    elif pa.types.is_date(entry.type):
        value, bad = _dates(column)
    else:
        value, bad = read.text(column), np.zeros(len(column), dtype=bool)
        if entry.name == "type":
            value = pc.utf8_lower(value)
            bad = read.present(value) & ~read.filled(pc.is_in(value, pa.array(ITEM_TYPES)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{entry.name} of item {row + 1} is {column[row].as_py()!r}; expected {_WANTED[entry.name]}")
    return value


def _labels_of(lists: pa.Array) -> pa.Array:
    """The lists without blanks around their entries and without entries that say nothing."""
    entry = read.text(pa.chunked_array([pc.list_flatten(lists)]))
    said = read.present(entry)
    of_list = pc.list_parent_indices(lists).to_numpy()[said]
    offset = np.searchsorted(of_list, np.arange(len(lists) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offset), entry.filter(pa.array(said)), mask=pa.array(~read.present(lists)))


_WANTED = {
    **dict.fromkeys(_LISTS, "a list of texts, or text"),
    "explicit": "true or false",
    "popularity": "a number >= 0",
    "duration_s": "seconds >= 0",
    "released_at": "a date or a year",
    "type": f"one of {', '.join(ITEM_TYPES)}",
}


def _scaled(number: Floats) -> Floats:
    """Popularity in [0, 1]: counts and percentages are put on the scale of `popularity`."""
    if np.nanmin(number, initial=0) < 0:
        raise DataError(f"popularity holds {np.nanmin(number):g}; expected numbers >= 0")
    if np.nanmax(number, initial=0) <= 1:
        return number
    scaled: Floats = np.log1p(number) / np.log1p(np.nanmax(number))
    return scaled


def _dates(column: pa.ChunkedArray) -> tuple[pa.Array, Bools]:
    """Dates; a bare year is its first day."""
    words = read.text(column) if not pa.types.is_temporal(column.type) else None
    if words is not None:
        words = pc.replace_substring_regex(words, r"^\s*(\d{4})(-(\d{2}))?\s*$", r"\1-\3-01")
        words = pc.replace_substring(words, "--", "-01-")
        column = pa.chunked_array([words])
    missing = ~read.present(read.one_chunk(column))
    at_us, ok, *_ = read.times(column)
    day = at_us // 86_400_000_000
    ok = ok & (day >= _FIRST_DAY) & (day <= _LAST_DAY)
    return pa.array(day, mask=~ok).cast(pa.int32()).cast(pa.date32()), ~ok & ~missing


def _first_of_each(item: pa.Array) -> tuple[pa.Array, tuple[str, ...]]:
    """Rows of the first appearance of each id, and what was left out."""
    present = np.flatnonzero(read.present(item))
    code = item.take(pa.array(present)).dictionary_encode().indices.to_numpy()
    _, first = np.unique(code, return_index=True)
    keep = np.sort(present[first]) if len(present) else present
    notes = []
    if len(item) > len(present):
        notes.append(f"{len(item) - len(present):,} items without an id left out")
    if len(present) > len(keep):
        notes.append(f"{len(present) - len(keep):,} repeated item ids left out; the first row of each is kept")
    return pa.array(keep), tuple(notes)


def _looked_up(table: pa.Table, name: str, ids: pa.Array) -> pa.Array:
    """The column in the order of ids, null where the table lacks a row, or (of an earlier version) the column."""
    if name not in table.column_names:
        return pa.nulls(len(ids), ITEM_SCHEMA.field(name).type)
    row = pc.index_in(ids, read.one_chunk(table["item_id"]))
    return read.one_chunk(table[name]).take(row)


def _first_list(first: pa.Array, second: pa.Array) -> pa.Array:
    """The first list where it is not empty, else the second (lists have no vectorised `if_else`)."""
    size = pc.fill_null(pc.list_value_length(first), 0).to_numpy()
    n = len(first)
    where = np.where(size > 0, np.arange(n), np.arange(n) + n)
    return pa.concat_arrays([first, second]).take(pa.array(where))


def _labels(column: pa.ChunkedArray) -> Labels:
    return Labels.of(column.to_pylist())


def _images(items: pa.Table) -> Strings | None:
    """Where covers are, None where no item has one (tables of earlier versions lack the column)."""
    if "image" not in items.column_names or items["image"].null_count == len(items):
        return None
    return _strings(pc.fill_null(items["image"], ""))


def _strings(column: pa.ChunkedArray | pa.Array) -> Strings:
    out = np.empty(len(column), dtype=object)
    out[:] = column.to_pylist()
    return out
