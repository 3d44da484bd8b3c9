"""What is made of events is the same whether text comes as text or as codes, and whether by some listeners at once."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recommender.events.blocks import Block
from recommender.events.parts import write_parts
from recommender.events.table import read_blocks
from recommender.features.tables import Plays
from recommender.sessions import lengths, sessions
from recommender.sessions.codes import coded
from recommender.shelves import profile
from recommender.shelves.items import complete, item_table, items_of_events
from recommender.shelves.reconsumption import split_last_sessions
from recommender.vectors.sentences import sentences_of_events


def loaded(as_codes: bool) -> Any:
    """Plays, likes and ratings of 30 listeners, some of whom only like; read anew each time."""
    rng, n = np.random.default_rng(3), 3_000
    user = rng.integers(30, size=n)
    kind = np.where(user < 3, "like", np.where(rng.random(n) < 0.1, "like", "play"))
    words = {"user_id": user.astype(str), "device": rng.choice(["mobile", "web", "tv"], n), "type": kind}
    words |= {"item_id": rng.integers(90, size=n).astype(str), "source": rng.choice(["radio", "search"], n)}
    raw = pa.table({**words, "started_at": 1_700_000_000 + rng.integers(10**6, size=n), "skipped": rng.random(n) < 0.3})
    return read_blocks([Block(raw.slice(0, 1_000)), Block(raw.slice(1_000))], as_codes=as_codes)


def made(found: Any) -> list[Any]:
    """All that the build counts by listener."""
    items = item_table(complete(items_of_events(found.item_text), found.events)[:-9])
    vector = np.random.default_rng(1).standard_normal((len(items), 4)).astype(np.float32)
    return [
        profile.build_profiles(found.events, items),
        sessions.cut_sessions(found.events, items.row_of, vector),
        Plays.of(found.events, items),
        sentences_of_events(found.events, items.row_of),
        [sorted(part["item_id"].to_pylist()) for part in split_last_sessions(found.events)],
    ]


def same(a: Any, b: Any) -> None:
    if is_dataclass(a):
        for entry in fields(a):
            same(getattr(a, entry.name), getattr(b, entry.name))
    elif isinstance(a, (list, tuple)):
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1 << 20, 100])
def test_codes_and_parts_by_listener_give_what_text_at_once_gives(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = made(loaded(False)), loaded(True)
    assert pa.types.is_dictionary(found.events["user_id"].type)
    assert len(expected[0].user_id) > len(expected[1].user_id)  # who only likes has no session
    whole = lengths.parts_by_listener
    for module in (profile, sessions):
        monkeypatch.setattr(module, "parts_by_listener", lambda user: whole(user, size))
    same(expected, made(found))


def test_events_as_codes_are_stored_as_text(tmp_path: Path) -> None:
    for as_codes in (True, False):
        write_parts(loaded(as_codes).events, tmp_path / str(as_codes))
    assert pq.read_table(tmp_path / "True").equals(pq.read_table(tmp_path / "False"))
    assert pa.types.is_string(pq.read_schema(tmp_path / "True").field("user_id").type)


def test_words_of_rows_that_were_left_out_do_not_occur() -> None:
    words = pa.chunked_array([pa.array(["b", "a", None, "c", "a"])])
    for column in (words, words.dictionary_encode()):
        left, code = coded(column.filter(pa.array([False, True, True, True, True])))
        assert (left.to_pylist(), code.tolist()) == (["a", "c"], [0, -1, 1, 0])


def test_dictionaries_of_chunks_may_differ_repeat_a_word_and_hold_a_null() -> None:
    chunks = [["b", "a", None, "a"], [f"word {i}" for i in range(100)], [f"more {i}" for i in range(100)]]
    codes = [pa.array([3, 0, 2, 1], pa.int8()), *(pa.array(range(100), pa.int8()) for _ in range(2))]
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(*pair) for pair in zip(codes, chunks, strict=True)])
    words, code = coded(column)
    assert words.to_pylist() == ["a", "b", *chunks[1], *chunks[2]]
    assert code.tolist() == [0, 1, -1, 0, *range(2, 202)]
