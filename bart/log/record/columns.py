"""The columns of an exported page: one row a page, lists for what a page holds many of.

The row is lossless: `decision_of` gives back the very decision, so its checksum can be recomputed from an export.
`score` is null where it equals `raw_score` (nothing came between), which halves the size.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.log.record.feedback import PageFeedback
from bart.log.record.levels import unpack_levels
from bart.log.record.record import from_us, to_us
from bart.types import Context, Decision, Floats, Ints, ListenerTraits, Page, Shelf

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
