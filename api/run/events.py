"""The events of a run: parts that are put in place together, and a note of each that the listeners' states hold it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from bart.directories import link_tree, remove, replace_directory, sync_directory, sync_file

if TYPE_CHECKING:
    import pyarrow as pa

    from bart.types import ItemTable, Strings
    from recommender.events.parts import Part


def replace_parts(path: Path, touched: Sequence[Part], events: pa.Table) -> None:
    """Puts events in the place of those parts that they are the new content of; all of it or nothing.

    path: of the run's events. touched: parts beside each other, none where there is no file yet.
    """
    import pyarrow.parquet as pq

    from recommender.events.parts import complete_parts, cut, write_parts

    beside = path.with_name(f".{path.name}.new-{os.getpid()}")
    remove(beside)
    try:
        if not path.is_dir():
            write_parts(events, beside)
        else:
            link_tree(path, beside)
            for part in touched:
                (beside / part.path.name).unlink()  # or it would be written through the link
            for name, table in cut(events):
                pq.write_table(table, beside / name, compression="zstd")
            complete_parts(beside)
        made = list(beside.iterdir()) if beside.is_dir() else [beside]
        for file in made:
            if file.stat().st_nlink == 1:
                sync_file(file)
        if beside.is_dir():
            sync_directory(beside)
        replace_directory(beside, path)
    finally:
        remove(beside)


def known_items(item_id: Strings) -> str:
    """What stands for the items of a batch: another one where one was published, or another in its place after a
    rollback."""
    return blake2b("\0".join(item_id.tolist()).encode(), digest_size=8).hexdigest()


def note(part: Part, passed_over: Collection[str], unknown: bool, known: str) -> str:
    """What is noted of a part of which all sessions are in the states.

    passed_over: listeners of it who are not profiled. unknown: whether items of it are not among those of the batch.
    known: of these, `known_items`; with others, or as soon as one of those listeners is profiled, it has something to
    say again.
    """
    told = {"stamp": part.stamp, "passed_over": sorted(passed_over), "items": known if unknown else None}
    return json.dumps(told, ensure_ascii=False)


def notes_of(path: Path, not_profiled: Collection[str], items: ItemTable) -> dict[str, str]:
    """Notes of all parts by file name, of what a batch was built from: its states hold all but of these listeners."""
    from recommender.events.parts import parts_of, read_parts

    notes, known = {}, known_items(items.item_id)
    for part in parts_of(path):
        held = read_parts([part], ["user_id", "item_id"])
        passed_over = set(not_profiled) & set(held["user_id"].unique().to_pylist()) if not_profiled else ()
        unknown = (items.rows(held["item_id"].unique().to_pylist()) < 0).any()
        notes[part.path.name] = note(part, passed_over, bool(unknown), known)
    return notes


def unheard(parts: Sequence[Part], noted: Mapping[str, str], not_profiled: Collection[str], known: str) -> list[Part]:
    """The parts that may hold sessions which are not in the states.

    noted: by file name, what `note` said. known: of the batch's items, `known_items`.
    """

    def heard(part: Part) -> bool:
        told = json.loads(noted.get(part.path.name, "{}"))
        same = told.get("stamp") == part.stamp and told["items"] in (None, known)
        return bool(same and set(told["passed_over"]) <= set(not_profiled))

    return [part for part in parts if not heard(part)]
