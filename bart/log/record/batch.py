"""Decisions with their outcomes as a batch of exported rows, by the columns of `columns.SCHEMA`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bart.errors import LogError
from bart.log.record.block import NAMED, OF_SHELF, Block, Texts, spread, starts
from bart.log.record.columns import SCHEMA, SHELF, RecordBatch, rows_of_ids
from bart.log.record.feedback import PageFeedback
from bart.log.record.outcomes import NEVER, Outcomes
from bart.log.record.parse import block_of
from bart.reward.rewards import reward_of
from bart.types import Bools, Decision, Floats, Ints, ItemTable


@dataclass(frozen=True, slots=True, eq=False)
class JoinedPage:
    """A decision with its feedback: what becomes one row. closed: its feedback window is over."""

    decision: Decision
    feedback: PageFeedback
    closed: bool
    checksum: bytes


def record_batch(
    pages: Sequence[JoinedPage], reward: str, duration_s: dict[str, float] | ItemTable | None
) -> RecordBatch:
    """The pages as an Arrow record batch with the columns of `SCHEMA`.

    duration_s: seconds by item id, or the item table; None where durations are unknown (30 s count then).
    Raises LogError for a decision that cannot be kept exactly.
    """
    block = block_of(page.decision for page in pages)
    outcomes = Outcomes.of([page.feedback for page in pages])
    closed = np.array([page.closed for page in pages], dtype=np.bool_)
    return joined_batch(block, outcomes, closed, [page.checksum for page in pages], reward, duration_s)


def joined_batch(
    block: Block,
    outcomes: Outcomes,
    closed: Bools,
    checksum: Sequence[bytes],
    reward: str,
    duration_s: dict[str, float] | ItemTable | None,
) -> RecordBatch:
    """`record_batch` of decisions and outcomes that are columns already. closed: [b], whose feedback window is over."""
    head, changed = block.head, np.where(block.same, 0, block.count("n"))
    score = block.score if changed.sum() == len(block.score) else block.score[_pages(block.offset, ~block.same)]
    boosted = np.where(block.boosted, block.count("n"), 0)
    slots = block.row_offset, np.repeat(block.count("columns"), block.count("rows"))
    unsaid = np.isnan(outcomes.listened_s), outcomes.skipped < 0
    columns: dict[str, Any] = {
        **{name: block.named(name) for name in NAMED if name != "seed"},
        "decided_at": _times(head["decided_us"]),
        "utc_offset_min": head["utc_offset_min"],
        "explicit_allowed": block.explicit,
        **{name: _known(head["traits"][:, k]) for k, name in enumerate(_TRAITS)},
        "listener": _lists(block.count("dimension"), block.listener, "listener"),
        "forced": block.forced,
        "seed": pa.array([str(seed) for seed in block.seed], pa.string()),
        "rows": head["rows_asked"],
        "columns": head["columns_asked"],
        "shelf_epsilon": _lists(block.count("rows_asked"), block.shelf_epsilon, "shelf_epsilon"),
        "card_epsilon": _lists(block.count("columns_asked"), block.card_epsilon, "card_epsilon"),
        "shelves": _shelves(block),
        "item_id": pa.ListArray.from_arrays(_int32(block.offset), block.item_id),
        "shelf": _lists(block.count("n"), block.shelf, "shelf"),
        "raw_score": _lists(block.count("n"), block.raw_score, "raw_score"),
        "score": _lists(changed, score, "score", block.same),
        "boost_factor": _lists(boosted, block.boost_factor, "boost_factor", ~block.boosted),
        "boost_add": _lists(boosted, block.boost_add, "boost_add", ~block.boosted),
        "relevance": pa.array(block.relevance, mask=~block.diverse),
        "features": pa.array(block.features, pa.binary()),
        "row_shelf": _lists(block.count("rows"), block.row_shelf, "row_shelf"),
        "shelf_propensity": _lists(block.count("rows"), block.shelf_propensity, "shelf_propensity"),
        "card": _grids(*slots, block.card, "card"),
        "card_propensity": _grids(*slots, block.card_propensity, "card_propensity", np.isnan(block.card_propensity)),
        "pinned": _grids(*slots, block.pinned, "pinned"),
        "closed": closed,
        "displayed": outcomes.displayed,
        "seen": _grids(*slots, outcomes.seen, "seen"),
        "listened_s": _grids(*slots, outcomes.listened_s, "listened_s", unsaid[0]),
        "skipped": _grids(*slots, outcomes.skipped > 0, "skipped", unsaid[1]),
        "saved": _grids(*slots, outcomes.saved, "saved"),
        "reward": _grids(*slots, _rewards(block, outcomes, reward, duration_s), "reward"),
        "events": outcomes.events,
        "late_events": outcomes.late,
        "joined_at": _times(outcomes.joined_us, outcomes.joined_us == NEVER),
        "checksum": pa.array(checksum, pa.binary()),
    }
    try:
        arrays = [
            value if isinstance(value, pa.Array) else pa.array(value).cast(SCHEMA.field(name).type)
            for name, value in ((name, columns[name]) for name in SCHEMA.names)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LogError(f"the pages cannot be exported: {error}") from None


_TRAITS = ("account_age_d", "diversity", "exploration_success")


def _times(us: Ints, never: Bools | None = None) -> Any:
    return pa.array(us.astype(np.int64), mask=never).cast(SCHEMA.field("decided_at").type)


def _known(values: Floats) -> Any:
    return pa.array(np.ascontiguousarray(values), mask=np.isnan(values))


def _pages(offset: Ints, which: Bools) -> Ints:
    """Flat positions of some pages."""
    return spread(offset, np.flatnonzero(which))[0]


def _int32(offset: Ints) -> Any:
    return pa.array(offset.astype(np.int32))


def _values(values: Any, kind: Any, missing: Bools | None) -> Any:
    array = pa.array(values, mask=missing)
    return array if array.type == kind else array.cast(kind)


def _lists(size: Ints, values: Any, name: str, missing: Bools | None = None) -> Any:
    """One list a page. missing: [b], null there."""
    mask = pa.array(missing) if missing is not None and missing.any() else None
    kind = SCHEMA.field(name).type.value_type
    return pa.ListArray.from_arrays(_int32(starts(size)), _values(values, kind, None), mask=mask)


def _grids(row_offset: Ints, width: Ints, values: Any, name: str, missing: Bools | None = None) -> Any:
    """One list of lists a page. width: of every row; missing: [C], null there."""
    kind = SCHEMA.field(name).type.value_type.value_type
    inner = pa.ListArray.from_arrays(_int32(starts(width)), _values(values, kind, missing))
    return pa.ListArray.from_arrays(_int32(row_offset), inner)


def _shelves(block: Block) -> Any:
    pairs, n = starts(block.n_parameters), block.n_parameters
    first = np.repeat(block.shelf_word + len(OF_SHELF) - 2 * pairs[:-1], n) + 2 * np.arange(pairs[-1])
    pair = SHELF.field("parameters").type.value_type
    parameters = pa.StructArray.from_arrays([_words(block, first), _words(block, first + 1)], fields=list(pair))
    texts = [_words(block, block.shelf_word + k) for k in range(len(OF_SHELF))]
    shelves = pa.StructArray.from_arrays(
        [*texts, pa.ListArray.from_arrays(_int32(pairs), parameters)], fields=list(SHELF)
    )
    return pa.ListArray.from_arrays(_int32(block.shelf_offset), shelves)


def _words(block: Block, which: Ints) -> Texts:
    return block.word.take(pa.array(which))


def _rewards(block: Block, outcomes: Outcomes, reward: str, duration_s: dict[str, float] | ItemTable | None) -> Floats:
    """[C], the reward of each slot."""
    seconds = np.full(len(block.card), np.nan)
    seen = outcomes.seen & (block.card >= 0)  # nothing else has a reward
    if duration_s is not None and seen.any():
        if isinstance(duration_s, ItemTable):
            known, known_s = pa.array(duration_s.item_id, pa.string()), duration_s.duration_s
        else:
            known, known_s = pa.array(list(duration_s), pa.string()), np.array(list(duration_s.values()), dtype=float)
        candidate = block.card + np.repeat(block.offset[:-1], np.diff(block.slot_offset))
        row = rows_of_ids(block.item_id.take(pa.array(candidate[seen])), known)
        seconds[seen] = np.append(known_s, np.nan)[row]  # -1: the last, unknown
    return reward_of(reward, outcomes.listened_s, seconds, outcomes.saved, outcomes.seen)
