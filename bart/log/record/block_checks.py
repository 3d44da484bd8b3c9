"""What `Decision` and its parts refuse, told of all pages of a block at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import lru_cache

import numpy as np

from bart.log.record.block import Block, pages_with, starts
from bart.log.record.levels import unpack_levels
from bart.log.record.record import to_us
from bart.types import Bools, Floats, Ints

_FIRST_US = to_us(datetime.min.replace(tzinfo=timezone.utc))
_LAST_US = to_us(datetime.max.replace(tzinfo=timezone.utc))


def impossible(block: Block) -> Bools:
    """[b], which pages cannot be a decision: those that `Decision`, `Page`, `Context` or `ListenerTraits` would refuse
    to be made of."""
    odd = _odd_heads(block) | _odd_texts(block) | _odd_features(block)
    boost_offset = starts(np.where(block.boosted, block.count("n"), 0))
    for values, offset in ((block.raw_score, block.offset), (block.score, block.offset)):
        odd |= pages_with(~np.isfinite(values), offset)
    for values in (block.boost_factor, block.boost_add):
        odd |= pages_with(~np.isfinite(values), boost_offset)
    rows_asked, columns_asked = starts(block.count("rows_asked")), starts(block.count("columns_asked"))
    drawn_elsewhere = np.array([policy.startswith("imported") for policy in block.policy], dtype=np.bool_)
    for values, offset in ((block.shelf_epsilon, rows_asked), (block.card_epsilon, columns_asked)):
        odd |= _outside(values, offset)
        odd |= pages_with(np.isnan(values), offset) & ~drawn_elsewhere
    odd |= _outside(block.shelf_propensity, block.row_offset) | _outside(block.card_propensity, block.slot_offset)
    n, n_shelves = block.count("n"), block.count("n_shelves")
    for numbers, offset, least, end in (
        (block.shelf, block.offset, -1, n_shelves),
        (block.row_shelf, block.row_offset, 0, n_shelves),
        (block.card, block.slot_offset, -1, n),
    ):
        odd |= _beyond(numbers, offset, least, end)
    return odd


def _odd_heads(block: Block) -> Bools:
    head, traits = block.head, block.head["traits"]
    at, zone = head["decided_us"], head["utc_offset_min"]
    odd = (at < _FIRST_US) | (at > _LAST_US) | (zone <= -24 * 60) | (zone >= 24 * 60)
    odd |= (traits[:, 0] < 0) | ((traits[:, 1:] < 0) | (traits[:, 1:] > 1)).any(axis=1)  # NaN: not known
    return np.asarray(odd | (block.diverse & ~((block.relevance >= 0) & (block.relevance <= 1))))


def _odd_texts(block: Block) -> Bools:
    empty = np.array([not text for text in block.named("request_id").to_pylist()], dtype=np.bool_)
    return empty | np.array([not _is_seed(text) for text in block.named("seed").to_pylist()], dtype=np.bool_)


def _is_seed(text: str) -> bool:
    try:
        return int(text) >= 0
    except ValueError:
        return False


def _odd_features(block: Block) -> Bools:
    return np.array(
        [
            known is not None and not _has_levels(known, n)
            for known, n in zip(block.features, block.count("n").tolist(), strict=True)
        ],
        dtype=np.bool_,
    )


def _has_levels(data: bytes, n: int) -> bool:
    """Whether `unpack_levels` unpacks it. That reads half a byte a level, which is never out of range."""
    size = int.from_bytes(data[:4], "little")
    names = _n_names(data[4 : 4 + size]) if len(data) >= 4 + size else 0
    if names:
        return len(data) == 4 + size + names * ((n + 1) // 2)
    try:
        unpack_levels(data, n)
    except Exception:  # whatever an altered record provokes
        return False
    return True


@lru_cache(maxsize=64)
def _n_names(joined: bytes) -> int:
    """How many distinct names there are; 0 where they are not as they should be, or none."""
    try:
        names: Sequence[str] = joined.decode().split(",") if joined else ()
    except UnicodeDecodeError:
        return 0
    return len(names) if len(set(names)) == len(names) else 0


def _outside(values: Floats, offset: Ints) -> Bools:
    """[b], where a number is neither in [0, 1] nor NaN."""
    return pages_with((values < 0) | (values > 1), offset)


def _beyond(numbers: Ints, offset: Ints, least: int, end: Ints) -> Bools:
    """[b], where a number is not in [least, end)."""
    return pages_with((numbers < least) | (numbers >= np.repeat(end, np.diff(offset))), offset)
