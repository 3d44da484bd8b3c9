"""Items that come, change and go while a run serves.

A takedown is a switch: it holds within a second or two on every worker. A new or changed item waits until the next
publication, which makes a bundle with the longer item table, the vectors that content lets expect, and an index over
both, and activates it; the workers take it up without a restart. Rows and vectors of the items that were there before
stay as they are, so that the bundle belongs to the same batch: listener states and logs go on being right.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from api.upkeep.item_tables import ItemBody, extended, update_catalogue
from bart.errors import BundleError, DataError
from bart.types import ITEM_TYPES, ItemTable

if TYPE_CHECKING:
    import pyarrow as pa

    from api.service.control import ControlStore
    from api.service.service import HomeService


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication did. bundle: name of the bundle that it activated; None where nothing waited."""

    bundle: str | None
    added: int
    changed: int
    without_vector: int


def put_item(service: HomeService, item_id: str, body: ItemBody, at: datetime) -> dict[str, Any]:
    """Keeps an item for the next publication, and takes a takedown of it back."""
    service.control.put_item(item_id, body.model_dump_json(), at)
    service.control.put_back([item_id], at, "the item was put again")
    known = item_id in service.run.items.row_of
    return {"item_id": item_id, "status": "changes" if known else "new", "published": False}


def delete_item(service: HomeService, item_id: str, at: datetime) -> dict[str, Any]:
    """Takes an item down: no page that is decided from a second or two after the answer holds it, on any worker."""
    service.control.take_down([item_id], at)
    service.control.drop_item(item_id)
    return {"item_id": item_id, "status": "taken down", "known": item_id in service.run.items.row_of}


def sync_items(
    store: ControlStore, rows: pa.Table, known: ItemTable, at: datetime, *, take_down: bool
) -> dict[str, int]:
    """Keeps the items of a whole catalogue that are new or changed; take_down: those that it lacks are taken down.

    rows: of `recommender.shelves.items.read_items`. Returns counts by what became of the items.
    """
    fresh = 0
    present = set()
    back: list[str] = []
    taken = store.read().taken_down
    for row in rows.to_pylist():
        item_id = row["item_id"]
        present.add(item_id)
        if item_id in taken:
            back.append(item_id)
        body = _body_of_row(row)
        at_row = known.row_of.get(item_id)
        if at_row is not None and _body_of_table(known, at_row, body) == body:
            continue
        store.put_item(item_id, body.model_dump_json(), at)
        fresh += 1
    gone = _gone(known, present) if take_down else []
    return {
        "waiting": fresh,
        "put back": store.put_back(back, at, "items sync") if back else 0,
        "taken down": store.take_down(gone, at, "items sync") if gone else 0,
    }


def publish_items(
    root: Path, store: ControlStore, made_at: str, *, keep: int | None = None, spared: Collection[str] = ()
) -> Published:
    """Activates a bundle with the items that wait; nothing is done where none does.

    keep, spared: which bundles are left, see `api.run.versions.Versions`. Raises BundleError where another bundle
    became active meanwhile: publish again.
    """
    from api.run.runs import RunPaths
    from api.run.versions import KEEP, Versions
    from bart.bundle import open_bundle, write_bundle
    from bart.item_store import load_items, save_items
    from recommender.events.parts import read_parts
    from recommender.shelves.candidates import build_candidates, saved_rules

    waiting = store.items()
    if not waiting:
        return Published(None, 0, 0, 0)
    versions = Versions(root, KEEP if keep is None else keep, spared=spared)
    active = versions.active()
    if active is None:
        raise BundleError(f"{root} has no active bundle; expected a run made by bart demo or bart build")
    bundle = open_bundle(versions.path(active) if (versions.directory / active).is_dir() else versions.link)
    before = load_items(bundle.folder("items"))
    bodies = {item_id: ItemBody.model_validate_json(body) for item_id, (body, _) in waiting.items()}
    items = extended(before, bodies)
    events = read_parts(RunPaths(root).events)
    config, rules = saved_rules(bundle.folder("index"))
    source = build_candidates(items, events, np.random.default_rng(0), rules=rules, config=config)
    draft = versions.draft()
    with write_bundle(
        draft,
        created_at=made_at,
        configuration=bundle.configuration,
        metrics=dict(bundle.metrics),
        parent=bundle.parent,
        learnt_until_s=bundle.learnt_until_s,
        extends=bundle.batch_id,
    ) as folder:
        for name in ("reward", "listener"):
            shutil.copytree(bundle.folder(name), folder / name)
        save_items(items, folder / "items")
        source.save(folder / "index")
    name = versions.add(draft)
    versions.activate(name, f"{len(waiting)} items", expected=active)
    update_catalogue(root, bodies)
    store.drop_items({item_id: at_us for item_id, (_, at_us) in waiting.items()})
    versions.prune()
    fresh = slice(len(before), None)
    changed = len(waiting) - (len(items) - len(before))
    return Published(name, len(items) - len(before), changed, int((~items.vector[fresh].any(axis=1)).sum()))


def _body_of_row(row: Mapping[str, Any]) -> ItemBody:
    """A row of items.parquet. Raises DataError for values that the service does not take."""
    from pydantic import ValidationError

    given = {name: value for name, value in row.items() if value is not None and name not in ("item_id", "artist_ids")}
    try:
        return ItemBody.model_validate({**given, "artists": row["artist_ids"] or []})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"item {row['item_id']!r}: {place}: {first['msg'].lower()}") from None


def _body_of_table(items: ItemTable, row: int, like: ItemBody) -> ItemBody:
    """What the table holds of an item. A popularity that a file does not give is counted from plays: not compared."""
    released = items.released_at[row]
    return ItemBody.model_construct(
        title=items.title[row] if like.title or items.title[row] != items.item_id[row] else "",
        type=ITEM_TYPES[items.type[row]],
        artists=list(items.artists[row]),
        genres=list(items.genres[row]),
        released_at=None if np.isnat(released) else released.astype(object),
        duration_s=None if np.isnan(items.duration_s[row]) else float(items.duration_s[row]),
        explicit=bool(items.explicit[row]),
        countries=list(items.countries[row]),
        popularity=like.popularity,
        album=_held_in(items, row, "album", like.album),
        show=_held_in(items, row, "show", like.show),
        image=(items.image[row] or None) if items.image is not None else None,
        members=like.members,
    )


def _held_in(items: ItemTable, row: int, kind: str, like: str | None) -> str | None:
    """Id of the container of a type that holds an item, or `like` where that names it too."""
    code = ITEM_TYPES.index(kind)
    for holder in items.held_by[row].tolist():
        if items.type[holder] == code:
            return like if like in (items.item_id[holder], items.title[holder]) else str(items.item_id[holder])
    return None


def _gone(known: ItemTable, present: Collection[str]) -> list[str]:
    """Items that a catalogue lacks; a container that it does not list is there while one of its members is."""
    ids = known.item_id.tolist()
    lacks = [row for row, item_id in enumerate(ids) if item_id not in present]
    return [ids[row] for row in lacks if not any(ids[member] in present for member in known.members[row].tolist())]
