"""One event id, one decision: logs that are delivered at least once hold some of their events twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.ope.inputs.files import record_batches, text
from bart.types import Ints

NAMES = ("eventid", "decisionid")  # what a column of event ids is called, without case, _ and -
REPEATS = "event id repeats"


def event_column(names: Sequence[str]) -> str | None:
    """The column that holds event ids, told by its name; None where there is none."""
    return next((name for name in names if name.lower().replace("_", "").replace("-", "") in NAMES), None)


def count_repeats(path: Path, column: str) -> int:
    """Rows of a table whose event id stands in a row before."""
    import pyarrow.compute as pc

    rows = 0
    known: set[str] = set()
    for batch, _ in record_batches(path, [column]):
        rows += batch.num_rows
        known.update(pc.unique(text(path, batch, column, rows)).to_pylist())
    return rows - len(known)


def first_of_events(where: str, event: Any, values: Mapping[str, Any]) -> Ints | None:
    """Rows that are the first of their event, ascending; None where no event comes twice.

    event: [n] ids or codes. values: [n] arrays that must agree on all rows of an event. Raises DataError where they do
    not: such rows are no repeats.
    """
    _, first, inverse = np.unique(event, return_index=True, return_inverse=True)
    if len(first) == len(event):
        return None
    origin = first[inverse.reshape(-1)]
    for name, array in values.items():
        off = np.asarray(array[origin] != array)
        if off.any():
            at = int(np.flatnonzero(off.reshape(len(event), -1).any(axis=1))[0])
            raise DataError(
                f"{where}: rows {origin[at] + 1} and {at + 1} are one event and differ in {name}; expected one row an"
                " event, or another --event-id (none: rows are decisions)"
            )
    out: Ints = np.sort(first).astype(np.int64)
    return out
