"""Many records read at once: the same records as one by one, the same in every bit."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from whole_decisions import decision

from bart.errors import LogError
from bart.log.record.block import HEAD_TYPE, NAMED, OF_SHELF, Block
from bart.log.record.parse import block_of, read_block
from bart.log.record.record import HEAD, canonical, decode, digest, encode, pack_shown, packed, record_version, to_us
from bart.types import CardFeatures, Decision, Page, Shelf
from bart.types.levels import LEVELS


@cache
def kinds() -> list[tuple[int, Decision]]:
    """Records of every kind, each with the version that it is written as."""
    rng = np.random.default_rng(0)
    page = decision().page
    short = decision(n=700, rows=2, columns=6, seed=1)
    narrow = short.raw_score.astype(np.float32).astype(np.float64)
    level = rng.integers(0, LEVELS, (29, 3)).astype(np.uint8)
    none = Page(
        np.empty(0, np.int64), np.empty((0, 4), np.int64), np.empty(0), np.empty((0, 4)), np.empty((0, 4), bool)
    )
    shelves = tuple(Shelf(f"rule {i}", "t", parameters=(("a", "b"),) * (i % 3)) for i in range(200))
    empty, high = np.empty(0), replace(page, shelf=np.arange(3) + 150)
    nothing: dict[str, Any] = {
        "item_id": np.empty(0, object),
        "shelf": np.empty(0, int),
        "raw_score": empty,
        "score": empty,
    }
    made = [
        decision(),
        replace(decision(seed=2), request_id="request ü\0\1", user_id="\0"),
        replace(short, score=short.raw_score * 0.5),
        replace(short, raw_score=narrow, score=narrow),
        replace(short, raw_score=narrow, score=np.zeros(700)),
        replace(short, raw_score=np.zeros(700), score=-np.zeros(700)),
        replace(decision(), shelves=shelves, shelf=rng.integers(-1, 200, 30), page=high),
        replace(decision(), shelves=(), page=none, **nothing),
        replace(decision(), boost_factor=np.linspace(1, 2, 30), boost_add=np.full(30, 0.1), relevance=0.25),
        replace(decision(n=29), features=CardFeatures(("one", "two", "ü"), level), relevance=0.5),
        replace(decision(n=29), features=CardFeatures.unknown(29)),
        replace(decision(n=31), policy="imported", shelf_epsilon=np.full(3, np.nan)),
        replace(decision(n=40_000, seed=3), listener=np.empty(0, np.float32)),
    ]  # fmt: skip
    repeated = decision(seed=4)
    repeated.item_id[3] = repeated.item_id[17] = repeated.item_id[20]
    return [(record_version(one), one) for one in [*made, repeated]] + [
        (1, decision(arm="", model_id="", forced=False))
    ]


def assert_page(block: Block, i: int, one: Decision) -> None:
    """Page i of a block is this decision, to the last bit."""
    head, page = block.head[i], one.page
    assert [int(head["decided_us"]), int(head["utc_offset_min"])] == [to_us(one.decided_at), one.context.utc_offset_min]
    traits = (one.traits.account_age_d, one.traits.diversity, one.traits.exploration_success)
    np.testing.assert_array_equal(head["traits"], [np.nan if t is None else t for t in traits])
    words = block.word.to_pylist()[block.first_word[i] : block.first_word[i + 1]]
    named = (one.request_id, one.user_id, one.context.device, one.context.surface, one.context.country)
    named += (one.batch_id, one.policy, one.rules_version, str(one.seed), one.arm, one.model_id)
    of_shelves = [
        word
        for s in one.shelves
        for word in (s.rule, s.title, s.explanation, s.key, *(w for p in s.parameters for w in p))
    ]
    assert words == [*named, *of_shelves, *one.item_id.tolist()]
    assert [block.named(name).to_pylist()[i] for name in NAMED] == list(named)
    assert block.seed[i] == one.seed
    at, slot, row = (slice(o[i], o[i + 1]) for o in (block.offset, block.slot_offset, block.row_offset))
    assert block.item_id.to_pylist()[at] == one.item_id.tolist()
    same = block.item[at][:, None] == block.item[at]
    np.testing.assert_array_equal(same, one.item_id[:, None] == one.item_id)
    rules = block.word.take(block.shelf_word[block.shelf_offset[i] : block.shelf_offset[i + 1]])
    assert rules.to_pylist() == [shelf.rule for shelf in one.shelves]
    bits = [
        (block.shelf[at], one.shelf), (block.raw_score[at], one.raw_score), (block.score[at], one.score),
        (block.row_shelf[row], page.shelf), (block.shelf_propensity[row], page.shelf_propensity),
        (block.card[slot], page.card), (block.card_propensity[slot], page.card_propensity),
        (block.pinned[slot], page.pinned),
    ]  # fmt: skip
    for found, expected in bits:
        assert found.tobytes() == np.ascontiguousarray(expected).astype(found.dtype).tobytes()
    assert bool(block.same[i]) == (one.raw_score.tobytes() == one.score.tobytes())
    assert (bool(block.explicit[i]), bool(block.forced[i])) == (one.context.explicit_allowed, one.forced)
    assert bool(block.boosted[i]) == (one.boost_factor is not None)
    assert (block.relevance[i] if block.diverse[i] else None) == one.relevance
    assert (block.features[i] is None) == (one.features is None)
    assert block.shown()[i] == pack_shown(page)


def test_the_head_has_one_layout() -> None:
    assert HEAD_TYPE.itemsize == HEAD.size
    assert len(OF_SHELF) == 4


def test_records_of_every_kind_are_read_together_as_alone() -> None:
    stored = [encode(one, version) for version, one in kinds()]
    block, position = read_block([s.record for s in stored], [s.checksum for s in stored])
    assert position.tolist() == list(range(len(stored)))
    for i, (_, one) in enumerate(kinds()):
        assert_page(block, i, one)


def test_a_part_of_a_block_is_a_block_of_these_pages() -> None:
    made = [one for _, one in kinds()]
    block = block_of(made)
    for pages in ([3], [9, 0, 8, 8, 1], [], list(range(len(made)))):
        part = block.take(np.array(pages, dtype=np.int64))
        for k, page in enumerate(pages):
            assert_page(part, k, made[page])
    whole = block.take(np.arange(len(made)))
    assert whole is block


def altered(rng: np.random.Generator) -> tuple[int, bytes, bytes]:
    """The bytes of a record in which some were changed."""
    version, one = kinds()[rng.integers(11)]
    head, scores = canonical(one, version)
    part = bytearray(head + scores)
    for _ in range(rng.integers(1, 3)):
        first = rng.integers(2)  # in the head as often as anywhere
        at = int(rng.integers(HEAD.size if first else len(part)))
        part[at] = rng.choice([0, 255, 128, int(rng.integers(256)), part[at] ^ 1, part[at] ^ 64])
    cut = len(head) + int(rng.choice([0, 0, 0, -1, 1]))
    return version, bytes(part[:cut]), bytes(part[cut:])


def test_an_altered_record_is_read_with_others_exactly_where_it_is_read_alone() -> None:
    rng = np.random.default_rng(5)
    parts = [altered(rng) for _ in range(600)]
    records, expected = [packed(*part) for part in parts], [digest(*part) for part in parts]
    block, position = read_block(records, expected)
    alone = {}
    for i, record in enumerate(records):
        try:
            one = decode(record, expected[i])
        except LogError:
            continue
        if one.page.card.shape[1] <= len(record):  # a page without rows may claim any number of columns
            alone[i] = one
    assert position.tolist() == list(alone)
    assert 100 < len(alone) < 500
    for k, i in enumerate(position.tolist()):
        if k % 10 == 0:
            assert_page(block, k, alone[i])


@pytest.mark.parametrize(
    "value", [struct.pack("<d", np.nan), struct.pack("<d", -1e-300), struct.pack("<d", 1.0000000000000002)]
)
def test_a_number_out_of_range_is_not_read(value: bytes) -> None:
    version, one = record_version(decision()), decision()
    head, scores = canonical(one, version)
    for name in ("shelf_epsilon", "card_epsilon"):
        at = head.index(getattr(one, name).tobytes())
        part = version, head[:at] + value + head[at + 8 :], scores
        assert len(read_block([packed(*part)], [digest(*part)])[1]) == 0


def test_a_record_with_another_checksum_is_not_read() -> None:
    stored = encode(decision())
    block, position = read_block(
        [stored.record, stored.record, b"", stored.record[:-1]], [stored.checksum, b"", b"", b""]
    )
    assert (len(block), position.tolist()) == (1, [0])


def test_a_decision_that_cannot_be_kept_is_refused_in_its_own_words() -> None:
    one = decision()
    object.__setattr__(one, "seed", -1)
    with pytest.raises(LogError, match="seed is -1"):
        block_of([decision(), one])


def test_nothing_is_a_block() -> None:
    block, position = read_block([], [])
    assert (len(block), len(position), len(block.item_id), block.shown()) == (0, 0, 0, [])
