"""Many decisions as columns: what `record.decode` reads of each, for all of them at once.

Reading a record makes some ninety strings and a dozen small arrays, which cost more than all that is then done with
them. Here the parts of many records are joined and each is read once. Texts are one Arrow array, page after page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.types import Bools, Floats, Floats32, Ints

Texts: TypeAlias = Any  # an Arrow array of strings: pyarrow has no type stubs

HEAD_TYPE = np.dtype(
    [
        ("decided_us", "<i8"),
        ("utc_offset_min", "<i2"),
        ("flags", "<u2"),
        ("traits", "<f8", 3),
        *((name, "<u4") for name in ("n", "n_shelves", "rows_asked", "columns_asked", "rows", "columns")),
        *((name, "<u4") for name in ("dimension", "text_size", "n_texts")),
    ]
)
# texts that every page begins with, in this order; those of its shelves and the ids of its items follow
NAMED = (
    "request_id", "user_id", "device", "surface", "country", "batch_id", "policy", "rules_version", "seed", "arm",
    "model_id",
)  # fmt: skip
OF_SHELF = ("rule", "title", "explanation", "key")  # texts that every shelf begins with; pairs of parameters follow


@dataclass(frozen=True, eq=False)
class Block:
    """b decisions. Flat arrays hold page after page: N candidates, S shelves that could be drawn, R rows, C slots.

    head: [b] of `HEAD_TYPE`; explicit, forced: [b]. word: texts; first_word [b + 1], where those of a page begin.
    listener: float32 as `head` has its dimension; shelf_epsilon and card_epsilon as many as were asked for.
    n_parameters: [S]. shelf, raw_score, score: [N]; score is the same array where it is for all, and same [b] tells for
    which pages. row_shelf, shelf_propensity: [R]; card, card_propensity (NaN where no card stands), pinned: [C].
    boosted: [b], whose candidates have a boost_factor and boost_add (flat over those pages alone). diverse: [b], with
    diversity after that, by relevance [b] (NaN without). features: of each page the bytes of `levels.pack_levels`, None
    without.
    """

    head: NDArray[Any]
    explicit: Bools
    forced: Bools
    word: Texts
    first_word: Ints
    listener: Floats32
    shelf_epsilon: Floats
    card_epsilon: Floats
    n_parameters: Ints
    shelf: Ints
    raw_score: Floats
    score: Floats
    same: Bools
    row_shelf: Ints
    card: Ints
    pinned: Bools
    shelf_propensity: Floats
    card_propensity: Floats
    boosted: Bools
    boost_factor: Floats
    boost_add: Floats
    diverse: Bools
    relevance: Floats
    features: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.head)

    def count(self, name: str) -> Ints:
        """[b] a count of `head`."""
        return self.head[name].astype(np.int64)

    @cached_property
    def offset(self) -> Ints:
        """[b + 1], where the candidates of a page begin."""
        return starts(self.count("n"))

    @cached_property
    def shelf_offset(self) -> Ints:
        """[b + 1], where the shelves of a page begin."""
        return starts(self.count("n_shelves"))

    @cached_property
    def row_offset(self) -> Ints:
        """[b + 1], where the rows of a page begin."""
        return starts(self.count("rows"))

    @cached_property
    def slot_offset(self) -> Ints:
        """[b + 1], where the slots of a page begin."""
        return starts(self.count("rows") * self.count("columns"))

    @cached_property
    def shelf_word(self) -> Ints:
        """[S], the first text of each shelf."""
        size = len(OF_SHELF) + 2 * self.n_parameters
        before = starts(size)
        of_page = self.first_word[:-1] + len(NAMED) - before[self.shelf_offset[:-1]]
        return before[:-1] + np.repeat(of_page, np.diff(self.shelf_offset))

    def named(self, name: str) -> Texts:
        """[b] texts of `NAMED`."""
        return self.word.take(pa.array(self.first_word[:-1] + NAMED.index(name)))

    @cached_property
    def policy(self) -> list[str]:
        """[b], names of policies."""
        return list(self.named("policy").to_pylist())

    @cached_property
    def seed(self) -> list[int]:
        """[b]."""
        return [int(text) for text in self.named("seed").to_pylist()]

    @property
    def first_item(self) -> Ints:
        """[b], the text that is the first item id of a page."""
        return self.first_word[1:] - self.count("n")

    @cached_property
    def item_id(self) -> Texts:
        """[N]."""
        of_page = self.first_item - self.offset[:-1]
        return self.word.take(pa.array(np.arange(self.offset[-1]) + np.repeat(of_page, self.count("n"))))

    @cached_property
    def item(self) -> Ints:
        """[N] numbers that are equal where item ids of a page are."""
        from bart.log.record.item_kernels import number_items

        _, ends, texts = self.word.buffers()
        number = np.empty(self.offset[-1], dtype=np.int64)
        end = np.frombuffer(ends, np.int32, len(self.word) + 1, 4 * self.word.offset)
        number_items(np.frombuffer(texts or b"", np.uint8), end, self.first_item, self.offset, number)
        return number

    @cached_property
    def has_pin(self) -> Bools:
        """[b]."""
        return pages_with(self.pinned, self.slot_offset)

    def shown(self) -> list[bytes]:
        """What `record.pack_shown` packs of each page."""
        there, out = self.card >= 0, [b""] * len(self)
        size = self.head[["rows", "columns"]]
        for shape in np.unique(size):
            pages = np.flatnonzero(size == shape)
            slots = there[spread(self.slot_offset, pages)[0]].reshape(len(pages), -1)
            told = np.array([shape["rows"], shape["columns"]], dtype="<u2").tobytes()
            for page, bits in zip(pages.tolist(), np.packbits(slots, axis=1), strict=True):
                out[page] = told + bits.tobytes()
        return out

    def take(self, pages: Ints) -> Block:
        """Some of the pages, in that order."""
        if len(pages) == len(self) and np.array_equal(pages, np.arange(len(self))):
            return self
        candidate, row = spread(self.offset, pages)[0], spread(self.row_offset, pages)[0]
        slot = spread(self.slot_offset, pages)[0]
        word, first_word = spread(self.first_word, pages)
        boosted = spread(starts(np.where(self.boosted, self.count("n"), 0)), pages)[0]
        by = {
            **dict.fromkeys(("shelf", "raw_score"), candidate),
            **dict.fromkeys(("row_shelf", "shelf_propensity"), row),
            **dict.fromkeys(("card", "card_propensity", "pinned"), slot),
            **dict.fromkeys(("boost_factor", "boost_add"), boosted),
            **dict.fromkeys(("head", "explicit", "forced", "same", "boosted", "diverse", "relevance"), pages),
            "n_parameters": spread(self.shelf_offset, pages)[0],
        }
        for name, of in (("listener", "dimension"), ("shelf_epsilon", "rows_asked"), ("card_epsilon", "columns_asked")):
            by[name] = spread(starts(self.count(of)), pages)[0]
        arrays = {name: getattr(self, name)[index] for name, index in by.items()}
        return Block(
            **arrays,
            word=self.word.take(pa.array(word)),
            first_word=first_word,
            score=arrays["raw_score"] if self.score is self.raw_score else self.score[candidate],
            features=[self.features[page] for page in pages.tolist()],
        )


def starts(size: Ints) -> Ints:
    """[m + 1], where each of some parts of these sizes begins, and the end."""
    out = np.zeros(len(size) + 1, dtype=np.int64)
    np.cumsum(size, out=out[1:])
    return out


def spread(offset: Ints, parts: Ints) -> tuple[Ints, Ints]:
    """Flat positions of some parts of a ragged array, and where each begins among them."""
    size = np.diff(offset)[parts]
    new = starts(size)
    return np.arange(new[-1]) + np.repeat(offset[parts] - new[:-1], size), new


def pages_with(mask: Bools, offset: Ints) -> Bools:
    """[b], which parts of a ragged array have a True in them."""
    out = np.zeros(len(offset) - 1, dtype=np.bool_)
    at = np.flatnonzero(mask)
    if len(at):
        out[np.searchsorted(offset, at, side="right") - 1] = True
    return out
