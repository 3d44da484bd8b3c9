"""The bytes of a decision: what goes in comes out to the last bit, and what was altered is noticed."""

from __future__ import annotations

import string
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_decisions import AT, decision

from bart.errors import LogError
from bart.log.record.record import EncodedDecision, checksum, decode, encode, from_us, pack_shown, to_us, unpack_shown
from bart.types import CardFeatures, Decision, Page, Shelf
from bart.types.levels import LEVELS


def unchecked(thing: Any, **changes: Any) -> Any:
    """A copy with fields that its class would refuse: what an altered file holds was never checked."""
    made = copy(thing)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def bits(value: Any) -> bytes:
    return np.ascontiguousarray(value).tobytes()


def assert_equal_to_the_bit(one: Decision, other: Decision) -> None:
    for name in Decision.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, Page):
            for part in Page.__dataclass_fields__:
                x, y = getattr(a, part), getattr(b, part)
                assert x.shape == y.shape, part
                assert bits(x.astype(y.dtype)) == bits(y), part
        elif isinstance(a, np.ndarray) and a.dtype == object:
            assert a.tolist() == b.tolist(), name
        elif isinstance(a, np.ndarray):
            assert a.shape == b.shape, name
            assert bits(a.astype(b.dtype)) == bits(b), name
        else:
            assert a == b, name


def round_trip(one: Decision, version: int = 2) -> Decision:
    stored = encode(one, version)
    return decode(stored.record, stored.checksum)


def test_a_decision_comes_back_to_the_last_bit() -> None:
    assert_equal_to_the_bit(decision(), round_trip(decision()))


def test_what_boosts_and_diversity_did_to_the_scores_comes_back() -> None:
    boosted = decision(boost_factor=np.linspace(1, 2, 30), boost_add=np.full(30, 0.1))
    for one in (boosted, decision(relevance=0.6), replace(boosted, relevance=0.3)):
        stored = encode(one)
        assert stored.record[0] == 3
        assert_equal_to_the_bit(one, decode(stored.record, stored.checksum))
    assert encode(decision()).record[0] == 2


def test_a_decision_without_candidates_comes_back() -> None:
    page = Page(
        np.empty(0, np.int64), np.empty((0, 4), np.int64), np.empty(0), np.empty((0, 4)), np.empty((0, 4), np.bool_)
    )
    empty = decision(
        item_id=np.empty(0, dtype=object),
        shelf=np.empty(0, np.int64),
        raw_score=np.empty(0),
        score=np.empty(0),
        shelves=(),
        page=page,
    )
    back = round_trip(empty)
    assert_equal_to_the_bit(empty, back)
    assert back.page.card.shape == (0, 4)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=30, max_size=30), st.booleans())
@settings(max_examples=60)
def test_every_finite_score_is_kept_exactly(scores: list[float], between: bool) -> None:
    raw = np.array(scores)
    final = raw * 0.5 if between else raw
    one = decision(raw_score=raw, score=final)
    assert_equal_to_the_bit(one, round_trip(one))


def test_minus_zero_is_not_zero() -> None:
    zeros = np.zeros(30)
    one = decision(raw_score=zeros, score=-zeros)
    back = round_trip(one)
    assert np.signbit(back.score).all()
    assert not np.signbit(back.raw_score).any()


def test_scores_that_are_float32_take_half_the_room() -> None:
    wide = decision(n=1000)
    narrow_score = wide.raw_score.astype(np.float32).astype(np.float64)
    narrow = replace(wide, raw_score=narrow_score, score=narrow_score)
    assert len(encode(wide).record) - len(encode(narrow).record) == 4 * 1000
    assert_equal_to_the_bit(narrow, round_trip(narrow))


@pytest.mark.parametrize("n_shelves", [1, 127, 128, 129, 1000])
def test_any_number_of_shelves_is_kept(n_shelves: int) -> None:
    shelf = np.arange(30) * n_shelves // 30
    shelf[-1] = n_shelves - 1
    page = decision().page
    page = replace(page, shelf=np.minimum(page.shelf, n_shelves - 1))
    one = decision(shelves=tuple(Shelf(f"{s}", "") for s in range(n_shelves)), shelf=shelf, page=page)
    assert_equal_to_the_bit(one, round_trip(one))


def test_a_hundred_thousand_candidates_are_kept() -> None:
    one = decision(n=100_000)
    assert one.page.card.max() > 2**15
    assert_equal_to_the_bit(one, round_trip(one))


def test_a_score_that_equals_the_raw_one_is_kept_once() -> None:
    one = decision(n=1000)
    assert len(encode(replace(one, score=one.score * 0.5)).record) - len(encode(one).record) == 8 * 1000
    assert encode(replace(one, score=one.score.copy())) == encode(one)


def test_equal_decisions_have_equal_bytes_whatever_way_they_took() -> None:
    stored = encode(decision())
    assert encode(decision()) == stored
    assert encode(decode(stored.record)) == stored
    assert checksum(decode(stored.record)) == stored.checksum


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=30, max_size=30),
    st.text(st.sampled_from("\0\1\2a"), min_size=1),
)
@settings(max_examples=60)
def test_ids_are_opaque_text_of_any_kind(ids: list[str], request_id: str) -> None:
    one = decision(item_id=np.array([*ids, None], dtype=object)[:-1], request_id=request_id)
    assert_equal_to_the_bit(one, round_trip(one))


def test_the_columns_beside_the_record_are_those_of_the_decision() -> None:
    stored = encode(decision())
    assert isinstance(stored, EncodedDecision)
    assert (stored.request_id, stored.user_id) == ("request-1", "ü")
    assert from_us(stored.decided_us) == AT
    assert np.array_equal(unpack_shown(stored.shown), decision().page.shown)
    assert pack_shown(decision().page) == stored.shown


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_times_are_kept_to_the_microsecond(naive: datetime) -> None:
    at = naive.replace(tzinfo=timezone(timedelta(hours=2)))
    assert from_us(to_us(at)) == at


def test_version_1_is_read_without_what_it_lacked() -> None:
    back = round_trip(decision(), version=1)
    assert (back.arm, back.forced, back.model_id) == ("", False, "")
    assert_equal_to_the_bit(replace(decision(), arm="", forced=False, model_id=""), back)


def test_a_newer_version_is_refused_by_its_number() -> None:
    stored = encode(decision())
    with pytest.raises(LogError, match="version 9; this code reads 1 to 4"):
        decode(b"\x09" + stored.record[1:], stored.checksum)


def test_every_flipped_bit_is_noticed_or_changes_nothing() -> None:
    """A compressed block can say the same in several ways; what counts is the decision."""
    stored = encode(decision())
    rng = np.random.default_rng(0)
    noticed = 0
    for at in range(len(stored.record)):
        broken = bytearray(stored.record)
        broken[at] ^= 1 << int(rng.integers(8))
        try:
            back = decode(bytes(broken), stored.checksum)
        except LogError:
            noticed += 1
        else:
            assert_equal_to_the_bit(decision(), back)
    assert noticed > 0.98 * len(stored.record)


def test_every_torn_record_is_noticed() -> None:
    stored = encode(decision())
    for size in range(len(stored.record)):
        with pytest.raises(LogError):
            decode(stored.record[:size], stored.checksum)
    with pytest.raises(LogError):
        decode(stored.record + b"\0", stored.checksum)


def test_a_record_cannot_be_passed_off_as_another_request() -> None:
    stored = encode(decision())
    other = encode(decision(request_id="request-2"))
    with pytest.raises(LogError, match="altered"):
        decode(stored.record, other.checksum)


def test_noise_is_never_a_decision() -> None:
    rng = np.random.default_rng(3)
    for size in range(0, 400, 7):
        with pytest.raises(LogError):
            decode(b"\x02" + rng.bytes(size))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"listener": np.zeros(5)}, "listener has dtype float64; expected float32"),
        ({"raw_score": np.zeros(30, dtype=np.int64)}, "raw_score has dtype int64; expected float64"),
        ({"shelf": np.full(30, 300)}, "shelf holds 300"),
        ({"user_id": "\ud800"}, "not valid Unicode"),
        ({"user_id": 7}, "holds 7 where a string is expected"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(LogError, match=text):
        encode(unchecked(decision(), **changes))


def test_no_word_of_the_record_is_lost_on_the_alphabet() -> None:
    one = decision(arm=string.printable, model_id=string.punctuation)
    assert_equal_to_the_bit(one, round_trip(one))


def known(n: int, names: tuple[str, ...] = ("near", "played", "fresh")) -> CardFeatures:
    level = np.random.default_rng(1).integers(0, LEVELS, (n, len(names))).astype(np.uint8)
    return CardFeatures(names, level)


@pytest.mark.parametrize("n", [0, 1, 30, 31])
def test_features_of_candidates_come_back_level_by_level(n: int) -> None:
    rows = 0 if n < 20 else 3
    made = decision(n, rows=rows) if rows else nothing_shown(n)
    made = replace(made, features=known(n))
    stored = encode(made)
    assert stored.record[0] == 4
    again = decode(stored.record, stored.checksum)
    assert again.features is not None
    assert again.features.name == made.features.name  # type: ignore[union-attr]
    assert np.array_equal(again.features.level, made.features.level)  # type: ignore[union-attr]


def nothing_shown(n: int) -> Decision:
    page = Page(np.empty(0, int), np.empty((0, 4), int), np.empty(0), np.empty((0, 4)), np.empty((0, 4), bool))
    whole = decision()
    score = np.linspace(0.1, 0.2, n)
    return replace(whole, item_id=whole.item_id[:n], shelf=whole.shelf[:n], raw_score=score, score=score, page=page)


def test_a_decision_without_features_is_written_as_before_there_were_any() -> None:
    assert encode(decision()).record[0] == 2
    assert encode(decision(boost_factor=np.ones(30), boost_add=np.zeros(30))).record[0] == 3
    moved = decision(boost_factor=np.ones(30), boost_add=np.zeros(30), features=known(30))
    stored = encode(moved)
    again = decode(stored.record, stored.checksum)
    assert again.boost_factor is not None
    assert np.array_equal(again.features.level, moved.features.level)  # type: ignore[union-attr]


def test_an_altered_level_is_noticed_and_names_with_a_comma_are_refused() -> None:
    one, other = known(30), known(30)
    other.level[3, 1] ^= 1
    assert checksum(decision(features=one)) != checksum(decision(features=other))
    with pytest.raises(LogError, match="expected names without a comma"):
        encode(decision(features=known(30, ("a,b",))))
    with pytest.raises(ValueError, match="features are of 29 candidates; expected 30"):
        decision(features=known(29))
