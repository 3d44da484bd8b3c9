"""Items are found by the beginnings of words, the most popular first, page after page."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest

from api.browse.search import ItemSearch, folded_words
from bart.types import ITEM_TYPES, ItemTable, Labels

SYLLABLES = ("ka", "lo", "mi", "é", "ß", "Ö", "shi", "東", "7", "ﬁ")


def table(title: list[str], artists: list[list[str]], popularity: Any = None, item_id: Any = None) -> ItemTable:
    n = len(title)
    none = Labels.of([[]] * n)
    return ItemTable(
        item_id=np.array(item_id or [f"spotify:track:{i:03d}" for i in range(n)], dtype=object),
        title=np.array(title, dtype=object),
        type=np.arange(n).astype(np.int8) % 2,
        artists=Labels.of(artists),
        genres=none,
        released_at=np.full(n, "NaT", dtype="datetime64[D]"),
        countries=none,
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=np.linspace(0, 1, n) if popularity is None else np.asarray(popularity),
        duration_s=np.full(n, np.nan),
        vector=np.zeros((n, 2), dtype=np.float32),
    )


def random_table(rng: np.random.Generator, n: int) -> ItemTable:
    def words() -> str:
        return " ".join("".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(rng.integers(0, 4)))

    return table([words() for _ in range(n)], [[words() for _ in range(rng.integers(0, 3))] for _ in range(n)],
                 rng.integers(0, 4, n) / 4)  # fmt: skip


def plain(text: str) -> list[str]:
    """The words of a text, the slow way."""
    parted = unicodedata.normalize("NFKD", text).lower()
    letters = [c for c in parted if not unicodedata.category(c).startswith("M")]
    return "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in letters).split()


def expected(items: ItemTable, text: str) -> list[int]:
    rows = []
    for row in np.argsort(-items.popularity, kind="stable").tolist():
        words = plain(" ".join([items.title[row], items.item_id[row], *items.artists[row]]))
        if all(any(word.startswith(asked) for word in words) for asked in plain(text)):
            rows.append(row)
    return rows


def test_what_is_found_is_what_a_look_at_every_item_finds() -> None:
    rng = np.random.default_rng(3)
    items = random_table(rng, 120)
    search = ItemSearch(items)
    asked = [
        "",
        "k",
        "KA",
        "kalo",
        "ka lo",
        "e",
        "o",
        "東",
        "track 00",
        "7 mi",
        "nothing",
        "ss",
        "fi",
        "spotify:track:007",
    ]
    for text in asked:
        found = search.find(text, limit=200)
        rows = expected(items, text)
        if text in items.row_of:
            rows = [items.row_of[text], *(row for row in rows if row != items.row_of[text])]
        assert found.row.tolist() == rows, text
        assert (found.count, found.next) == (len(expected(items, text)), None)


@pytest.mark.parametrize("kind", [None, 0, 1])
def test_pages_one_after_the_other_are_the_whole_answer(kind: int | None) -> None:
    items = random_table(np.random.default_rng(4), 80)
    search = ItemSearch(items)
    for text in ("", "ka", "spotify:track:007"):
        whole = search.find(text, kind, limit=500).row.tolist()
        pages: list[int] = []
        after: int | None = -1
        while after is not None:
            found = search.find(text, kind, after, 7)
            assert len(found.row) <= 8
            pages += found.row.tolist()
            after = found.next
        assert pages == whole
        assert len(set(pages)) == len(pages)
        assert kind is None or set(items.type[whole].tolist()) <= {kind}


def test_an_item_of_just_this_id_comes_first() -> None:
    items = table(["a b", "x1", "c"], [[], [], []], [0.1, 0.9, 0.5], ["x1", "y", "z"])
    assert ItemSearch(items).find("x1").row.tolist() == [0, 1]
    assert ItemSearch(items).find("x1", kind=1).row.tolist() == [1]


def test_a_text_without_a_word_finds_nothing_and_an_empty_one_everything() -> None:
    search = ItemSearch(table(["a", "b"], [[], []]))
    assert search.find(" !?").row.tolist() == []
    assert search.find("  ").row.tolist() == [1, 0]


def test_an_empty_table_holds_nothing() -> None:
    found = ItemSearch(table([], [])).find("a")
    assert (len(found.row), found.next, found.count) == (0, None, 0)


def test_marks_and_capitals_part_no_words_from_their_plain_ones() -> None:
    assert folded_words("Beyoncé's CRÈME, Beyoncé") == [b"beyonce", b"s", b"creme"]
    assert ITEM_TYPES[0] == "track"
