"""Stored records read into a `Block`: those that `record.decode` reads, with the same in every bit.

But for one that claims more columns than it has bytes, which no page has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.errors import LogError
from bart.log.record import record as one
from bart.log.record.block import HEAD_TYPE, NAMED, OF_SHELF, Block, Texts, starts
from bart.log.record.block_checks import impossible
from bart.types import Bools, Decision, Ints

Part: TypeAlias = "tuple[int, bytes, bytes]"  # version, head, scores
_AS_STORED = len(NAMED) - 2  # texts that the first version of records begins with: without arm and model


class _Odd(Exception):
    """Some of the records are not what they should be; which [b]."""

    def __init__(self, which: Bools) -> None:
        super().__init__()
        self.which = which


def read_block(records: Sequence[bytes], expected: Sequence[bytes]) -> tuple[Block, Ints]:
    """Those of some stored records that hold a decision, and their positions. expected: checksums.

    Of the others `record.decode` says what is wrong.
    """
    parts: list[Part] = []
    position: list[int] = []
    for i, (record, checksum) in enumerate(zip(records, expected, strict=True)):
        try:
            parts.append(one.unpacked(record, checksum))
            position.append(i)
        except LogError:
            continue
    return _sound(parts, np.array(position, dtype=np.int64))


def block_of(decisions: Iterable[Decision]) -> Block:
    """Decisions as columns. Raises LogError for one that cannot be kept exactly."""
    return kept_block(decisions)[0]


def kept_block(decisions: Iterable[Decision]) -> tuple[Block, list[bytes]]:
    """`block_of`, and the checksum of each."""
    parts: list[Part] = []
    for decision in decisions:
        version = one.record_version(decision)
        parts.append((version, *one.canonical(decision, version)))
    block, position = _sound(parts, np.arange(len(parts)))
    if len(position) < len(parts):
        odd = int(np.setdiff1d(np.arange(len(parts)), position)[0])
        one.decode(one.packed(*parts[odd]))  # says what is wrong with it
        raise LogError(f"decision {odd} cannot be kept")
    return block, [one.digest(*part) for part in parts]


def _sound(parts: list[Part], position: Ints) -> tuple[Block, Ints]:
    while True:
        try:
            block = _parsed(parts)
            odd = impossible(block)
            if not odd.any():
                return block, position
        except _Odd as found:
            odd = found.which
        parts = [part for part, out in zip(parts, odd.tolist(), strict=True) if not out]
        position = position[~odd]


def _parsed(parts: Sequence[Part]) -> Block:
    size = np.array([len(head) for _, head, _ in parts], dtype=np.int64)
    _refuse(size < HEAD_TYPE.itemsize)
    heads = [head for _, head, _ in parts]
    head = np.frombuffer(b"".join(h[: HEAD_TYPE.itemsize] for h in heads), HEAD_TYPE)
    counts = {name: head[name].astype(np.int64) for name in HEAD_TYPE.names[4:]}  # type: ignore[index]
    _refuse(np.any(np.stack(list(counts.values())) > size, axis=0))  # so that no product of them overflows
    n, slots = counts["n"], counts["rows"] * counts["columns"]
    flags = head["flags"].astype(np.int64)
    of_shelf = np.where(counts["n_shelves"] <= 2**7, 1, 2)
    of_card = np.where(n <= 2**15, 2, 4)
    widths = (
        counts["text_size"], 4 * counts["dimension"], 8 * counts["rows_asked"], 8 * counts["columns_asked"],
        counts["n_shelves"], of_shelf * n, of_shelf * counts["rows"], of_card * slots, (slots + 7) // 8,
        8 * counts["rows"],
    )  # fmt: skip
    end = HEAD_TYPE.itemsize + np.cumsum(np.stack(widths), axis=0)  # [sections, b]
    _refuse(end[-1] > size)
    text, listener, shelf_epsilon, card_epsilon, n_parameters, shelf, row_shelf, card, pinned, shelf_propensity = _cut(
        heads, np.concatenate([np.full((1, len(parts)), HEAD_TYPE.itemsize), end])
    )
    cards = _whole(card, of_card, "<i2", "<i4", (2, 4))
    there, slot_offset = cards >= 0, starts(slots)
    shown = np.diff(starts(there.astype(np.int64))[slot_offset])

    has_boost, has_relevance = (flags & one.BOOSTED) > 0, (flags & one.DIVERSE) > 0
    knows = np.array([version >= one.KNOWING for version, *_ in parts], dtype=np.bool_)
    more = (8 * shown, np.where(has_boost, 8 * n, 0), np.where(has_boost, 8 * n, 0), np.where(has_relevance, 8, 0))
    later = np.cumsum(np.stack([end[-1], *more]), axis=0)
    _refuse(np.where(knows, later[-1] > size, later[-1] != size))
    propensity, factor, add, weight, features = _cut(heads, np.concatenate([later, size[None]]))
    card_propensity = np.full(len(cards), np.nan)
    card_propensity[there] = _floats(propensity)
    relevance = np.full(len(parts), np.nan)
    relevance[has_relevance] = _floats(weight)
    raw, score, same = _scores([scores for *_, scores in parts], n, flags)
    sizes = np.frombuffer(b"".join(n_parameters), np.uint8).astype(np.int64)
    word, n_words = _texts(text, np.array([version for version, *_ in parts]), flags, counts["n_texts"])
    least = _words(sizes, counts["n_shelves"]) + n
    _refuse(n_words != least)
    return Block(
        head=head,
        explicit=(flags & one.EXPLICIT) > 0,
        forced=(flags & one.FORCED) > 0,
        word=word,
        first_word=starts(n_words),
        listener=np.frombuffer(b"".join(listener), "<f4").astype(np.float32),
        shelf_epsilon=_floats(shelf_epsilon),
        card_epsilon=_floats(card_epsilon),
        n_parameters=sizes,
        shelf=_whole(shelf, of_shelf, "<i1", "<i2", (1, 2)),
        raw_score=raw,
        score=score,
        same=same,
        row_shelf=_whole(row_shelf, of_shelf, "<i1", "<i2", (1, 2)),
        card=cards,
        pinned=_bits(pinned, slots),
        shelf_propensity=_floats(shelf_propensity),
        card_propensity=card_propensity,
        boosted=has_boost,
        boost_factor=_floats(factor),
        boost_add=_floats(add),
        diverse=has_relevance,
        relevance=relevance,
        features=[found if known else None for found, known in zip(features, knows.tolist(), strict=True)],
    )


def _refuse(which: Bools) -> None:
    if which.any():
        raise _Odd(which)


def _cut(heads: Sequence[bytes], bounds: Ints) -> list[list[bytes]]:
    """Of each section the bytes in every head. bounds: [sections + 1, b]."""
    out = [[head[a:b] for a, b in pairwise(at)] for head, at in zip(heads, bounds.T.tolist(), strict=True)]
    return [list(section) for section in zip(*out, strict=True)] or [[] for _ in bounds[1:]]


def _floats(chunks: Sequence[bytes]) -> NDArray[np.float64]:
    return np.frombuffer(b"".join(chunks), "<f8").astype(np.float64)


def _whole(chunks: Sequence[bytes], width: Ints, narrow: str, wide: str, of: tuple[int, int]) -> Ints:
    """Integers of one width or another, each page of its own."""
    if (width == of[0]).all():
        return np.frombuffer(b"".join(chunks), narrow).astype(np.int64)
    kinds = [narrow if each == of[0] else wide for each in width.tolist()]
    return np.concatenate(
        [np.frombuffer(chunk, kind) for chunk, kind in zip(chunks, kinds, strict=True)], dtype=np.int64
    )


def _bits(chunks: Sequence[bytes], slots: Ints) -> Bools:
    joined = b"".join(chunks)
    if joined.count(0) == len(joined):
        return np.zeros(int(slots.sum()), dtype=np.bool_)
    each = [
        np.unpackbits(np.frombuffer(chunk, np.uint8), count=count)
        for chunk, count in zip(chunks, slots.tolist(), strict=True)
        if count
    ]
    return np.concatenate(each).astype(np.bool_)


def _scores(scores: Sequence[bytes], n: Ints, flags: Ints) -> tuple[Any, Any, Bools]:
    """Raw and final scores, and of which pages they are the same."""
    raw_width = np.where(flags & one.RAW_F32, 4, 8)
    final_width = np.where(flags & one.SCORE_SAME, 0, np.where(flags & one.SCORE_F32, 4, 8))
    size = np.array([len(each) for each in scores], dtype=np.int64)
    _refuse(n * (raw_width + final_width) != size)
    same = final_width == 0
    if same.all() and (raw_width == 8).all():
        raw = _floats(scores)
        return raw, raw, same
    ends = (n * raw_width).tolist()
    kinds = {4: "<f4", 8: "<f8"}
    raws = [np.frombuffer(s[:e], kinds[w]) for s, e, w in zip(scores, ends, raw_width.tolist(), strict=True)]
    raw = np.concatenate(raws, dtype=np.float64)
    if same.all():
        return raw, raw, same
    finals = [
        np.frombuffer(s[e:], kinds[w]) if w else first
        for s, e, w, first in zip(scores, ends, final_width.tolist(), raws, strict=True)
    ]
    score = np.concatenate(finals, dtype=np.float64)
    offset = starts(n)
    alike = raw.view(np.int64) == score.view(np.int64)
    for page in np.flatnonzero(~same).tolist():
        same[page] = alike[offset[page] : offset[page + 1]].all()
    return raw, score, same


def _texts(text: Sequence[bytes], version: Ints, flags: Ints, told: Ints) -> tuple[Texts, Ints]:
    """All texts, with arm and model also where a record has none, and how many each page has."""
    if (version == 1).any() or (flags & one.NUL_IN_TEXT).any():
        return _odd_texts(text, version, flags, told)
    joined = b"".join([part for each in text for part in (each, b"\0")])
    if len(joined) >= 2**31:
        raise LogError(f"{len(text)} records have {len(joined)} bytes of text; expected fewer at once")
    end = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
    size = np.array([len(each) + 1 for each in text], dtype=np.int64)
    n_words = np.diff(np.searchsorted(end, starts(size)))
    _refuse(n_words != told)
    offset = np.zeros(len(end) + 1, dtype=np.int32)
    offset[1:] = end - np.arange(len(end))
    word = pa.StringArray.from_buffers(len(end), pa.py_buffer(offset), pa.py_buffer(joined.replace(b"\0", b"")))
    try:
        word.validate(full=True)
    except pa.ArrowInvalid:
        _refuse(np.array([not _is_text(each) for each in text]))
        raise
    return word, n_words


def _odd_texts(text: Sequence[bytes], version: Ints, flags: Ints, told: Ints) -> tuple[Texts, Ints]:
    """`_texts` for records of the first version, and for those with a NUL in a text."""
    _refuse(np.array([not _is_text(each) for each in text]))
    words = [one.split_texts(each, flag) for each, flag in zip(text, flags.tolist(), strict=True)]
    _refuse(np.array([len(each) for each in words]) != told)
    _refuse(told < np.where(version == 1, _AS_STORED, len(NAMED)))
    whole = [
        [*each[:_AS_STORED], "", "", *each[_AS_STORED:]] if first == 1 else each
        for each, first in zip(words, version.tolist(), strict=True)
    ]
    return pa.array([word for each in whole for word in each], pa.string()), told + np.where(version == 1, 2, 0)


def _is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _words(n_parameters: Ints, n_shelves: Ints) -> Ints:
    """[b], texts that a page has before the ids of its items."""
    before = starts(len(OF_SHELF) + 2 * n_parameters)
    return len(NAMED) + np.diff(before[starts(n_shelves)])
