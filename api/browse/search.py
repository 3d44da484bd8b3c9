"""Items found by the beginnings of words in title, artists and id, the most popular first.

Words stand sorted, each with the places of the items that have it, so the items of all words that go on after a
beginning are one slice. A place is an item's number by falling popularity: marks in order of places are an answer in
order, whatever its size, and the last place shown is all that the next page needs.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.types import Bools, Ints, ItemTable

MOST_WORDS = 8  # of a question; further ones are not asked for
LAST_BYTE = b"\xff"  # behind every word that goes on after a beginning: no UTF-8 has it


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """row: items in order. next: the place to go on behind, None at the end. count: how many there are in all."""

    row: Ints
    next: int | None
    count: int


class ItemSearch:
    """The words of one item table. Made in about four seconds of CPU a million items (`benchmarks.browse`)."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        n = len(items)
        self._row = np.argsort(-items.popularity, kind="stable")  # of each place
        place = np.empty(n, dtype=np.int32)
        place[self._row] = np.arange(n, dtype=np.int32)
        self._type = items.type[self._row]
        artist, of_artist = _words(pa.array(items.artists.vocabulary, pa.string()))
        holder = np.repeat(np.arange(n), np.diff(items.artists.offset))
        parts = [
            _words(pa.array(items.title, pa.string())),
            _words(pa.array(items.item_id, pa.string())),
            _spread(artist, of_artist, items.artists.code, holder, len(items.artists.vocabulary)),
        ]
        told = pa.chunked_array([words.dictionary for words, _ in parts])
        known = pc.unique(told)
        self._word = known.take(pc.array_sort_indices(known))
        code = np.concatenate([_codes(words, self._word) for words, _ in parts])
        where = np.concatenate([place[item] for _, item in parts])
        order = np.argsort(code, kind="stable")
        self._place = where[order]
        self._offset = np.searchsorted(code[order], np.arange(len(self._word) + 1))

    def find(self, text: str = "", kind: int | None = None, after: int = -1, limit: int = 50) -> Found:
        """Items whose words begin with those of the text, all of them; without any, all items.

        kind: code of a type, None for all. after: the place behind which the answer begins, `next` of the one before.
        An item of just this id comes first.
        """
        words = folded_words(text)[:MOST_WORDS]
        marked: Bools = np.ones(len(self._items), dtype=np.bool_) if kind is None else self._type == kind
        if text.strip() and not words:
            marked = np.zeros_like(marked)
        for word in words:
            marked = marked & self._with(word)
        place = np.flatnonzero(marked)
        first = int(np.searchsorted(place, after + 1))
        shown = place[first : first + limit]
        more = first + limit < len(place)
        row = self._row[shown]
        exact = self._items.row_of.get(text.strip(), -1)
        if exact >= 0:
            own = exact if after < 0 and (kind is None or self._items.type[exact] == kind) else -1
            row = np.concatenate([np.array([own] if own >= 0 else [], dtype=np.int64), row[row != exact]])
        return Found(row, int(shown[-1]) if more else None, len(place))

    def _with(self, beginning: bytes) -> Bools:
        """[n] by place: whether an item has a word that begins so."""
        low, high = (bisect_left(self, end) for end in (beginning, beginning + LAST_BYTE))
        out = np.zeros(len(self._items), dtype=np.bool_)
        out[self._place[self._offset[low] : self._offset[high]]] = True
        return out

    def __len__(self) -> int:
        """How many words there are."""
        return len(self._word)

    def __getitem__(self, number: int) -> bytes:
        """A word, in the order of its bytes."""
        return bytes(self._word[number].as_buffer())


def folded_words(text: str) -> list[bytes]:
    """The words of a text in small letters without marks: letters and digits of any script, the rest parts them."""
    words, _ = _words(pa.array([text], pa.string()))
    return list(dict.fromkeys(word.encode() for word in words.to_pylist()))


def _words(text: pa.Array) -> tuple[pa.DictionaryArray, Ints]:
    """The words of n texts one behind the other, and the text that each is of."""
    plain = pc.utf8_lower(pc.utf8_normalize(text, "NFKD"))
    plain = pc.replace_substring_regex(plain, r"\pM+", "")
    parted = pc.split_pattern_regex(plain, r"[^\pL\pN]+")
    word, of_text = pc.list_flatten(parted), pc.list_parent_indices(parted)
    said = pc.not_equal(word, "")
    return word.filter(said).dictionary_encode(), of_text.filter(said).to_numpy(zero_copy_only=False)


def _spread(words: pa.DictionaryArray, label: Ints, code: Ints, holder: Ints, n: int) -> tuple[Any, Ints]:
    """Words of labels as words of the items that carry them. code, holder: [m] label and item of each pair."""
    offset = np.searchsorted(label, np.arange(n + 1))  # words stand by label
    size = np.diff(offset)[code]
    first = np.repeat(offset[:-1][code], size)
    step = np.arange(len(first)) - np.repeat(np.cumsum(size) - size, size)
    return words.take(pa.array(first + step)), np.repeat(holder, size)


def _codes(words: pa.DictionaryArray, vocabulary: pa.Array) -> Ints:
    by_word = pc.index_in(words.dictionary, vocabulary).to_numpy(zero_copy_only=False)
    indices = words.indices.to_numpy(zero_copy_only=False)
    return np.asarray(by_word[indices] if len(by_word) else indices, dtype=np.int32)
