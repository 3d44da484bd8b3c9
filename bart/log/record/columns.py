"""The columns of an exported page: one row a page, lists for what a page holds many of.

The row is lossless: `decision_of` gives back the very decision, so its checksum can be recomputed from an export.
`score` is null where it equals `raw_score` (nothing came between), which halves the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import LogError
from bart.log.record.feedback import PageFeedback
from bart.log.record.levels import pack_levels, unpack_levels
from bart.log.record.record import from_us, to_us
from bart.reward.rewards import reward_of
from bart.types import Bools, Context, Decision, Floats, Ints, ItemTable, ListenerTraits, Page, Shelf

VERSION = 4
VERSION_KEY = b"bart.log.version"
REWARD_KEY = b"bart.log.reward"

RecordBatch: TypeAlias = Any  # pyarrow has no type stubs

_TIME = pa.timestamp("us", tz="UTC")
_PAIR = pa.struct([("name", pa.string()), ("value", pa.string())])
SHELF = pa.struct(
    [
        ("rule", pa.string()),
        ("title", pa.string()),
        ("explanation", pa.string()),
        ("key", pa.string()),
        ("parameters", pa.list_(_PAIR)),
    ]
)

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("decided_at", _TIME),
        ("user_id", pa.string()),
        ("utc_offset_min", pa.int32()),
        ("device", pa.string()),
        ("surface", pa.string()),
        ("country", pa.string()),
        ("explicit_allowed", pa.bool_()),
        ("account_age_d", pa.float64()),
        ("diversity", pa.float64()),
        ("exploration_success", pa.float64()),
        ("listener", pa.list_(pa.float32())),
        ("batch_id", pa.string()),
        ("model_id", pa.string()),
        ("policy", pa.string()),
        ("rules_version", pa.string()),
        ("arm", pa.string()),
        ("forced", pa.bool_()),
        ("seed", pa.string()),  # an integer of any size
        ("rows", pa.int32()),  # asked for; the page may be smaller
        ("columns", pa.int32()),
        ("shelf_epsilon", pa.list_(pa.float64())),
        ("card_epsilon", pa.list_(pa.float64())),
        ("shelves", pa.list_(SHELF)),
        ("item_id", pa.list_(pa.string())),
        ("shelf", pa.list_(pa.int16())),
        ("raw_score", pa.list_(pa.float64())),
        ("score", pa.list_(pa.float64())),
        ("boost_factor", pa.list_(pa.float64())),  # score = raw_score x factor + add, null where no rule moved it
        ("boost_add", pa.list_(pa.float64())),
        ("relevance", pa.float64()),  # then diversity with this weight of the score; null without
        ("features", pa.binary()),  # names, then two levels a byte, see bart/log/record/levels.py; null without
        ("row_shelf", pa.list_(pa.int16())),
        ("shelf_propensity", pa.list_(pa.float64())),
        ("card", pa.list_(pa.list_(pa.int32()))),
        ("card_propensity", pa.list_(pa.list_(pa.float64()))),  # null where no card stands
        ("pinned", pa.list_(pa.list_(pa.bool_()))),
        ("closed", pa.bool_()),
        ("displayed", pa.bool_()),
        ("seen", pa.list_(pa.list_(pa.bool_()))),
        ("listened_s", pa.list_(pa.list_(pa.float64()))),  # null where not said
        ("skipped", pa.list_(pa.list_(pa.bool_()))),  # null where not said
        ("saved", pa.list_(pa.list_(pa.bool_()))),
        ("reward", pa.list_(pa.list_(pa.float64()))),  # by the reward that the file's metadata names; 0 where not seen
        ("events", pa.int32()),  # merged
        ("late_events", pa.int32()),  # came after the window: counted only
        ("joined_at", _TIME),  # arrival of the last merged event
        ("checksum", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class JoinedPage:
    """A decision with its feedback: what becomes one row. closed: its feedback window is over."""

    decision: Decision
    feedback: PageFeedback
    closed: bool
    checksum: bytes


def record_batch(pages: Sequence[JoinedPage], reward: str, duration_s: dict[str, float] | ItemTable | None) -> Any:
    """The pages as an Arrow record batch with the columns of `SCHEMA`.

    duration_s: seconds by item id, or the item table; None where durations are unknown (30 s count then).
    """
    decisions = [page.decision for page in pages]
    feedback = [page.feedback for page in pages]
    drawn = [decision.page for decision in decisions]
    item_id = _lists([d.item_id for d in decisions], pa.string())
    columns: dict[str, Any] = {
        "request_id": [d.request_id for d in decisions],
        "decided_at": pa.array([to_us(d.decided_at) for d in decisions], pa.int64()).cast(_TIME),
        "user_id": [d.user_id for d in decisions],
        "utc_offset_min": [d.context.utc_offset_min for d in decisions],
        "device": [d.context.device for d in decisions],
        "surface": [d.context.surface for d in decisions],
        "country": [d.context.country for d in decisions],
        "explicit_allowed": [d.context.explicit_allowed for d in decisions],
        "account_age_d": [d.traits.account_age_d for d in decisions],
        "diversity": [d.traits.diversity for d in decisions],
        "exploration_success": [d.traits.exploration_success for d in decisions],
        "listener": _lists([d.listener for d in decisions], pa.float32()),
        "batch_id": [d.batch_id for d in decisions],
        "model_id": [d.model_id for d in decisions],
        "policy": [d.policy for d in decisions],
        "rules_version": [d.rules_version for d in decisions],
        "arm": [d.arm for d in decisions],
        "forced": [d.forced for d in decisions],
        "seed": [str(int(d.seed)) for d in decisions],
        "rows": [d.rows for d in decisions],
        "columns": [d.columns for d in decisions],
        "shelf_epsilon": _lists([d.shelf_epsilon for d in decisions], pa.float64()),
        "card_epsilon": _lists([d.card_epsilon for d in decisions], pa.float64()),
        "shelves": [[_shelf_row(shelf) for shelf in d.shelves] for d in decisions],
        "item_id": item_id,
        "shelf": _lists([d.shelf for d in decisions], pa.int16()),
        "raw_score": _lists([d.raw_score for d in decisions], pa.float64()),
        "score": _lists([None if _same(d) else d.score for d in decisions], pa.float64()),
        "boost_factor": _lists([d.boost_factor for d in decisions], pa.float64()),
        "boost_add": _lists([d.boost_add for d in decisions], pa.float64()),
        "relevance": [d.relevance for d in decisions],
        "features": [None if d.features is None else pack_levels(d.features) for d in decisions],
        "row_shelf": _lists([p.shelf for p in drawn], pa.int16()),
        "shelf_propensity": _lists([p.shelf_propensity for p in drawn], pa.float64()),
        "card": _grids([p.card for p in drawn], pa.int32()),
        "card_propensity": _grids([p.card_propensity for p in drawn], pa.float64(), null=np.isnan),
        "pinned": _grids([p.pinned for p in drawn], pa.bool_()),
        "closed": [page.closed for page in pages],
        "displayed": [f.displayed for f in feedback],
        "seen": _grids([f.seen for f in feedback], pa.bool_()),
        "listened_s": _grids([f.listened_s for f in feedback], pa.float64(), null=np.isnan),
        "skipped": _grids([f.skipped for f in feedback], pa.bool_(), null=lambda skipped: skipped < 0),
        "saved": _grids([f.saved for f in feedback], pa.bool_()),
        "reward": _grids(_rewards(decisions, feedback, reward, duration_s, item_id), pa.float64()),
        "events": [f.events for f in feedback],
        "late_events": [f.late for f in feedback],
        "joined_at": pa.array([f.joined_us for f in feedback], pa.int64()).cast(_TIME),
        "checksum": [page.checksum for page in pages],
    }
    try:
        arrays = [
            value if isinstance(value, pa.Array) else pa.array(value, SCHEMA.field(name).type)
            for name, value in columns.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LogError(f"the pages cannot be exported: {error}") from None


def decision_of(row: dict[str, Any]) -> Decision:
    """The decision in an exported row (`RecordBatch.to_pylist`), equal to the last bit."""
    rows = len(row["row_shelf"])
    columns = len(row["card"][0]) if rows else int(row["columns"])
    raw_score = np.array(row["raw_score"], dtype=np.float64)
    item_id = np.empty(len(row["item_id"]), dtype=object)
    item_id[:] = row["item_id"]
    return Decision(
        request_id=row["request_id"],
        user_id=row["user_id"],
        context=Context(
            from_us(to_us(row["decided_at"])),
            row["utc_offset_min"],
            row["device"],
            row["surface"],
            row["country"],
            row["explicit_allowed"],
        ),
        traits=ListenerTraits(row["account_age_d"], row["diversity"], row["exploration_success"]),
        listener=np.array(row["listener"], dtype=np.float32),
        batch_id=row["batch_id"],
        policy=row["policy"],
        shelf_epsilon=np.array(row["shelf_epsilon"], dtype=np.float64),
        card_epsilon=np.array(row["card_epsilon"], dtype=np.float64),
        rules_version=row["rules_version"],
        seed=int(row["seed"]),
        shelves=tuple(
            Shelf(
                s["rule"],
                s["title"],
                s["explanation"],
                s["key"],
                tuple((p["name"], p["value"]) for p in s["parameters"]),
            )
            for s in row["shelves"]
        ),
        item_id=item_id,
        shelf=np.array(row["shelf"], dtype=np.int64),
        raw_score=raw_score,
        score=raw_score if row["score"] is None else np.array(row["score"], dtype=np.float64),
        page=Page(
            np.array(row["row_shelf"], dtype=np.int64),
            np.array(row["card"], dtype=np.int64).reshape(rows, columns),
            np.array(row["shelf_propensity"], dtype=np.float64),
            np.array(row["card_propensity"], dtype=np.float64).reshape(rows, columns),
            np.array(row["pinned"], dtype=np.bool_).reshape(rows, columns),
        ),
        arm=row["arm"],
        forced=row["forced"],
        model_id=row["model_id"],
        boost_factor=_numbers(row["boost_factor"]),
        boost_add=_numbers(row["boost_add"]),
        relevance=row["relevance"],
        features=None if row["features"] is None else unpack_levels(row["features"], len(item_id)),
    )


def outcome_of(row: dict[str, Any]) -> PageFeedback:
    """The merged feedback in an exported row, equal to the last bit."""
    rows = len(row["row_shelf"])
    columns = len(row["card"][0]) if rows else int(row["columns"])

    def grid(name: str, dtype: Any, null: Any) -> Any:
        flat = [null if value is None else value for line in row[name] for value in line]
        return np.array(flat, dtype=dtype).reshape(rows, columns)

    joined_at = row["joined_at"]
    return PageFeedback(
        bool(row["displayed"]),
        grid("seen", np.bool_, False),
        grid("listened_s", np.float64, np.nan),
        grid("skipped", np.int8, -1),
        grid("saved", np.bool_, False),
        int(row["events"]),
        int(row["late_events"]),
        None if joined_at is None else to_us(joined_at),
    )


def _numbers(values: list[float] | None) -> Floats | None:
    return None if values is None else np.array(values, dtype=np.float64)


def rows_of_ids(values: Any, item_id: Any) -> Ints:
    """Row of each id in `item_id` (an Arrow array of strings), -1 where it is not there; [m]."""
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=item_id), -1), dtype=np.int64)


def _same(decision: Decision) -> bool:
    if decision.score is decision.raw_score:
        return True
    raw, final = (np.ascontiguousarray(s, dtype=np.float64) for s in (decision.raw_score, decision.score))
    return bool(np.array_equal(raw.view(np.int64), final.view(np.int64)))


def _shelf_row(shelf: Shelf) -> dict[str, Any]:
    parameters = [{"name": name, "value": value} for name, value in shelf.parameters]
    return {
        "rule": shelf.rule,
        "title": shelf.title,
        "explanation": shelf.explanation,
        "key": shelf.key,
        "parameters": parameters,
    }


def _lists(arrays: Sequence[Any], kind: Any) -> Any:
    """One list a page from one array a page; a None becomes a null."""
    missing = np.array([a is None for a in arrays], dtype=np.bool_)
    present = [a for a in arrays if a is not None]
    size = np.array([0 if a is None else len(a) for a in arrays], dtype=np.int64)
    values = pa.array(np.concatenate(present) if present else np.empty(0), kind)
    return pa.ListArray.from_arrays(_offsets(size), values, mask=pa.array(missing) if missing.any() else None)


def _grids(arrays: Sequence[Any], kind: Any, null: Any = None) -> Any:
    """One list of lists a page from one [rows, columns] array a page."""
    flat = np.concatenate([a.ravel() for a in arrays]) if arrays else np.empty(0)
    mask = null(flat) if null is not None else None
    if kind == pa.bool_():
        flat = flat.astype(np.bool_)
    values = pa.array(flat, kind, mask=mask)
    width = np.concatenate([np.full(a.shape[0], a.shape[1]) for a in arrays]) if arrays else np.empty(0, np.int64)
    inner = pa.ListArray.from_arrays(_offsets(width), values)
    return pa.ListArray.from_arrays(_offsets(np.array([a.shape[0] for a in arrays], dtype=np.int64)), inner)


def _offsets(size: Ints) -> Any:
    return pa.array(np.concatenate([[0], np.cumsum(size)]), pa.int32())


def _rewards(
    decisions: Sequence[Decision],
    feedback: Sequence[PageFeedback],
    reward: str,
    duration_s: dict[str, float] | ItemTable | None,
    item_id: Any,
) -> list[Floats]:
    """The reward of each card, one [rows, columns] a page."""
    if not decisions:
        return []
    first = np.asarray(item_id.offsets)[:-1]
    card = np.concatenate([d.page.card.ravel() for d in decisions])
    start = np.repeat(first, [d.page.card.size for d in decisions])
    seconds = np.full(len(card), np.nan)
    shown = card >= 0
    if duration_s is not None and shown.any():
        if isinstance(duration_s, ItemTable):
            known, known_s = pa.array(duration_s.item_id, pa.string()), duration_s.duration_s
        else:
            known, known_s = pa.array(list(duration_s), pa.string()), np.array(list(duration_s.values()), dtype=float)
        row = rows_of_ids(item_id.values.take(pa.array((start + card)[shown])), known)
        seconds[shown] = np.append(known_s, np.nan)[row]  # -1: the last, unknown
    flat = reward_of(
        reward,
        np.concatenate([f.listened_s.ravel() for f in feedback]),
        seconds,
        np.concatenate([f.saved.ravel() for f in feedback]),
        _flat_bools([f.seen for f in feedback]),
    )
    bounds = np.cumsum([d.page.card.size for d in decisions])[:-1]
    return [part.reshape(d.page.card.shape) for part, d in zip(np.split(flat, bounds), decisions, strict=True)]


def _flat_bools(arrays: Sequence[Bools]) -> Bools:
    return np.concatenate([a.ravel() for a in arrays])
