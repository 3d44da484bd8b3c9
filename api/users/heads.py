"""`bart users fit`: a small head on user vectors for labels of one's own, and what it is worth beside raw features."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from api.run.progress import Stages
    from api.run.runs import OpenRun
    from api.run.settings import Settings
    from bart.types import Floats32, Strings
    from recommender.transfer.heads import Labelled

COLUMNS = "user_id, label and, for labels of pairs, item_id"


def fit_labels(root: Path, labels: Path, out: Path, settings: Settings, stages: Stages) -> dict[str, Any]:
    """Writes the head into `out` (safetensors) with what was measured beside it (json), and returns that.

    Raises DataError for a file without these columns, labels that are neither two values nor numbers, or too few known
    listeners; SchemaMismatch where the run has no user encoder.
    """
    from api.run.clock import utc_now
    from api.run.runs import open_run
    from bart.tensors import to_bytes
    from recommender.events.importers import tabular
    from recommender.transfer.heads import judged
    from recommender.users.features import item_sides

    table = tabular.read_table(labels)
    for name in ("user_id", "label"):
        if name not in table.column_names:
            raise DataError(f"{labels} lacks {name}; expected {COLUMNS}; columns: {', '.join(table.column_names)}")
    tick = stages.stage("Encoding listeners")
    run = open_run(root, settings)
    with closing(run.store):
        kinds, users, told = _representations(run, table, utc_now().timestamp())
    tick(1, 1, f"{len(users):,} listeners")
    space = run.store.space
    side = None if told.item is None else item_sides(run.items, space.features.tables)
    tick = stages.stage("Fitting heads")
    head, lines = judged(kinds, side, told, np.random.default_rng(settings.seed))
    tick(1, 1)
    found = {
        "batch_id": space.batch_id,
        "encoder": space.encoder.version,
        "labels": len(told.label),
        "listeners": len(users),
        "of": "pairs" if told.item is not None else "listeners",
        "lines": lines,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_bytes(head.arrays))
    out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _representations(run: OpenRun, table: pa.Table, at_s: float) -> tuple[dict[str, Floats32], Strings, Labelled]:
    """By name, [listeners, .], of the labelled listeners that the run knows; the labels in their rows."""
    from recommender.transfer.heads import VECTOR, Labelled
    from recommender.users.features import Known

    names = table["user_id"].cast("string").to_pylist()
    store = run.store
    rows = {user: store.get(user) for user in dict.fromkeys(names) if user is not None}
    known = {user: row for user, row in rows.items() if row is not None and store.wishes(user).profiled}
    users = np.array(sorted(known), dtype=object)
    records = [Known(known[user].history, known[user].usage, known[user].made_at_s) for user in users.tolist()]
    vectors = store.space.vectors(users.tolist(), records, at_s).vector
    features, encoder = store.space.features, store.space.encoder
    if not len(users):
        raise DataError(f"none of the {len(rows):,} labelled listeners is known to the run; expected its user ids")
    value = np.stack([features.row(one, at_s) for one in records])
    raw = encoder.scaling.inputs(value)
    content = np.nan_to_num(value[:, features.slices["content"]][:, -run.items.dimension :])
    centred = raw - raw.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    pca = (centred @ right[: vectors.shape[1]].T).astype(np.float32)
    kinds = {VECTOR: vectors, "average": content, "raw features": raw, "PCA of raw features": pca}
    place = {user: row for row, user in enumerate(users.tolist())}
    user = np.array([place.get(name, -1) for name in names], dtype=np.int64)
    label, bad = _numbers(table)
    item, kept = None, (user >= 0) & ~bad
    if "item_id" in table.column_names:
        item = run.items.rows(table["item_id"].cast("string").to_pylist())
        kept &= item >= 0
        item = item[kept]
    return kinds, users, Labelled(user[kept], item, label[kept])


def _numbers(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Labels as numbers, and where they are missing. Two words count as 0 and 1, in their order."""
    from recommender.events.columns import numbers, present, text

    label, bad = numbers(table["label"])
    if not bad.any():
        return label, np.isnan(label)
    words = text(table["label"])
    there = present(words)
    names = sorted({word for word in words.to_pylist() if word is not None})
    if len(names) != 2:
        raise DataError(f"label holds {len(names)} words; expected numbers, or two words such as yes and no")
    return np.array([float(word == names[1]) for word in words.to_pylist()]), ~there
