"""Which columns with foreign names may be what is required, told by their values; only proposed, never taken."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import islice

import numpy as np
import pyarrow as pa

from recommender.events import columns as read
from recommender.events.blocks import known_names, propose
from recommender.events.importers.contract import Shape
from recommender.events.importers.files import SourceFile
from recommender.events.importers.tabular import delimiter_of, first_line, text_encoding

_ROWS = 200  # that are looked at
_MOST = 0.9  # share of values that must be times
_FROM_US, _TO_US = 631_152_000_000_000, 4_102_444_800_000_000  # 1990 to 2100


def proposed(file: SourceFile, shape: Shape, have: Mapping[str, str]) -> str:
    """The --map options that names suggest, and where these say nothing, values; "" for none.

    have: {our column: the file's column} that need none.
    """
    nested = {name for row in shape.first for name, value in row.items() if isinstance(value, list | dict)}
    names = [name for name in shape.names if name not in nested]
    mapping = dict(have) | known_names(names, have)
    sample = _sample(file, shape)
    free = [name for name in names if name not in mapping.values() and any(sample.get(name, []))]
    if "started_at" not in mapping:
        at = next((name for name in free if _is_time(sample[name])), None)
        if at is not None:
            mapping["started_at"] = at
            free.remove(at)
    free = [name for name in free if not _is_time(sample[name])]
    ids = [name for name in free if name.lower().endswith("id")] or free
    for ours, choose in (("item_id", max), ("user_id", min)):  # listeners come again more than items
        left = [name for name in ids if name not in mapping.values()]
        if ours not in mapping and left:
            mapping[ours] = choose(left, key=lambda name: len(set(sample[name])))
    return propose(names, have, mapping)


def _sample(file: SourceFile, shape: Shape) -> dict[str, list[str]]:
    """The first values of each column."""
    if shape.form == "json":
        return {name: [str(row.get(name) or "") for row in shape.first] for name in shape.names}
    if shape.form != "text":
        return {}
    head = file.head()
    words = head.decode(text_encoding(head), errors="replace")
    before, line = first_line(words)
    rows = list(islice(csv.reader(words.splitlines()[before + 1 :], delimiter=delimiter_of(line, file.name)), _ROWS))
    whole = [row for row in rows if len(row) == len(shape.names)]
    return {name: [row[at] for row in whole] for at, name in enumerate(shape.names)}


def _is_time(values: list[str]) -> bool:
    at_us, ok, *_ = read.times(pa.chunked_array([pa.array(values, pa.string())]))
    inside = ok & (at_us >= _FROM_US) & (at_us < _TO_US)
    return bool(len(values)) and float(np.mean(inside)) >= _MOST
